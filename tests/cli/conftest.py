"""A service that answers as a test tells it to, over real HTTP."""

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

Answer = tuple[int, Any]


@dataclass
class Request:
    """What arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class FakeService:
    """`answers` maps "METHOD /path" to an answer, a list of them (the last one stays), or a function of the request."""

    url: str = ""
    answers: dict[str, Any] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)

    def answer(self, request: Request) -> Answer:
        self.requests.append(request)
        path = request.path.partition("?")[0]
        found = self.answers.get(f"{request.method} {path}", (404, {"code": "not_found", "detail": f"no {path}"}))
        if isinstance(found, list):
            found = found.pop(0) if len(found) > 1 else found[0]
        return found(request) if isinstance(found, Callable) else found

    def sent(self, method: str) -> list[Request]:
        return [request for request in self.requests if request.method == method]


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeService]:
    """The fake, named by MR_URL."""
    fake = FakeService()

    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, content = fake.answer(Request(self.command, self.path, dict(self.headers), body))
            if status == 0:  # the connection breaks
                self.connection.close()
                return
            payload = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        do_GET = do_POST = do_PUT = do_DELETE = handle_any

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        fake.url = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setenv("MR_URL", fake.url)
        monkeypatch.setenv("MR_API_KEY", "mr_test_key")
        yield fake
        server.shutdown()


def job(status: str = "succeeded", **changes: Any) -> dict[str, Any]:
    """A job as the API answers it."""
    return {
        "id": "job_1", "kind": "reprogram", "status": status, "phase": None, "progress": None, "spec": {},
        "error": None, "result": None, "created_at": "2026-01-01T00:00:00Z", **changes,
    }  # fmt: skip
