"""What a client may send, and how slowly."""

import asyncio
import json

import pytest
from starlette.requests import Request
from starlette.responses import Response

from api.body_limits import BodyLimits


async def _length(scope, receive, send):
    content = await Request(scope, receive).body()
    await Response(str(len(content)))(scope, receive, send)


def _ask(messages, *, headers=(), limit=10, pause_s=0.05):
    """Status and body of an answer to messages; None among them is a pause without end."""
    waiting, sent = list(messages), []

    async def receive():
        message = waiting.pop(0) if waiting else None
        if message is None:
            await asyncio.sleep(3600)
        content, more = message
        return {"type": "http.request", "body": content, "more_body": more}

    async def send(message):
        sent.append(message)

    app = BodyLimits(_length, limit_of=lambda _: limit, pause_s=pause_s)
    scope = {"type": "http", "path": "/", "headers": list(headers), "state": {"request_id": "r"}}
    asyncio.run(asyncio.wait_for(app(scope, receive, send), 5))
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent)


def test_a_body_within_the_limit_passes():
    assert _ask([(b"12345", True), (b"67890", False)]) == (200, b"10")


@pytest.mark.parametrize("announced", [b"11", b"99999999999999999999"])
def test_a_length_over_the_limit_is_refused_without_reading(announced):
    status, body = _ask([(b"", False)], headers=[(b"content-length", announced)])
    assert (status, json.loads(body)["code"]) == (413, "payload_too_large")


def test_a_body_over_the_limit_is_refused_while_it_comes():
    status, body = _ask([(b"123456", True), (b"123456", True), (b"", False)])
    assert (status, json.loads(body)["code"]) == (413, "payload_too_large")


def test_a_client_that_waits_for_100_is_refused_at_once():
    headers = [(b"content-length", b"11"), (b"expect", b"100-continue")]
    assert _ask([None], headers=headers)[0] == 413


def test_a_body_that_stops_coming_is_refused():
    status, body = _ask([(b"123", True), None])
    assert (status, json.loads(body)["code"]) == (408, "request_timeout")
