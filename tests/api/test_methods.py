"""The menu is the registries."""

from api.methods import FAMILIES
from tests.api.test_remote_backbones import register


def test_every_method_is_listed_with_schema_paper_and_defaults(client):
    menu = client.get("/v1/methods").json()
    assert menu.keys() == FAMILIES.keys()
    for family, specs in FAMILIES.items():
        assert [method["kind"] for method in menu[family]] == list(specs)
        for method in menu[family]:
            assert method["summary"]
            assert method["json_schema"]["properties"].keys() >= method["defaults"].keys()
            assert method["defaults"]["kind"] == method["kind"]


def test_papers_and_defaults(client):
    menu = client.get("/v1/methods").json()
    padding = next(method for method in menu["input_transforms"] if method["kind"] == "padding")
    assert padding["arxiv"] == ["2211.11635"]
    gradient = next(method for method in menu["trainers"] if method["kind"] == "gradient")
    assert gradient["defaults"]["learning_rate"] == 0.01


def test_scores_say_what_they_read_and_which_way_is_better(client):
    scores = {score["kind"]: score for score in client.get("/v1/methods").json()["scores"]}
    leep = scores["leep"]
    assert (leep["reads"], leep["direction"]) == (["source_logits", "labels"], "higher")
    assert leep["arxiv"] == ["2002.12462"]
    assert leep["defaults"]["temperature"] == 1
    assert scores["sliced_wasserstein"]["direction"] == "lower"
    assert scores["effective_rank"]["direction"] == "context"
    assert scores["kare"]["json_schema"]["properties"]["ridge"]["exclusiveMinimum"] == 0


def test_defaults_make_a_job(client, stand_in):
    menu = client.get("/v1/methods").json()
    adapter = stand_in.finish(stand_in.claim(stand_in.job()), adapter=b"adapter")
    remote = register(client).json()["id"]
    for method in menu["job_kinds"]:
        spec = method["defaults"] | {"dataset": stand_in.dataset()}
        if "adapter" in method["json_schema"]["required"]:
            spec["adapter"] = adapter
        if "backbone" in method["json_schema"]["required"]:
            spec["backbone"] = remote
        answer = client.post("/v1/jobs?dry_run=true", json=spec)
        assert answer.status_code == 200, answer.text
