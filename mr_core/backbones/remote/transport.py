"""How a request leaves this process, and how a server says when to come again."""

import http.client
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Protocol, runtime_checkable
from urllib.parse import urlsplit

MAX_ANSWER_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Reply:
    """What a server answered; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class NotSent(Exception):
    """The request did not reach the server: there is no connection."""


class NoReply(Exception):
    """The request may have been served, but no whole answer came, or not in time."""


@runtime_checkable
class Transport(Protocol):
    """Posts a body. NotSent or NoReply where nothing comes back; any status is an answer."""

    def __call__(self, url: str, *, headers: Mapping[str, str], content: bytes, timeout_s: float) -> Reply: ...


def direct(url: str, *, headers: Mapping[str, str], content: bytes, timeout_s: float) -> Reply:
    """A request from this process to wherever the URL leads: for programs that know their URLs.

    No redirect is followed, no proxy is used. `timeout_s` bounds each step, not their sum.
    """
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=timeout_s)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        connection.connect()
    except OSError as error:
        raise NotSent(f"no connection: {error}") from error
    try:
        connection.request("POST", target, body=content, headers=dict(headers))
        response = connection.getresponse()
        body = response.read(MAX_ANSWER_BYTES + 1)
    except TimeoutError as error:
        raise NoReply(f"no answer within {timeout_s:g} s") from error
    except (OSError, http.client.HTTPException) as error:
        raise NoReply(f"the connection broke: {type(error).__name__}") from error
    finally:
        connection.close()
    if len(body) > MAX_ANSWER_BYTES:
        raise NoReply(f"the answer has more than {MAX_ANSWER_BYTES} bytes")
    return Reply(response.status, {name.lower(): value for name, value in response.getheaders()}, body)


@dataclass(frozen=True)
class RemoteAccess:
    """What may go out for a remote backbone, and by whom. The headers hold its secret, and are never shown."""

    send: Transport = direct
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    sleep: Callable[[float], None] = time.sleep


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds that a server asks to wait, given as seconds or as a date; None where it does not say."""
    told = headers.get("retry-after", "").strip()
    if told.isascii() and told.isdigit():
        return float(min(int(told[:9]), 10**6))
    try:
        at = parsedate_to_datetime(told)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return max(0.0, ((at if at.tzinfo else at.replace(tzinfo=UTC)) - datetime.now(UTC)).total_seconds())
