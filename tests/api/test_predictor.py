"""The gateway goes on while one of its predictors is dead, and answers clearly when all are."""

import threading
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from service.settings import Settings

ANSWER = b'{"backbone_sha256": "2", "predictions": [{"input": "0.png", "label": "cat", "probability": 1, "top": []}]}'


class StandIn:
    """Answers /health, and each question as it is told to: `answers`, or breaks off in the middle of it."""

    def __init__(self, stack):
        self.breaks, self.asked = False, 0

        class Handler(BaseHTTPRequestHandler):
            def do_GET(_self):
                _self._send(b"{}")

            def do_POST(_self):
                _self.rfile.read(int(_self.headers["Content-Length"]))
                self.asked += 1
                if self.breaks:
                    _self.close_connection = True
                    return
                _self._send(ANSWER)

            def _send(_self, content):
                _self.send_response(200)
                _self.send_header("Content-Length", str(len(content)))
                _self.end_headers()
                _self.wfile.write(content)

            def log_message(_self, *_):
                pass

        self._server = stack.enter_context(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        stack.callback(self._server.shutdown)
        self.url = f"http://127.0.0.1:{self._server.server_port}"


@pytest.fixture
def two(gateway, monkeypatch):
    """Two predictors behind the gateway."""
    with ExitStack() as stack:
        found = [StandIn(stack), StandIn(stack)]
        parts = gateway.app.state.parts
        urls = [predictor.url for predictor in found]
        settings: Settings = parts.settings.model_copy(update={"predictor_urls": urls})
        monkeypatch.setitem(parts.__dict__, "settings", settings)
        yield found


@pytest.fixture
def ask(client, stand_in):
    adapter = stand_in.finish(stand_in.claim(stand_in.job()), adapter=b"an adapter")

    def run():
        return client.post(f"/v1/adapters/{adapter}/predict", files=[("images", ("0.png", b"a"))])

    return run


def asked(two):
    return sum(predictor.asked for predictor in two)


def test_both_are_asked(two, ask):
    for _ in range(20):
        assert ask().status_code == 200
    assert asked(two) == 20
    assert all(predictor.asked for predictor in two)


def test_one_that_breaks_off_is_replaced_by_the_other(two, ask):
    two[0].breaks = True
    for _ in range(10):
        assert ask().status_code == 200
    assert two[1].asked == 10


def test_where_both_break_off_each_is_asked_once(two, ask):
    two[0].breaks = two[1].breaks = True
    answer = ask()
    assert (answer.status_code, answer.json()["code"]) == (503, "predictor_unavailable")
    assert int(answer.headers["Retry-After"]) > 0
    assert [predictor.asked for predictor in two] == [1, 1]


def test_a_single_one_that_breaks_off_is_not_asked_again(gateway, two, ask, monkeypatch):
    settings = gateway.app.state.parts.settings.model_copy(update={"predictor_urls": [two[0].url]})
    monkeypatch.setitem(gateway.app.state.parts.__dict__, "settings", settings)
    two[0].breaks = True
    answer = ask()
    assert (answer.status_code, answer.json()["code"]) == (503, "predictor_unavailable")
    assert "RemoteProtocolError" in answer.json()["detail"]
    assert asked(two) == 1
