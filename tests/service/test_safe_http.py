"""A tenant's URL reaches the internet and nothing else; what answers there can neither hang nor flood."""

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address

import pytest
import trustme

from service import safe_http
from service.errors import RemoteUnavailable, UrlNotAllowed
from tests.service.receiving import Receiver, receiving

PUBLIC = "93.184.215.14"


def resolving(*addresses: str) -> safe_http.Resolve:
    return lambda host, port: addresses


def unresolved(host: str, port: int) -> list[str]:
    raise socket.gaierror(-2, "Name or service not known")


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


def post(url: str, resolve: safe_http.Resolve = safe_http.resolve_by_system, **options: object) -> safe_http.Answer:
    values: dict[str, object] = {
        "timeout_s": 5,
        "max_answer_bytes": 1000,
        "allow_loopback": True,
        "headers": {},
        **options,
    }
    return safe_http.request("POST", url, content=b"hello", resolve=resolve, **values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://hooks.example/", "the scheme is 'http', expected https"),
        ("ftp://hooks.example/", "the scheme is 'ftp', expected https"),
        ("file:///etc/passwd", "names no host"),
        ("//hooks.example/", "the scheme is 'missing', expected https"),
        ("hooks.example", "names no host"),
        ("", "names no host"),
        ("https://", "names no host"),
        ("https://user:pass@hooks.example/", "holds a user name or password"),
        ("https://hooks.example\\@10.0.0.1/", "holds a user name or password"),
        ("https://hooks.example:22/", "the port is 22, expected 443 or one from 1024 to 65535"),
        ("https://hooks.example:80/", "the port is 80"),
        ("https://hooks.example:0/", "the port is 0"),
        ("https://hooks.example:99999/", "the port is 99999"),
        ("https://hooks.example:x/", "not a URL"),
        ("https://[::1/", "not a URL"),
        ("https://hooks.example/\n", "not a URL"),
        ("https://" + "a" * 2048, "2056 characters, 2048 is the limit"),
    ],
)
def test_urls_that_are_refused(url: str, said: str) -> None:
    with pytest.raises(UrlNotAllowed) as refusal:
        safe_http.check(url, resolve=resolving(PUBLIC))
    assert said in refusal.value.detail
    assert refusal.value.param == "url"


PRIVATE = [
    "0.0.0.0",
    "10.1.2.3",
    "100.64.0.1",
    "100.100.100.200",
    "127.0.0.1",
    "127.8.8.8",
    "168.63.129.16",
    "169.254.169.254",
    "172.16.0.1",
    "192.0.0.192",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "203.0.113.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::7f00:1",
    "::ffff:127.0.0.1",
    "::ffff:8.8.8.8",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1",
    "100::1",
    "2001:0:1::1",
    "2001:db8::1",
    "2002:7f00:1::1",
    "3fff::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fec0::1",
    "ff02::1",
]


@pytest.mark.parametrize("address", PRIVATE)
def test_addresses_that_are_not_public(address: str) -> None:
    literal = f"[{address}]" if ":" in address else address
    for url, resolve in (
        (f"https://{literal}/", unresolved),
        ("https://hooks.example/", resolving(address)),
        ("https://hooks.example/", resolving(PUBLIC, address)),
    ):
        with pytest.raises(UrlNotAllowed, match="leads to an address that is not public"):
            safe_http.check(url, resolve=resolve)


@pytest.mark.parametrize("address", [PUBLIC, "8.8.8.8", "2606:4700:4700::1111", "64:ff9b::808:808"])
def test_addresses_that_are_public(address: str) -> None:
    found = safe_http.check("https://hooks.example:8443/a?b=c", resolve=resolving(address))
    assert (found.addresses, found.port) == ((str(ip_address(address)),), 8443)


@pytest.mark.parametrize("host", ["localhost", "localhost.", "127.1", "2130706433", "0x7f000001", "0177.0.0.1"])
def test_other_ways_to_write_this_machine(host: str) -> None:
    with pytest.raises(UrlNotAllowed):
        safe_http.check(f"https://{host}/")


def test_a_refusal_names_no_address_of_this_network() -> None:
    with pytest.raises(UrlNotAllowed) as refusal:
        safe_http.check("https://intern.example/", resolve=resolving("10.20.30.40"))
    assert "10.20" not in refusal.value.detail


@pytest.mark.parametrize("resolve", [unresolved, resolving(), safe_http.resolve_by_system])
def test_names_without_address(resolve: safe_http.Resolve) -> None:
    host = f"{'a' * 64}.invalid" if resolve is safe_http.resolve_by_system else "gone.example"
    with pytest.raises(UrlNotAllowed, match=r"does not resolve|has no address"):
        safe_http.check(f"https://{host}/", resolve=resolve)


def test_http_is_for_loopback_alone_and_only_in_development(receiver: Receiver) -> None:
    with pytest.raises(UrlNotAllowed, match="expected https"):
        safe_http.check(receiver.url)
    with pytest.raises(UrlNotAllowed, match="http is for this machine alone"):
        safe_http.check("http://hooks.example/", allow_loopback=True, resolve=resolving(PUBLIC))
    with pytest.raises(UrlNotAllowed, match="not public"):
        safe_http.check("http://hooks.example/", allow_loopback=True, resolve=resolving("192.168.0.1"))
    assert safe_http.check(receiver.url, allow_loopback=True).port == receiver.port


def test_goes_to_the_address_that_was_checked_under_its_own_name(receiver: Receiver) -> None:
    asked: list[str] = []

    def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["10.0.0.1"]

    answer = post(f"http://hooks.example:{receiver.port}/a/b?c=d%20e", resolve)
    assert (answer.status, asked) == (204, ["hooks.example"])
    [request] = receiver.requests
    assert (request.path, request.body) == ("/a/b?c=d%20e", b"hello")
    assert request.headers["host"] == f"hooks.example:{receiver.port}"


def test_a_name_that_resolves_anew_is_checked_anew(receiver: Receiver) -> None:
    with pytest.raises(UrlNotAllowed):
        post(f"https://hooks.example:{receiver.port}/", resolving("127.0.0.1"), allow_loopback=False)
    assert receiver.requests == []


def test_next_address_where_one_does_not_answer(receiver: Receiver) -> None:
    assert post(f"http://hooks.example:{receiver.port}/", resolving("127.0.0.2", "127.0.0.1")).status == 204


def test_proxies_of_the_environment_are_not_used(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert post(receiver.url).status == 204


def test_redirects_are_answers(receiver: Receiver) -> None:
    with receiving() as elsewhere:
        receiver.answer(302, Location=elsewhere.url)
        answer = post(receiver.url)
        assert (answer.status, answer.headers["location"]) == (302, elsewhere.url)
        assert elsewhere.requests == []


def test_huge_answer_is_cut_off(receiver: Receiver) -> None:
    receiver.answer(200, b"x" * 5_000_000)
    answer = post(receiver.url)
    assert (answer.status, len(answer.body), answer.is_cut) == (200, 1000, True)
    receiver.answer(200, b"x" * 1000)
    assert post(receiver.url).is_cut is False


@contextmanager
def talking(speak: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server that says what it likes to the first who connects."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            try:
                connection, _ = server.accept()
                with connection:
                    speak(connection)
            except OSError:
                pass

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/"
        server.close()
        thread.join(timeout=20)


def _drip(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    for n in range(200):
        connection.sendall(b"X-%d: y\r\n" % n)
        time.sleep(0.05)


def _drip_body(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    for _ in range(200):
        connection.sendall(b"x")
        time.sleep(0.05)


@pytest.mark.parametrize("speak", [_drip, _drip_body, lambda _: time.sleep(2)])
def test_all_of_an_answer_has_one_deadline(speak: Callable[[socket.socket], None]) -> None:
    with talking(speak) as url, pytest.raises(RemoteUnavailable, match=r"no answer within 0.5 s"):
        post(url, timeout_s=0.5)


@pytest.mark.parametrize(
    "words", [b"", b"220 mail.example ESMTP\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx"]
)
def test_what_is_not_an_answer(words: bytes) -> None:
    def speak(connection: socket.socket) -> None:
        while not connection.recv(1000).endswith(b"hello"):
            pass
        connection.sendall(words)

    with talking(speak) as url, pytest.raises(RemoteUnavailable, match=r"not HTTP, or not whole$"):
        post(url)


def test_a_header_that_cannot_be_sent_is_not_repeated() -> None:
    with receiving() as receiver, pytest.raises(RemoteUnavailable) as error:
        post(receiver.url, headers={"X-Key": "s3cret "})
    assert "s3cret" not in error.value.detail


def test_nobody_listens() -> None:
    with receiving() as gone:
        pass
    with pytest.raises(RemoteUnavailable, match=r"no connection: .*refused"):
        post(gone.url)


def test_nothing_is_sent_once_a_slow_name_server_has_used_the_time(receiver: Receiver) -> None:
    def resolve(host: str, port: int) -> list[str]:
        time.sleep(0.3)
        return ["127.0.0.1"]

    with pytest.raises(RemoteUnavailable, match="no answer within"):
        post(f"http://hooks.example:{receiver.port}/", resolve, timeout_s=0.2)
    assert receiver.requests == []


@contextmanager
def secured(certificate: trustme.LeafCert, names: list[str | None]) -> Iterator[int]:
    """A TLS server that answers 204 and keeps the names it was asked for; its port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    context.sni_callback = lambda _, name, __: names.append(name)

    def speak(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as secure:
            heard = b""
            while not heard.endswith(b"hello"):
                heard += secure.recv(10_000)
            secure.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")

    with talking(speak) as url:
        yield int(url.rstrip("/").rpartition(":")[2])


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def test_tls_is_of_the_name_though_the_connection_is_to_an_address(authority: trustme.CA) -> None:
    names: list[str | None] = []
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    with secured(authority.issue_cert("hooks.example"), names) as port:
        answer = post(f"https://hooks.example:{port}/", resolving("127.0.0.1"), tls=trusting)
    assert (answer.status, names) == (204, ["hooks.example"])


@pytest.mark.parametrize(("name", "is_trusted"), [("other.example", True), ("hooks.example", False)])
def test_wrong_certificates(authority: trustme.CA, name: str, is_trusted: bool) -> None:
    context = ssl.create_default_context()
    if is_trusted:
        authority.configure_trust(context)
    failing = pytest.raises(RemoteUnavailable, match=r"no connection: .*certificate verify failed")
    with secured(authority.issue_cert(name), []) as port, failing:
        post(f"https://hooks.example:{port}/", resolving("127.0.0.1"), tls=context if is_trusted else None)
