"""What happened to a job: as a list, or as a stream that goes on where the client left off."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Annotated

from anyio.to_thread import run_sync
from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import StreamingResponse

from api.dependencies import Parts, PartsOf, Reader, SessionOf
from api.negotiation import best_media_type
from api.responses import EventAnswer, ListOf
from service import events, jobs
from service.errors import NotFound
from service.models import TERMINAL_STATUSES, Event

router = APIRouter(prefix="/v1/jobs", tags=["events"])

EVENT_STREAM = "text/event-stream"
_BATCH = 500
_KEEP_ALIVE_S = 15.0  # a comment in a quiet stream, below the idle limits of common proxies


@router.get(
    "/{job_id}/events",
    response_model=ListOf[EventAnswer],
    responses={
        200: {"content": {EVENT_STREAM: {}}},
        204: {"description": "As a stream: the job has ended and the client has every event."},
    },
)
def list_events(
    request: Request,
    job_id: str,
    session: SessionOf,
    parts: PartsOf,
    caller: Reader,
    after: Annotated[int, Query(ge=0, le=2**63 - 1, description="Events with a larger `seq`.")] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 200,
    last_event_id: Annotated[int | None, Header(ge=0, le=2**63 - 1)] = None,
) -> ListOf[EventAnswer] | Response:
    """A list, or by `Accept: text/event-stream` a stream that ends with the job.

    A stream begins behind Last-Event-ID (or `after`). A client that has everything of an ended job gets 204,
    which tells an EventSource to stop reconnecting.
    """
    job = jobs.get_job(session, caller.tenant, job_id)
    if best_media_type(request, ("application/json", EVENT_STREAM)) == EVENT_STREAM:
        begin = last_event_id if last_event_id is not None else after
        if job.status in TERMINAL_STATUSES and job.event_seq <= begin:
            return Response(status_code=204)
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(_stream(parts, caller.tenant, job.id, begin), headers=headers, media_type=EVENT_STREAM)
    rows = events.list_events(session, job.id, after=after, limit=limit + 1)
    data = [EventAnswer.of(row) for row in rows[:limit]]
    return ListOf(
        data=data,
        has_more=len(rows) > limit,
        first_id=str(data[0].seq) if data else None,
        last_id=str(data[-1].seq) if data else None,
    )


async def _stream(parts: Parts, tenant: str, job_id: str, after: int) -> AsyncIterator[bytes]:
    loop, rung = asyncio.get_running_loop(), asyncio.Event()
    with parts.listener.subscribed(job_id, lambda: loop.call_soon_threadsafe(rung.set)):
        yield b"retry: 1000\n\n"
        while True:
            rung.clear()  # before the look: what comes after it rings again
            try:
                batch, has_ended = await run_sync(_next_batch, parts, tenant, job_id, after)
            except NotFound:  # deleted meanwhile
                return
            for event in batch:
                yield _frame(event)
                after = event.seq
            if len(batch) == _BATCH:
                continue
            if has_ended:
                return
            try:
                async with asyncio.timeout(_KEEP_ALIVE_S):
                    await rung.wait()
            except TimeoutError:
                yield b": waiting\n\n"


def _next_batch(parts: Parts, tenant: str, job_id: str, after: int) -> tuple[Sequence[Event], bool]:
    """Events after a number, and whether there will be no others. The status first: its event is written with it."""
    with parts.database.session() as session:
        has_ended = jobs.get_job(session, tenant, job_id).status in TERMINAL_STATUSES
        return events.list_events(session, job_id, after=after, limit=_BATCH), has_ended


def _frame(event: Event) -> bytes:
    data = EventAnswer.of(event).model_dump_json()
    return f"id: {event.seq}\nevent: {event.type}\ndata: {data}\n\n".encode()
