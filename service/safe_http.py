"""Requests to servers that a tenant names, without lending the tenant this network's position.

The name is resolved once, each of its addresses is checked, and the connection goes to a checked address while Host,
SNI and certificate stay those of the name: a name that resolves anew (rebinding) changes nothing. No redirect is
followed, no proxy of the environment is used, and the time and the bytes of an answer are bounded. Ports are 443 (80
for http) and those from 1024 up; the well-known services below are nobody's receiver.
"""

import socket
import ssl
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any, Final

import httpcore
import httpx

from service.errors import RemoteUnavailable, UrlNotAllowed

Resolve = Callable[[str, int], Sequence[str]]
"""Takes a host and a port and gives its addresses; OSError where there are none."""

_Address = IPv4Address | IPv6Address
_LONGEST_URL: Final = 2048
_SLICE: Final = 16_384
_DEFAULT_PORTS: Final = {"https": 443, "http": 80}
_GLOBAL_IPV6: Final = ip_network("2000::/3")
_NAT64: Final = ip_network("64:ff9b::/96")  # the IPv4 address is its last four bytes
# Global for ipaddress, in some versions of Python or all, and nobody's receiver: protocol assignments, 6to4 (which
# wraps any IPv4 address), documentation, and the metadata server to which Azure gave a public address.
_NEVER: Final = tuple(
    map(ip_network, ("192.0.0.0/24", "192.88.99.0/24", "168.63.129.16/32", "2002::/16", "2001::/23", "3fff::/20"))
)


@dataclass(frozen=True)
class Destination:
    """A URL that may be called, and the addresses that were checked."""

    url: httpx.URL
    port: int
    addresses: tuple[str, ...]


@dataclass(frozen=True)
class Answer:
    """What a server answered; header names are in lower case, a body longer than the limit is cut off."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    is_cut: bool


def resolve_by_system(host: str, port: int) -> Sequence[str]:
    """The addresses of a name, as every program on this machine finds them."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:  # a label of more than 63 characters
        raise OSError(str(error)) from error
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def check(url: str, *, allow_loopback: bool = False, resolve: Resolve = resolve_by_system) -> Destination:
    """Where the URL leads, or UrlNotAllowed. With `allow_loopback` this machine too, there also by http.

    What is told of a private address is only that it is one: a tenant learns nothing of this network's names.
    """
    parsed = _parse(url)
    if parsed.scheme != "https" and not (allow_loopback and parsed.scheme == "http"):
        raise UrlNotAllowed(f"the scheme is {parsed.scheme or 'missing'!r}, expected https", param="url")
    if parsed.userinfo:
        raise UrlNotAllowed("the URL holds a user name or password; expected none", param="url")
    port = _DEFAULT_PORTS[parsed.scheme] if parsed.port is None else parsed.port
    usual = _DEFAULT_PORTS[parsed.scheme]
    if port != usual and not 1024 <= port <= 65535:
        raise UrlNotAllowed(f"the port is {port}, expected {usual} or one from 1024 to 65535", param="url")
    host = parsed.raw_host.decode("ascii")
    try:
        addresses = [ip_address(address) for address in _addresses(host, port, resolve)]
    except OSError as error:
        raise UrlNotAllowed(f"the host {host} does not resolve", param="url") from error
    if not addresses:
        raise UrlNotAllowed(f"the host {host} has no address", param="url")
    for address in addresses:
        if not (is_public(address) or (allow_loopback and address.is_loopback)):
            raise UrlNotAllowed(f"the host {host} leads to an address that is not public", param="url")
        if parsed.scheme == "http" and not address.is_loopback:
            raise UrlNotAllowed("the scheme is 'http', expected https: http is for this machine alone", param="url")
    return Destination(parsed, port, tuple(map(str, addresses)))


def is_public(address: _Address) -> bool:
    """Whether the address is a unicast one of the internet, written in its own family."""
    if isinstance(address, IPv6Address):
        if address in _NAT64:
            return is_public(IPv4Address(address.packed[-4:]))
        if address not in _GLOBAL_IPV6:  # loopback, mapped and compatible IPv4, link-local, unique local, multicast
            return False
    is_special = address.is_multicast or address.is_reserved or any(address in network for network in _NEVER)
    return address.is_global and not is_special


def request(
    method: str,
    url: str,
    *,
    headers: Mapping[str, str],
    content: bytes = b"",
    timeout_s: float,
    max_answer_bytes: int,
    allow_loopback: bool = False,
    resolve: Resolve = resolve_by_system,
    tls: ssl.SSLContext | None = None,
) -> Answer:
    """One request, connection and answer within `timeout_s`; whatever the status.

    UrlNotAllowed where the URL leads elsewhere than it may, RemoteUnavailable where no answer comes. A slow name server
    counts: nothing is sent once the time is over.
    """
    deadline = time.monotonic() + timeout_s
    destination = check(url, allow_loopback=allow_loopback, resolve=resolve)
    target = httpcore.URL(
        scheme=destination.url.raw_scheme,
        host=destination.url.raw_host,
        port=destination.port,
        target=destination.url.raw_path,
    )
    sent = {"Host": destination.url.netloc.decode("ascii"), "Connection": "close", **headers}
    if content or method not in ("GET", "HEAD"):
        sent["Content-Length"] = str(len(content))
    backend = _CheckedAddresses(destination.addresses, deadline)
    try:
        with (
            httpcore.ConnectionPool(ssl_context=tls or _tls(), network_backend=backend) as connections,
            connections.stream(method, target, headers=list(sent.items()), content=content) as response,
        ):
            body, is_cut = _read(response.iter_stream(), max_answer_bytes)
    except httpcore.TimeoutException as error:
        raise RemoteUnavailable(
            f"no answer within {timeout_s:g} s", was_sent=not isinstance(error, httpcore.ConnectTimeout)
        ) from error
    except (httpcore.NetworkError, httpcore.ProtocolError) as error:
        # What a protocol error says quotes headers, ours among them, and the server's bytes: neither is repeated.
        told = (
            f"no connection: {error}" if isinstance(error, httpcore.ConnectError) else _WORDS.get(type(error), _GARBLED)
        )
        raise RemoteUnavailable(told, was_sent=not isinstance(error, httpcore.ConnectError)) from error
    received = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}
    return Answer(response.status, received, body, is_cut)


_GARBLED: Final = "the answer is not HTTP, or not whole"
_WORDS: Final[Mapping[type[Exception], str]] = {
    httpcore.ReadError: "the connection broke",
    httpcore.WriteError: "the connection broke",
}


def _parse(url: str) -> httpx.URL:
    if len(url) > _LONGEST_URL:
        raise UrlNotAllowed(f"the URL has {len(url)} characters, {_LONGEST_URL} is the limit", param="url")
    try:
        parsed = httpx.URL(url)
        host = parsed.raw_host.decode("ascii")
    except (httpx.InvalidURL, UnicodeError) as error:
        raise UrlNotAllowed(f"not a URL: {error}", param="url") from error
    if not host:
        raise UrlNotAllowed("the URL names no host, expected https://host/path", param="url")
    return parsed


def _addresses(host: str, port: int, resolve: Resolve) -> Sequence[str]:
    try:
        return [str(ip_address(host))]
    except ValueError:
        return resolve(host, port)


def _read(chunks: Iterable[bytes], limit: int) -> tuple[bytes, bool]:
    body = b""
    for chunk in chunks:
        body += chunk
        if len(body) > limit:
            return body[:limit], True
    return body, False


@cache
def _tls() -> ssl.SSLContext:
    return httpx.create_ssl_context()


class _CheckedAddresses(httpcore.NetworkBackend):
    """Connects to the addresses that were checked, in turn, whatever the name would resolve to now."""

    def __init__(self, addresses: Sequence[str], deadline: float) -> None:
        self._addresses = addresses
        self._deadline = deadline
        self._network = httpcore.SyncBackend()

    def connect_tcp(self, host: str, port: int, *_: Any, **__: Any) -> httpcore.NetworkStream:
        failure: Exception = httpcore.ConnectError("no address answers")
        for n, address in enumerate(self._addresses):
            # An address that swallows packets leaves time for the others.
            share_s = _left(self._deadline) / (len(self._addresses) - n)
            try:
                return _Timed(self._network.connect_tcp(address, port, timeout=share_s), self._deadline)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure


class _Timed(httpcore.NetworkStream):
    """A connection on which no step outlasts the deadline, however slowly the other side sends or reads."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: float) -> None:
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, timeout=_left(self._deadline))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        for start in range(0, len(buffer), _SLICE):
            self._stream.write(buffer[start : start + _SLICE], timeout=_left(self._deadline))

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        secure = self._stream.start_tls(ssl_context, server_hostname, timeout=_left(self._deadline))
        return _Timed(secure, self._deadline)

    def close(self) -> None:
        self._stream.close()

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise httpcore.TimeoutException
    return left
