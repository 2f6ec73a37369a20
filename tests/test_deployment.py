"""What no program runs in the other tests: settings file, containers, Makefile, links of the documents."""

import json
import re
import shlex
import subprocess
import tomllib
from collections import Counter

import pytest

from cli.main import COMMANDS
from service.settings import Settings
from tests.cluster.cluster import COMPOSE, QUICK, ROOT, SERVERS, Cluster, described, replicas

DOCKERFILE = (ROOT / "Dockerfile").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
_PARTS = ("migrate", "gateway", "sweeper", "io-worker", "cpu-worker", "gpu-worker", "predictor", "predictor-2")


def shown(default):
    if isinstance(default, dict):
        return json.dumps(default)
    return f"{default:g}" if isinstance(default, float) else str(default)


def test_the_settings_file_has_every_setting_with_its_default_and_description():
    lines = (ROOT / ".env.example").read_text().splitlines()
    for name, field in Settings.model_fields.items():
        default = field.get_default(call_default_factory=True)
        unset = default is None or default == []
        line = f"#MR_{name.upper()}=" if unset else f"MR_{name.upper()}={shown(default)}"
        assert line in lines, f"{line} is not in .env.example"
        assert lines[lines.index(line) - 1] == f"# {field.description}"


def test_the_settings_file_names_nothing_else():
    named = set(re.findall(r"^#?(MR_\w+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
    assert named == {f"MR_{name.upper()}" for name in Settings.model_fields} | {"MR_PUBLISH"}


@pytest.mark.parametrize("part", _PARTS)
def test_compose_runs_commands_that_exist(part):
    program, command, *_ = COMPOSE["services"][part]["command"]
    assert (program, command in COMMANDS) == ("mr", True)


def test_compose_starts_every_part():
    assert set(COMPOSE["services"]) == {"postgres", "redis", *_PARTS}


@pytest.mark.parametrize("part", _PARTS)
def test_compose_sets_what_settings_know(part):
    names = {name for name in COMPOSE["services"][part]["environment"] if name.startswith("MR_")}
    assert names <= {f"MR_{name.upper()}" for name in Settings.model_fields}


def test_the_cluster_of_the_tests_is_the_one_of_compose(tmp_path):
    """Same parts, same commands but for addresses, the same settings and short times."""
    cluster = Cluster(tmp_path)
    assert set(described()) == {*SERVERS, *_PARTS} - {"migrate", "gpu-worker"}
    assert Counter(cluster.service_of.values()) == {
        name: replicas(service) for name, service in described().items() if name not in SERVERS
    }
    for name, part in cluster.parts.items():
        service = COMPOSE["services"][cluster.service_of[name]]
        assert len(part.arguments) == len(service["command"]) - 1
        assert part.arguments[0] == service["command"][1]
        given = {variable for variable in service["environment"] if variable.startswith("MR_")}
        assert set(cluster.variables(name)) == given | set(QUICK)
    assert cluster.redis.arguments[1:3] == ["--appendonly", "yes"]


def test_what_may_fail_alone_is_there_twice():
    running = described()
    assert [replicas(running[name]) for name in ("gateway", "sweeper", "cpu-worker")] == [2, 2, 2]
    urls = running["gateway"]["environment"]["MR_PREDICTOR_URLS"].split(",")
    assert [url.split("/")[2].split(":")[0] for url in urls] == [name for name in running if "predictor" in name]
    assert len(urls) == 2


def test_each_gateway_has_a_port_of_its_own():
    (published,) = COMPOSE["services"]["gateway"]["ports"]
    first, last = re.fullmatch(r"\$\{MR_PUBLISH:-127\.0\.0\.1:(\d+)-(\d+)\}:8000", published).groups()
    assert int(last) - int(first) + 1 == replicas(COMPOSE["services"]["gateway"])


def test_compose_has_no_default_secret():
    text = (ROOT / "docker-compose.yml").read_text()
    for secret in ("POSTGRES_PASSWORD", "REDIS_PASSWORD", "MR_PREDICTOR_TOKEN"):
        uses = re.findall(rf"\$\{{{secret}[^}}]*\}}", text)
        assert uses
        assert all(":?" in use for use in uses), f"{secret} must be required where it is used"


@pytest.mark.parametrize("name", [name for name in COMPOSE["services"] if name != "migrate"])
def test_every_service_is_watched_and_limited(name):
    service = COMPOSE["services"][name]
    assert service["healthcheck"]["test"]
    assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory"}


def test_health_checks_ask_for_checks_that_exist(capsys, monkeypatch, tmp_path):
    from cli.main import main

    monkeypatch.setenv("MR_DATA_DIR", str(tmp_path))
    asked = {
        word
        for service in COMPOSE["services"].values()
        for word, before in zip(service.get("healthcheck", {}).get("test", [])[1:],
                                service.get("healthcheck", {}).get("test", []), strict=False)
        if before == "--only"
    }  # fmt: skip
    assert asked == {"database", "broker"}
    main(["doctor", "--json"])
    assert "database" in {check["name"] for check in json.loads(capsys.readouterr().out)}


def test_compose_keeps_the_broker_through_a_restart():
    command = " ".join(COMPOSE["services"]["redis"]["command"])
    assert "--appendonly yes" in command
    assert "--maxmemory-policy noeviction" in command


def test_each_image_of_compose_is_a_target_of_the_dockerfile():
    targets = set(re.findall(r"^FROM \S+ AS (\w+)", DOCKERFILE, re.MULTILINE))
    assert {COMPOSE["services"][part]["build"]["target"] for part in _PARTS} == targets - {"base"}


def test_the_image_gets_every_package_and_the_context_lets_it_through():
    copied = set(re.findall(r"^COPY (.+) \S+$", DOCKERFILE, re.MULTILINE))
    copied = {name for names in copied for name in names.split()}
    packages = {"api", "cli", "migrations", "mr_core", "service", "worker"}
    assert packages | {"pyproject.toml", "constraints.txt", "README.md", "LICENSE"} == copied
    let_through = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert copied == let_through
    assert all((ROOT / name).exists() for name in copied)


def test_the_gateway_image_installs_no_torch():
    extra = PROJECT["optional-dependencies"]["gateway"]
    assert re.search(r'AS gateway\nRUN pip install -c constraints.txt "\.\[gateway\]"', DOCKERFILE)
    assert not any("torch" in requirement or "mr-service" in requirement for requirement in extra)


def test_every_requirement_is_pinned():
    pinned = {
        re.split("==", line)[0].strip().lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    }
    for requirements in (PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()):
        names = {
            re.split(r"[\[<>=!;]", requirement)[0].strip().lower().replace("_", "-") for requirement in requirements
        }
        assert names - {"mr-service"} <= pinned


@pytest.mark.parametrize("target", ["setup", "demo", "test", "check", "bench", "migrate"])
def test_make_knows_its_targets(target):
    done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_ci_is_a_valid_script_and_runs_what_developers_run():
    script = (ROOT / ".ci" / "run").read_text()
    subprocess.run(["bash", "-n", str(ROOT / ".ci" / "run")], check=True)
    assert [shlex.split(line) for line in script.splitlines() if line.startswith("make")] == [
        ["make", "check"],
        ["make", "test"],
    ]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_of_a_document_lead_somewhere(document):
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text())
    for link in links:
        assert link.startswith(("https://", "mailto:")) or (document.parent / link).exists(), f"{document.name}: {link}"


def test_the_readme_names_the_commands():
    text = (ROOT / "README.md").read_text()
    assert "make demo" in text
    assert "make test" in text
