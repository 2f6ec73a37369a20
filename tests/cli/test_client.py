import time

import pytest

from cli.client import Client
from cli.errors import ApiError, Exit, UnreachableError


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda _: None)


@pytest.fixture
def client(service):
    with Client(service.url, "mr_key") as client:
        yield client


def test_a_job_is_sent_again_with_the_same_idempotency_key(service, client):
    service.answers["POST /v1/jobs"] = [(0, None), (503, {"code": "unavailable"}), (201, {"id": "job_1"})]
    assert client.submit({"kind": "reprogram"})["id"] == "job_1"
    keys = {request.headers["Idempotency-Key"] for request in service.requests}
    assert (len(service.requests), len(keys)) == (3, 1)


def test_a_refused_job_is_not_sent_again(service, client):
    service.answers["POST /v1/jobs"] = (422, {"code": "validation_failed"})
    with pytest.raises(ApiError) as refusal:
        client.submit({})
    assert (refusal.value.exit_code, len(service.requests)) == (Exit.USAGE, 1)


def test_a_service_that_stays_away_is_given_up(service, client):
    service.answers["POST /v1/jobs"] = (0, None)
    with pytest.raises(UnreachableError):
        client.submit({})


def test_cancelling_a_finished_job_returns_it(service, client):
    service.answers["POST /v1/jobs/job_1/cancel"] = (409, {"code": "job_finished"})
    service.answers["GET /v1/jobs/job_1"] = (200, {"id": "job_1", "status": "succeeded"})
    assert client.cancel("job_1")["status"] == "succeeded"


def test_every_page_of_a_list_is_read(service, client):
    pages = {"": (["b", "a"], True), "after=a": (["9"], False)}

    def page(request):
        ids, more = pages[request.path.partition("?")[2]]
        return 200, {"data": [{"id": item} for item in ids], "has_more": more, "last_id": ids[-1]}

    service.answers["GET /v1/things"] = page
    assert [item["id"] for item in client.pages("/v1/things")] == ["b", "a", "9"]


def test_a_download_is_whole_or_absent(service, client, tmp_path):
    service.answers["GET /good"] = (200, b"adapter")
    service.answers["GET /bad"] = (404, {"code": "not_found", "detail": "gone"})
    assert client.download("/good", tmp_path / "a.zip") == 7
    with pytest.raises(ApiError, match="gone"):
        client.download("/bad", tmp_path / "b.zip")
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


def test_an_answer_that_is_no_problem_document_is_still_an_error(service, client):
    service.answers["GET /x"] = (502, b"<html>bad gateway</html>")
    with pytest.raises(ApiError, match="http_502: <html>bad gateway") as error:
        client.get("/x")
    assert error.value.exit_code == Exit.UNREACHABLE


def test_a_dataset_is_waited_for(service, client):
    service.answers["GET /v1/datasets/ds_1"] = [(200, {"status": "validating"}), (200, {"status": "invalid"})]
    assert client.wait_for_dataset("ds_1")["status"] == "invalid"
