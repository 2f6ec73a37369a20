import json
import time

import pytest

from cli.main import main
from tests.cli.conftest import job

RESULT = {
    "adapter": "ad_1",
    "metrics": {"validation": {"accuracy": 0.9}, "test": {"accuracy": 0.88}},
    "baselines": {"majority": {"validation": 0.1, "test": 0.1}, "zero_shot": None},
    "verdict": {"use": "adapter", "reason": "it is best"},
    "timing": {"seconds": 3.5},
}
RUNNING = job("running", phase="training", progress={"step": 3, "total": 10, "percent": 30})


@pytest.fixture
def spec(tmp_path):
    path = tmp_path / "spec.json"
    path.write_text(json.dumps({"kind": "reprogram", "dataset": "ds_1"}))
    return str(path)


@pytest.fixture(autouse=True)
def answers(service):
    service.answers["POST /v1/jobs"] = (201, job("queued"))
    service.answers["GET /v1/jobs/job_1/events"] = (200, {"data": []})
    return service.answers


@pytest.fixture
def interrupts(monkeypatch):
    """Ctrl-C at these sleeps of the watching loop."""
    at, count = set(), iter(range(1000))

    def sleep(_):
        if next(count) in at:
            raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", sleep)
    return at


def test_watching_a_job_to_its_success(answers, interrupts, spec, capsys):
    event = {"seq": 1, "type": "metrics", "level": "info", "data": {"epoch": 1, "train_loss": 0.51234}}
    answers["GET /v1/jobs/job_1/events"] = [(200, {"data": [event]}), (200, {"data": []})]
    answers["GET /v1/jobs/job_1"] = [(200, job("queued")), (200, RUNNING), (200, job(result=RESULT))]
    assert main(["submit", spec, "--watch"]) == 0
    said = capsys.readouterr()
    assert ["adapter", "90.0", "%", "88.0", "%"] in [line.split() for line in said.out.splitlines()]
    assert "verdict: use adapter: it is best" in said.out
    assert "epoch 1  train_loss 0.5123" in said.err


def test_json_keeps_stdout_pure(answers, interrupts, spec, capsys):
    answers["GET /v1/jobs/job_1"] = [(200, RUNNING), (200, job(result=RESULT))]
    assert main(["submit", spec, "--watch", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["result"] == RESULT


def test_a_failed_job_ends_with_1_and_says_why(answers, interrupts, spec, capsys):
    error = {"code": "diverged", "detail": "the loss became nan at step 3", "param": "trainer.learning_rate"}
    answers["GET /v1/jobs/job_1"] = (200, job("failed", error=error))
    assert main(["submit", spec, "--watch"]) == 1
    assert "diverged: the loss became nan at step 3 (trainer.learning_rate)" in capsys.readouterr().out


def test_ctrl_c_cancels_the_job_and_waits_for_its_end(service, answers, interrupts, spec, capsys):
    interrupts.add(0)
    answers["GET /v1/jobs/job_1"] = [(200, RUNNING), (200, job("cancelling")), (200, job("cancelled"))]
    answers["POST /v1/jobs/job_1/cancel"] = (200, job("cancelling"))
    assert main(["submit", spec, "--watch"]) == 1
    assert [request.path for request in service.sent("POST")] == ["/v1/jobs", "/v1/jobs/job_1/cancel"]
    assert "Traceback" not in capsys.readouterr().err


def test_a_second_ctrl_c_leaves_at_once(service, answers, interrupts, spec, capsys):
    interrupts.update({0, 1})
    answers["GET /v1/jobs/job_1"] = (200, RUNNING)
    answers["POST /v1/jobs/job_1/cancel"] = (200, job("cancelling"))
    assert main(["submit", spec, "--watch"]) == 1
    assert len(service.sent("POST")) == 2
    assert capsys.readouterr().err.endswith("mr: interrupted\n")


def test_a_job_that_won_against_the_cancel_is_a_success(answers, interrupts, spec):
    interrupts.add(0)
    answers["POST /v1/jobs/job_1/cancel"] = (409, {"code": "job_finished"})
    answers["GET /v1/jobs/job_1"] = [(200, RUNNING), (200, job(result=RESULT))]
    assert main(["submit", spec, "--watch"]) == 0


def test_a_gateway_that_restarts_is_waited_for(answers, interrupts, spec):
    answers["GET /v1/jobs/job_1"] = [(200, RUNNING), (0, None), (503, {}), (200, job(result=RESULT))]
    assert main(["submit", spec, "--watch"]) == 0
