"""Serves immutable bytes: strong ETags, conditional requests and ranges (RFC 9110, sections 13 and 14)."""

import re
from collections.abc import Callable, Iterator

from fastapi import Request
from fastapi.responses import Response, StreamingResponse

from api.errors import RangeNotSatisfiable

Read = Callable[[int, int], bytes]
"""The bytes from `start` up to `stop`."""

_CHUNK_BYTES = 1 << 20
_RANGE = re.compile(r"bytes\s*=\s*(?=[\d-]*\d)(\d{0,18})\s*-\s*(\d{0,18})\s*")


def content_response(
    request: Request, *, sha256: str, size_bytes: int, media_type: str, read: Read, filename: str | None = None
) -> Response:
    """The content, a part of it (206), or 304 where the client has it; RangeNotSatisfiable past its end.

    The ETag is the SHA-256, so it holds for ever. A Range of several parts or of another unit is ignored, as the
    RFC allows.
    """
    headers = {"ETag": f'"{sha256}"', "Accept-Ranges": "bytes", "Cache-Control": "private, max-age=31536000, immutable"}
    if filename is not None:
        headers["Content-Disposition"] = f'attachment; filename="{filename}"'
    if _has(request, sha256):
        return Response(status_code=304, headers=headers)
    start, stop, status = 0, size_bytes, 200
    asked = _RANGE.fullmatch(request.headers.get("range", ""))
    if asked is not None and request.headers.get("if-range", headers["ETag"]) == headers["ETag"]:
        start, stop = _span(asked[1], asked[2], size_bytes)
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size_bytes}"
        status = 206
    headers["Content-Length"] = str(stop - start)
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers, media_type=media_type)
    return StreamingResponse(_chunks(read, start, stop), status, headers, media_type)


def _has(request: Request, sha256: str) -> bool:
    held = request.headers.get("if-none-match")
    if held is None:
        return False
    tags = {tag.strip().removeprefix("W/") for tag in held.split(",")}
    return "*" in tags or f'"{sha256}"' in tags


def _span(first: str, last: str, size: int) -> tuple[int, int]:
    if first:
        start, stop = int(first), min(int(last) + 1, size) if last else size
        is_backwards = bool(last) and int(last) < int(first)
    else:
        start, stop, is_backwards = max(0, size - int(last or 0)), size, False
    if start >= stop or is_backwards:
        raise RangeNotSatisfiable(
            f"the range asked for is not within {size} bytes",
            param="Range",
            headers={"Content-Range": f"bytes */{size}"},
        )
    return start, stop


def _chunks(read: Read, start: int, stop: int) -> Iterator[bytes]:
    for position in range(start, stop, _CHUNK_BYTES):
        yield read(position, min(position + _CHUNK_BYTES, stop))
