"""Lists in pages: newest first, continued after the last id seen."""

from collections.abc import Sequence
from typing import Any, TypeVar

from sqlalchemy import Select, func, select, tuple_
from sqlalchemy.orm import Session

from service.errors import NotFound

T = TypeVar("T")


def page(session: Session, query: Select[T], row: Any, *, after: str | None, limit: int) -> tuple[Sequence[T], bool]:
    """At most `limit` rows of the table `row` from the query, and whether there are more.

    The order is total (time, then id), so a page neither repeats nor skips a row while others are added.
    """
    query = query.order_by(row.created_at.desc(), row.id.desc()).limit(limit + 1)
    if after is not None:
        anchor = session.execute(query.with_only_columns(row.created_at, row.id).where(row.id == after)).one_or_none()
        if anchor is None:
            raise NotFound(f"there is no {after} in this list", param="after")
        query = query.where(tuple_(row.created_at, row.id) < tuple_(anchor.created_at, anchor.id))
    rows = session.scalars(query).all()
    return rows[:limit], len(rows) > limit


def count(session: Session, query: Select[Any]) -> int:
    """How many rows a query has."""
    return session.scalars(select(func.count()).select_from(query.subquery())).one()
