"""Chooses what to answer with by the Accept header (RFC 9110, section 12.5.1)."""

from collections.abc import Sequence

from fastapi import Request

from api.errors import NotAcceptable


def best_media_type(request: Request, offered: Sequence[str]) -> str:
    """The offered type that the client likes most, the first of equals; NotAcceptable where it takes none."""
    accept = ",".join(request.headers.getlist("accept")) or "*/*"
    weights = [(_weight(accept, media_type), media_type) for media_type in offered]
    weight, media_type = max(weights, key=lambda pair: pair[0])
    if weight == 0:
        raise NotAcceptable(f"Accept is {accept!r}; this can be {', '.join(offered)}")
    return media_type


def _weight(accept: str, media_type: str) -> float:
    """The weight of the most specific range that matches, 0 where none does."""
    best = (-1, 0.0)
    main = media_type.partition("/")[0]
    for entry in accept.split(","):
        media_range, *parameters = [piece.strip().lower() for piece in entry.split(";")]
        ranges = {"*/*": 0, f"{main}/*": 1, media_type: 2}
        if media_range in ranges:
            best = max(best, (ranges[media_range], _quality(parameters)))
    return best[1]


def _quality(parameters: Sequence[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return min(max(float(value), 0.0), 1.0)
            except ValueError:
                return 0.0
    return 1.0
