"""Bounds what a client may send: the size of a body, and how long it may pause while sending."""

import asyncio
from collections.abc import Callable

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import RequestTimeout, problem_response
from service.errors import PayloadTooLarge

_DRAINED_BYTES = 8 << 20  # read on after a refusal, so that a client still sending comes to read the answer
_DRAINED_S = 2.0


class BodyLimits:
    """Refuses a body over `limit_of(path)` bytes: by its Content-Length before reading, otherwise while counting."""

    def __init__(self, app: ASGIApp, *, limit_of: Callable[[str], int], pause_s: float = 30.0) -> None:
        self.app = app
        self.limit_of = limit_of
        self.pause_s = pause_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        limit = self.limit_of(scope["path"])
        headers = Headers(scope=scope)
        announced = headers.get("content-length", "")
        refusal: PayloadTooLarge | RequestTimeout | None = None
        if announced.isdigit() and int(announced) > limit:
            refusal = PayloadTooLarge(f"the body has {announced} bytes; at most {limit} are read here")
            await self._refuse(refusal, scope, receive, send, drain="expect" not in headers)
            return

        n_received, is_complete, has_answered = 0, False, False

        async def receive_counted() -> Message:
            nonlocal n_received, is_complete, refusal
            if is_complete:
                return await receive()  # waits for the disconnect: however long the answer takes
            try:
                async with asyncio.timeout(self.pause_s):
                    message = await receive()
            except TimeoutError:
                refusal = RequestTimeout(f"no byte of the body came for {self.pause_s:g} s")
                raise HTTPException(408) from refusal
            n_received += len(message.get("body", b""))
            is_complete = not message.get("more_body", False)
            if n_received > limit:
                refusal = PayloadTooLarge(f"the body has more than {limit} bytes, the most that are read here")
                raise HTTPException(413) from refusal
            return message

        async def send_unless_refused(message: Message) -> None:
            nonlocal has_answered
            if refusal is None or has_answered:
                has_answered = True
                await send(message)

        try:
            await self.app(scope, receive_counted, send_unless_refused)
        except HTTPException:  # where nothing below has made an answer of it
            if refusal is None:
                raise
        if refusal is not None and not has_answered:
            await self._refuse(refusal, scope, receive, send, drain=not is_complete)

    async def _refuse(
        self, error: PayloadTooLarge | RequestTimeout, scope: Scope, receive: Receive, send: Send, *, drain: bool
    ) -> None:
        error_answer = problem_response(error, request_id=scope["state"]["request_id"])
        error_answer.headers["Connection"] = "close"
        if drain and isinstance(error, PayloadTooLarge):
            await _drain(receive)
        await error_answer(scope, receive, send)


async def _drain(receive: Receive) -> None:
    n_bytes = 0
    try:
        async with asyncio.timeout(_DRAINED_S):
            while n_bytes < _DRAINED_BYTES:
                message = await receive()
                if message["type"] != "http.request" or not message.get("more_body", False):
                    return
                n_bytes += len(message.get("body", b""))
    except TimeoutError:
        return
