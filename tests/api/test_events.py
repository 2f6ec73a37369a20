"""Events as a list and as a stream."""

import json
import threading
import time

import httpx
import pytest

STREAM = {"Accept": "text/event-stream"}


def _frames(answer):
    """The stream's frames as (id, type, data)."""
    frame = {}
    for line in answer.iter_lines():
        name, _, value = line.partition(": ")
        if line == "" and "data" in frame:
            yield int(frame["id"]), frame["event"], json.loads(frame["data"])
            frame = {}
        elif line and name:
            frame[name] = value


@pytest.fixture
def job(stand_in):
    """A running job with 30 rows of metrics."""
    job_id = stand_in.job()
    claim = stand_in.claim(job_id)
    for epoch in range(30):
        stand_in.tell(claim, ("metrics", {"epoch": epoch, "loss": 1 / (1 + epoch)}, "info"))
    return job_id, claim


def test_list_is_ordered_and_gap_free(client, job):
    job_id, _ = job
    page = client.get(f"/v1/jobs/{job_id}/events?limit=20").json()
    rest = client.get(f"/v1/jobs/{job_id}/events", params={"after": page["last_id"]}).json()
    events = page["data"] + rest["data"]
    assert [event["seq"] for event in events] == list(range(1, 33))
    assert (page["has_more"], rest["has_more"]) == (True, False)
    assert [event["type"] for event in events[:3]] == ["status", "status", "metrics"]
    assert events[0].keys() == {"seq", "at", "type", "level", "data"}


def test_stream_resumes_without_a_gap_and_ends_with_the_job(client, stand_in, job):
    job_id, claim = job
    seen = []
    with client.stream("GET", f"/v1/jobs/{job_id}/events", headers=STREAM) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        for seq, _, _ in _frames(answer):
            seen.append(seq)
            if len(seen) == 12:
                break  # the connection is lost here

    def go_on():
        for epoch in range(30, 40):
            stand_in.tell(claim, ("metrics", {"epoch": epoch}, "info"))
        stand_in.finish(claim)

    worker = threading.Thread(target=go_on)
    worker.start()
    with client.stream("GET", f"/v1/jobs/{job_id}/events", headers=STREAM | {"Last-Event-ID": str(seen[-1])}) as answer:
        frames = list(_frames(answer))
    worker.join()
    seen += [seq for seq, _, _ in frames]
    assert seen == list(range(1, len(seen) + 1))
    assert frames[-1][1:] == ("status", frames[-1][2])
    assert frames[-1][2]["data"]["status"] == "succeeded"

    done = client.get(f"/v1/jobs/{job_id}/events", headers=STREAM | {"Last-Event-ID": str(seen[-1])})
    assert done.status_code == 204, "an EventSource stops reconnecting"


def test_stream_tells_at_once(client, stand_in, job):
    job_id, claim = job
    with client.stream("GET", f"/v1/jobs/{job_id}/events?after=32", headers=STREAM) as answer:
        frames = _frames(answer)
        time.sleep(0.3)  # the stream waits by now
        told_at = time.monotonic()
        stand_in.tell(claim, ("message", {"text": "hello"}, "info"))
        assert next(frames)[2]["data"]["text"] == "hello"
        assert time.monotonic() - told_at < 2


def test_stream_ends_when_the_job_is_deleted(client, stand_in, gateway, tenant):
    job_id = stand_in.job()
    with client.stream("GET", f"/v1/jobs/{job_id}/events", headers=STREAM) as answer:
        frames = _frames(answer)
        assert next(frames)[0] == 1
        client.post(f"/v1/jobs/{job_id}/cancel")
        assert [frame[2]["data"]["status"] for frame in frames] == ["cancelled"]


def test_many_streams_take_no_thread_each(gateway, client, stand_in, job):
    job_id, claim = job
    streams = [client.stream("GET", f"/v1/jobs/{job_id}/events?after=32", headers=STREAM) for _ in range(45)]
    with httpx.Client(base_url=gateway.url, headers=client.headers, trust_env=False) as other:
        try:
            for stream in streams:
                stream.__enter__()
            assert other.get(f"/v1/jobs/{job_id}").status_code == 200, "40 threads serve the gateway"
            stand_in.finish(claim)
        finally:
            for stream in streams:
                stream.__exit__(None, None, None)


@pytest.mark.parametrize("headers", [{"Last-Event-ID": "x"}, {"Last-Event-ID": "-1"}])
def test_bad_last_event_id(client, job, headers):
    answer = client.get(f"/v1/jobs/{job[0]}/events", headers=STREAM | headers)
    assert (answer.status_code, answer.json()["code"]) == (422, "validation_error")


def test_not_acceptable(client, job):
    answer = client.get(f"/v1/jobs/{job[0]}/events", headers={"Accept": "image/png"})
    assert (answer.status_code, answer.json()["code"]) == (406, "not_acceptable")
