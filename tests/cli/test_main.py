import json
import os
import resource
import subprocess
import sys

import pytest

from cli.main import COMMANDS, main

MR = [sys.executable, "-m", "cli.main"]


def cpu_seconds(command):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_help_is_quick():
    assert min(cpu_seconds([*MR, "--help"]) for _ in range(3)) < 0.4


def test_help_imports_nothing_heavy():
    heavy = "{'torch', 'httpx', 'pydantic', 'rich', 'sqlalchemy', 'celery', 'numpy'}"
    probe = f"import sys, cli.main; cli.main._parser(['--help']); print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", probe], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name, capsys):
    with pytest.raises(SystemExit) as ending:
        main([name, "--help"])
    assert ending.value.code == 0
    assert f"usage: mr {name}" in capsys.readouterr().out


def test_an_unknown_command_is_a_usage_error(capsys):
    with pytest.raises(SystemExit) as ending:
        main(["conjure"])
    assert ending.value.code == 2
    assert "conjure" in capsys.readouterr().err


def test_a_service_that_is_away_ends_with_3(monkeypatch, capsys):
    monkeypatch.setenv("MR_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("MR_API_KEY", "mr_x")
    assert main(["jobs"]) == 3
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("mr: no answer from http://127.0.0.1:9")
    assert said.err.count("\n") == 1


def test_no_service_known_ends_with_3(monkeypatch, tmp_path, capsys):
    monkeypatch.delenv("MR_URL", raising=False)
    monkeypatch.setenv("MR_DATA_DIR", str(tmp_path))
    assert main(["jobs"]) == 3
    assert "mr up" in capsys.readouterr().err


def test_the_service_of_mr_up_is_found_by_its_files(service, monkeypatch, tmp_path, capsys):
    (tmp_path / "address").write_text(service.url)
    (tmp_path / "api-key").write_text("mr_kept\n")
    for name in ("MR_URL", "MR_API_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("MR_DATA_DIR", str(tmp_path))
    service.answers["GET /v1/jobs"] = (200, {"data": [], "has_more": False})
    assert main(["jobs", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []
    assert service.requests[0].headers["Authorization"] == "Bearer mr_kept"


def test_a_refusal_ends_with_2_and_names_code_and_parameter(service, tmp_path, capsys):
    problem = {"code": "validation_failed", "detail": "expected a number", "param": "trainer.epochs", "request_id": "r"}
    service.answers["POST /v1/jobs"] = (422, problem)
    spec = tmp_path / "spec.json"
    spec.write_text("{}")
    assert main(["submit", str(spec)]) == 2
    assert capsys.readouterr().err == "mr: validation_failed: expected a number (trainer.epochs)\n"


def test_a_failure_of_the_service_ends_with_3_and_names_the_request(service, capsys):
    service.answers["GET /v1/methods"] = (500, {"code": "internal_error", "detail": "a bug", "request_id": "req_7"})
    assert main(["methods"]) == 3
    assert "[request req_7]" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["not json", "[1]"])
def test_a_spec_that_is_no_object_is_a_usage_error(content, service, tmp_path, capsys):
    spec = tmp_path / "spec.json"
    spec.write_text(content)
    assert main(["submit", str(spec)]) == 2
    assert str(spec) in capsys.readouterr().err
    assert not service.requests


def test_a_missing_file_is_a_usage_error(service, tmp_path, capsys):
    assert main(["datasets", "upload", str(tmp_path / "absent.zip")]) == 2
    assert "absent.zip: No such file" in capsys.readouterr().err


def test_predict_with_a_file_that_is_no_adapter_is_one_line(tmp_path, capsys):
    path = tmp_path / "adapter.zip"
    path.write_bytes(b"nothing")
    assert main(["predict", str(path), "image.png"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("mr: invalid_adapter: ")
    assert said.count("\n") == 1


def test_a_reader_that_goes_away_leaves_no_traceback(tmp_path):
    environment = {**os.environ, "MR_URL": "http://127.0.0.1:9", "MR_API_KEY": "x"}
    script = f"{' '.join(MR)} --help | true"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=environment, check=False)
    assert "Traceback" not in done.stderr
