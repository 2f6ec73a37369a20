"""Reads multipart bodies as they come: a file goes on to its sink, and memory does not grow with it."""

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field
from typing import Protocol

from anyio.to_thread import run_sync
from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect

from api.dependencies import is_storable
from api.errors import InvalidRequest, MalformedBody, UnsupportedMediaType
from service.errors import PayloadTooLarge

_BATCH_BYTES = 1 << 18  # handed to a thread at once: hashing and writing stay off the event loop
_MAX_TEXT_BYTES = 1 << 20
_MAX_PARTS = 1024


class Sink(Protocol):
    """Where the bytes of one file go."""

    def write(self, content: bytes, /) -> object: ...


FileOpener = Callable[[str], Sink]
"""From the file's name, as the client gave it, to where its bytes go."""


@dataclass
class Form:
    """The text fields, and the names of the files that came under each file field."""

    texts: dict[str, str] = field(default_factory=dict)
    files: dict[str, list[str]] = field(default_factory=dict)


async def read_form(
    request: Request,
    *,
    files: Mapping[str, FileOpener],
    texts: Set[str] = frozenset(),
    repeatable: Set[str] = frozenset(),
) -> Form:
    """Read the whole body; each file has gone to its sink.

    InvalidRequest names a field that is unknown, that comes twice though not `repeatable`, or that is a file
    where text is expected or the other way round. MalformedBody where the body is not multipart.
    """
    reader = _FormReader(files=files, texts=texts, repeatable=repeatable)
    events = _Events()
    parser = MultipartParser(_boundary(request), events.callbacks)  # type: ignore[arg-type]
    try:
        async for chunk in request.stream():
            parser.write(chunk)
            await reader.take(events.drain())
    except FormParserError as error:
        raise MalformedBody(f"the body is not multipart/form-data: {error}") from error
    except ClientDisconnect as error:
        raise MalformedBody("the client went away before the body was complete") from error
    if not events.have_ended:
        raise MalformedBody("the multipart body ends before its closing boundary")
    return reader.form


@dataclass(frozen=True)
class _Begin:
    name: str
    filename: str | None


class _End:
    pass


_Event = _Begin | bytes | _End


class _Events:
    """The parser's callbacks as a queue: a chunk may begin and end many parts, and the callbacks cannot await."""

    def __init__(self) -> None:
        self.have_ended = False
        self._queue: list[_Event] = []
        self._header, self._value = bytearray(), bytearray()
        self._disposition: str | None = None
        self.callbacks = {
            "on_part_begin": self._forget_headers,
            "on_header_field": lambda data, start, end: self._header.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
            "on_header_end": self._end_header,
            "on_headers_finished": self._begin,
            "on_part_data": lambda data, start, end: self._queue.append(bytes(data[start:end])),
            "on_part_end": lambda: self._queue.append(_End()),
            "on_end": self._end,
        }

    def drain(self) -> list[_Event]:
        """What has happened since the last call."""
        queue, self._queue = self._queue, []
        return queue

    def _forget_headers(self) -> None:
        self._disposition = None

    def _end_header(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value.decode("latin-1")
        self._header.clear()
        self._value.clear()

    def _begin(self) -> None:
        kind, options = parse_options_header(self._disposition)
        if kind != b"form-data" or b"name" not in options:
            raise MalformedBody("a part of the form has no name (Content-Disposition: form-data; name=...)")
        filename = options.get(b"filename")
        self._queue.append(_Begin(_decoded(options[b"name"]), None if filename is None else _decoded(filename)))

    def _end(self) -> None:
        self.have_ended = True


class _FormReader:
    """Takes the events in order: gathers text, passes files on."""

    def __init__(self, *, files: Mapping[str, FileOpener], texts: Set[str], repeatable: Set[str]) -> None:
        self.form = Form()
        self._openers, self._texts, self._repeatable = files, texts, repeatable
        self._n_parts = 0
        self._name = ""
        self._sink: Sink | None = None
        self._gathered = bytearray()

    async def take(self, events: list[_Event]) -> None:
        for event in events:
            match event:
                case _Begin():
                    self._begin(event)
                case _End():
                    await self._end()
                case _:
                    await self._data(event)

    def _begin(self, part: _Begin) -> None:
        self._n_parts += 1
        if self._n_parts > _MAX_PARTS:
            raise PayloadTooLarge(f"the form has more than {_MAX_PARTS} parts")
        name = self._name = part.name
        if name not in self._texts and name not in self._openers:
            allowed = ", ".join(sorted({*self._texts, *self._openers}))
            raise InvalidRequest(f"unknown form field {name!r}; allowed: {allowed}", param=name)
        if name in {*self.form.texts, *self.form.files} and name not in self._repeatable:
            raise InvalidRequest(f"the form field {name} comes twice", param=name)
        if name in self._openers:
            if part.filename is None:
                raise InvalidRequest(f"the form field {name} has to be a file; found text", param=name)
            self._sink = self._openers[name](part.filename)
            self.form.files.setdefault(name, []).append(part.filename)
        else:
            self._sink = None
            self.form.texts[name] = ""

    async def _data(self, content: bytes) -> None:
        self._gathered += content
        if self._sink is not None and len(self._gathered) >= _BATCH_BYTES:
            await self._pass_on(self._sink)
        elif self._sink is None and len(self._gathered) > _MAX_TEXT_BYTES:
            raise PayloadTooLarge(
                f"the form field {self._name} has more than {_MAX_TEXT_BYTES} bytes", param=self._name
            )

    async def _end(self) -> None:
        if self._sink is not None:
            await self._pass_on(self._sink)
            return
        try:
            text = self._gathered.decode()
        except UnicodeDecodeError as error:
            raise InvalidRequest(f"the form field {self._name} is not UTF-8", param=self._name) from error
        if not is_storable(text):
            raise InvalidRequest(f"the form field {self._name} holds a NUL character", param=self._name)
        self.form.texts[self._name] = text
        self._gathered.clear()

    async def _pass_on(self, sink: Sink) -> None:
        content = bytes(self._gathered)
        self._gathered.clear()
        if content:
            await run_sync(sink.write, content)


def _boundary(request: Request) -> bytes:
    kind, options = parse_options_header(request.headers.get("content-type"))
    if kind != b"multipart/form-data":
        raise UnsupportedMediaType(f"expected multipart/form-data, found {kind.decode('latin-1') or 'no Content-Type'}")
    if not options.get(b"boundary"):
        raise MalformedBody("Content-Type has no boundary")
    return options[b"boundary"]


def _decoded(raw: bytes) -> str:
    return raw.decode("utf-8", "replace").replace("\x00", "\N{REPLACEMENT CHARACTER}")
