"""Which workers are alive."""

from typing import Final

from sqlalchemy import exists, func, select
from sqlalchemy.orm import Session

from service.models import WorkerHeartbeat

ALIVE_S: Final = 60
"""A worker not heard for longer counts as gone."""


def is_served(session: Session, queue: str) -> bool:
    """Whether a worker that serves this queue was heard within the last minute."""
    silent_since = func.now() - WorkerHeartbeat.heartbeat_at
    heard = silent_since < func.make_interval(0, 0, 0, 0, 0, 0, ALIVE_S)
    return bool(session.scalar(select(exists().where(WorkerHeartbeat.queue == queue, heard))))
