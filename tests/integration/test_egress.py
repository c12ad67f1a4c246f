"""The way to the platform: certificates and host names are verified, nothing is followed, no proxy is taken unasked."""

import contextlib
import http.server
import ipaddress
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from urllib3.connection import HTTPSConnection

from workflow_trigger.adapters.unstructured import client as platform_client
from workflow_trigger.adapters.unstructured import connections
from workflow_trigger.adapters.unstructured.api_key import ApiKey
from workflow_trigger.adapters.unstructured.client import PlatformClient
from workflow_trigger.adapters.unstructured.connections import Connections
from workflow_trigger.adapters.unstructured.multipart import Encoder, Part
from workflow_trigger.domain.clock import Clock, Deadline
from workflow_trigger.domain.errors import (
    Busy,
    KeyRejected,
    Misconfigured,
    NotFound,
    NotSent,
    OutcomeUnknown,
    PlatformError,
    Refused,
    SecretUnusable,
    Throttled,
    Unavailable,
    Unreachable,
)


class Received:
    """What a server was asked."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.status = 200
        self.headers: dict[str, str] = {}
        self.reads_after_seconds = 0.0


@contextlib.contextmanager
def server(received: Received, certificate: trustme.LeafCert | None = None) -> Iterator[int]:
    """A server on a port of 127.0.0.1; with a certificate, by TLS."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def _answer(self) -> None:
            received.requests.append((self.path, dict(self.headers)))
            time.sleep(received.reads_after_seconds)
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(received.status)
            for name, value in received.headers.items():
                self.send_header(name, value)
            body = b'{"id": "job-1", "status": "SCHEDULED"}'
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = _answer  # noqa: N815

        def log_message(self, *_: Any) -> None:
            pass

    listening = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(context)
        listening.socket = context.wrap_socket(listening.socket, server_side=True)
        listening.handle_error = lambda *_: None  # type: ignore[method-assign]
    thread = threading.Thread(target=listening.serve_forever, daemon=True)
    thread.start()
    try:
        yield listening.server_port
    finally:
        listening.shutdown()
        listening.server_close()
        thread.join()


@contextlib.contextmanager
def listening(answer: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server on a port of its own, which answers each connection in a thread."""

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def dripping(encoding: str, first: bytes, rest: bytes) -> Iterator[int]:
    """A server that answers every request with something first, then with the rest again and again."""
    ended = threading.Event()

    def answer(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\n%b\r\n\r\n%b" % (encoding.encode(), first))
            while rest and not ended.wait(0.05):
                connection.sendall(rest)
            ended.wait()

    with listening(answer) as port:
        try:
            yield port
        finally:
            ended.set()


def key_of(*secrets: str) -> ApiKey:
    """A key from a secret that can be read so many times."""
    return ApiKey(Mock(get_secret_value=Mock(side_effect=[{"SecretString": each} for each in secrets])), "arn")


def platform(url: str, seconds: float = 900) -> PlatformClient:
    deadline = Deadline.in_seconds(Clock(), seconds)
    return PlatformClient(api_url=url, api_key=key_of("key"), connections=Connections(url), deadline=deadline)


def downloaded(asking: PlatformClient) -> bytes:
    with asking.download("job", "file", "node") as chunks:
        return b"".join(chunks)


def post(url: str, seconds: float = 900) -> Any:
    part = Part(filename="a.pdf", content_type="a/b", length_bytes=1, chunks=lambda: [b"x"])
    return platform(url, seconds).run("w", Encoder([part], boundary="b"), lambda _: None)


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> trustme.CA:
    """A certificate authority that this process trusts."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    return authority


def test_certificate_of_a_trusted_authority_for_this_host_is_accepted(authority: trustme.CA) -> None:
    received = Received()
    with server(received, authority.issue_cert("127.0.0.1")) as port:
        assert post(f"https://127.0.0.1:{port}").id == "job-1"
    assert received.requests[0][1]["unstructured-api-key"] == "key"


@pytest.mark.parametrize("who", ["an unknown authority", "another host"])
def test_certificate_that_proves_nothing_gets_not_a_byte(authority: trustme.CA, who: str) -> None:
    certificate = trustme.CA().issue_cert("127.0.0.1") if "authority" in who else authority.issue_cert("example.com")
    received = Received()
    with server(received, certificate) as port:
        with pytest.raises(Unreachable, match=r"certificate is not trusted.*CaBundleSecretArn"):
            post(f"https://127.0.0.1:{port}")
        with pytest.raises(Unavailable, match=r"certificate is not trusted.*CaBundleSecretArn"):
            list(platform(f"https://127.0.0.1:{port}").jobs("w"))
    assert received.requests == []


def secret_with(text: str) -> Any:
    """A client of Secrets Manager."""
    return Mock(get_secret_value=Mock(return_value={"SecretString": text}))


def trusting(url: str, certificates: str) -> PlatformClient:
    """A client of the platform that has a secret with certificates."""
    deadline = Deadline.in_seconds(Clock(), 900)
    trusted = partial(connections.ca_certificates, secret_with(certificates), "arn")
    return PlatformClient(api_url=url, api_key=key_of("key"), connections=Connections(url, trusted), deadline=deadline)


@pytest.mark.parametrize("form", ["{}", "# Főtanúsítvány\n{}", "JSON"])
def test_private_authority_is_trusted_by_its_secret_beside_the_public_ones(form: str) -> None:
    private = trustme.CA()
    pem = private.cert_pem.bytes().decode()
    received = Received()
    with server(received, private.issue_cert("127.0.0.1")) as port:
        asking = trusting(
            f"https://127.0.0.1:{port}", json.dumps({"bundle": pem}) if form == "JSON" else form.format(pem)
        )
        part = Part(filename="a.pdf", content_type="a/b", length_bytes=1, chunks=lambda: [b"x"])
        assert asking.run("w", Encoder([part], boundary="b"), lambda _: None).id == "job-1"
    assert len(received.requests) == 1


def authority_of_older_make() -> tuple[str, trustme.LeafCert]:
    """An authority as `openssl req -x509` makes it, without a key usage, and a certificate for 127.0.0.1."""
    now = datetime.now(UTC)
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    names = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, each)]) for each in ("Own Authority", "127.0.0.1")]

    def signed(place: int, extension: x509.ExtensionType, *, critical: bool) -> x509.Certificate:
        builder = x509.CertificateBuilder(issuer_name=names[0], subject_name=names[place])
        builder = builder.public_key(keys[place].public_key()).serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
        return builder.add_extension(extension, critical=critical).sign(keys[0], hashes.SHA256())

    authority = signed(0, x509.BasicConstraints(ca=True, path_length=None), critical=True)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    leaf = signed(1, address, critical=False)
    pem, traditional = serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL
    key = keys[1].private_bytes(pem, traditional, serialization.NoEncryption())
    return authority.public_bytes(pem).decode(), trustme.LeafCert(key, leaf.public_bytes(pem), [])


def test_authority_without_a_key_usage_is_trusted_too() -> None:
    """Python 3.13 refuses such ones by default, and nobody makes them anew."""
    pem, certificate = authority_of_older_make()
    received = Received()
    with server(received, certificate) as port:
        asking = trusting(f"https://127.0.0.1:{port}", pem)
        part = Part(filename="a.pdf", content_type="a/b", length_bytes=1, chunks=lambda: [b"x"])
        assert asking.run("w", Encoder([part], boundary="b"), lambda _: None).id == "job-1"
        with pytest.raises(PlatformError, match="is not trusted"):
            trusting(f"https://127.0.0.1:{port}", trustme.CA().cert_pem.bytes().decode()).file_status("job")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is not there, or empty"),
        (" ", "holds no certificates"),
        ("no certificate", "holds no certificates"),
        ("-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----", "cannot be read"),
    ],
)
def test_secret_without_certificates_blocks_and_sends_nothing(text: str, says: str) -> None:
    received = Received()
    with server(received, trustme.CA().issue_cert("127.0.0.1")) as port:
        asking = trusting(f"https://127.0.0.1:{port}", text)
        part = Part(filename="a.pdf", content_type="a/b", length_bytes=1, chunks=lambda: [b"x"])
        with pytest.raises(SecretUnusable, match=f"CaBundleSecretArn.* {says}"):
            asking.run("w", Encoder([part], boundary="b"), lambda _: None)
        with pytest.raises(SecretUnusable, match="CaBundleSecretArn"):
            asking.file_status("job")
    assert received.requests == []


def test_secret_that_is_corrected_takes_effect_at_once() -> None:
    private = trustme.CA()
    pem = private.cert_pem.bytes().decode()
    broken = "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----"
    secrets = Mock(get_secret_value=Mock(side_effect=[{"SecretString": each} for each in ("", broken, pem)]))
    trusting_it = Connections("https://127.0.0.1", partial(connections.ca_certificates, secrets, "arn"))
    for _ in range(2):
        with pytest.raises(SecretUnusable):
            _ = trusting_it.kept
    assert trusting_it.kept
    assert secrets.get_secret_value.call_count == 3
    trusting_it.fresh()
    assert secrets.get_secret_value.call_count == 3


@pytest.mark.parametrize("first", ["a question", "a run"])
def test_certificates_of_a_wrong_authority_are_corrected_at_once(first: str) -> None:
    right, wrong = trustme.CA(), trustme.CA()
    texts = [each.cert_pem.bytes().decode() for each in (wrong, right)]
    secrets = Mock(get_secret_value=Mock(side_effect=[{"SecretString": each} for each in texts]))
    trusted = partial(connections.ca_certificates, secrets, "arn")
    with server(Received(), right.issue_cert("127.0.0.1")) as port:
        url = f"https://127.0.0.1:{port}"
        deadline = Deadline.in_seconds(Clock(), 900)
        asking = PlatformClient(
            api_url=url, api_key=key_of("key"), connections=Connections(url, trusted), deadline=deadline
        )
        part = Part(filename="a.pdf", content_type="a/b", length_bytes=1, chunks=lambda: [b"x"])
        run = partial(asking.run, "w", Encoder([part], boundary="b"), lambda _: None)
        with pytest.raises(PlatformError, match="is not trusted"):
            asking.job("job-1") if first == "a question" else run()
        assert run().id == asking.job("job-1").id == "job-1"


@pytest.mark.parametrize("is_tls", [False, True])
def test_server_that_reads_slowly_has_longer_than_to_connect(
    authority: trustme.CA, monkeypatch: pytest.MonkeyPatch, *, is_tls: bool
) -> None:
    """So that a host with several dead addresses is given up before the lease of the attempt ends."""
    monkeypatch.setattr(platform_client, "_CONNECT_SECONDS", 0.5)
    received = Received()
    received.reads_after_seconds = 1.5
    with server(received, authority.issue_cert("127.0.0.1") if is_tls else None) as port:
        url = f"http{'s' * is_tls}://127.0.0.1:{port}"
        part = Part(filename="a.pdf", content_type="a/b", length_bytes=30_000_000, chunks=lambda: [bytes(10**6)] * 30)
        assert platform(url).run("w", Encoder([part], boundary="b"), lambda _: None).id == "job-1"
    assert len(received.requests) == 1


def test_request_for_a_change_is_sent_once_where_a_question_is_asked_again() -> None:
    """A server that closes every connection when it has read: a change may have been made by then."""
    heard: list[bytes] = []

    def answer(connection: socket.socket) -> None:
        with connection:
            heard.append(connection.recv(65536).split()[0])

    with listening(answer) as port:
        asking = platform(f"http://127.0.0.1:{port}")
        for ask in (lambda: asking.cancel("job"), lambda: asking.ask("/workflows/", str, post={"name": "a"})):
            with pytest.raises(OutcomeUnknown):
                ask()
        assert heard == [b"POST", b"POST"]
        with pytest.raises(Unavailable):
            asking.job("job")
        assert heard == [b"POST", b"POST", b"GET", b"GET"]


@pytest.mark.parametrize(
    ("status", "of_run", "of_question"),
    [
        (307, Misconfigured, Misconfigured),
        (400, Refused, Misconfigured),
        (404, NotFound, NotFound),
        (409, Busy, Misconfigured),
        (429, Throttled, Throttled),
        (500, OutcomeUnknown, Unavailable),
    ],
)
@pytest.mark.parametrize("more", ["Content-Length: 1000", "Content-Encoding: br\r\nContent-Length: 2"])
def test_what_a_status_says_holds_without_its_body(status: int, of_run: type, of_question: type, more: str) -> None:
    """The body breaks off, or is encoded; only where the status tells nothing is the outcome unknown."""

    def answer(connection: socket.socket) -> None:
        with connection:
            connection.recv(65536)
            time.sleep(0.05)  # the form comes in pieces; what is left unread resets the connection
            connection.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while connection.recv(65536):
                    pass
            connection.sendall(f"HTTP/1.1 {status} X\r\n{more}\r\n\r\n{{}}".encode())

    with listening(answer) as port:
        with pytest.raises(PlatformError) as raised:
            post(f"http://127.0.0.1:{port}")
        assert type(raised.value) is of_run
        with pytest.raises(PlatformError) as raised:
            platform(f"http://127.0.0.1:{port}").job("job")
        assert type(raised.value) is of_question


@pytest.mark.parametrize("spelled", ["6F0F2A4E-9D0B-4B6E-8F58-8F6F8AD0A1C7", "6f0f2a4e9d0b4b6e8f588f6f8ad0a1c7"])
def test_workflow_is_asked_for_in_the_usual_spelling(spelled: str) -> None:
    """Servers compare the text of a path."""
    received = Received()
    part = Part(filename="a.pdf", content_type="a/b", length_bytes=1, chunks=lambda: [b"x"])
    with server(received) as port:
        asking = platform(f"http://127.0.0.1:{port}")
        asking.run(spelled, Encoder([part], boundary="b"), lambda _: None)
        assert asking.has_workflow(spelled)
    root = "/api/v1/workflows/6f0f2a4e-9d0b-4b6e-8f58-8f6f8ad0a1c7"
    assert [path for path, _ in received.requests] == [f"{root}/run", root]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect_is_not_followed_and_the_key_goes_nowhere_else(status: int) -> None:
    here, elsewhere = Received(), Received()
    with server(here) as port, server(elsewhere) as other:
        here.status, here.headers = status, {"Location": f"http://127.0.0.1:{other}/"}
        for call in (post, lambda url: list(platform(url).jobs("w"))):
            with pytest.raises(PlatformError) as error:
                call(f"http://127.0.0.1:{port}")
            assert isinstance(error.value, Misconfigured)
    assert len(here.requests) == 2
    assert elsewhere.requests == []


def test_proxy_in_the_environment_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    received, proxy = Received(), Received()
    with server(received) as port, server(proxy) as proxy_port:
        for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy_port}")
        assert post(f"http://127.0.0.1:{port}").id == "job-1"
    assert proxy.requests == []


def test_host_that_is_not_there_is_told_apart_from_a_lost_answer() -> None:
    with server(Received()) as port:
        pass
    with pytest.raises(Unreachable):
        post(f"http://127.0.0.1:{port}")


@pytest.mark.parametrize(
    ("encoding", "first", "rest"),
    [
        ("Content-Length: 1000000", b"", b" "),
        ("Transfer-Encoding: chunked", b"", b"1\r\n \r\n"),
        ("Content-Length: 1000000\r\nContent-Encoding: gzip", b"\x1f\x8b\x08\x08\0\0\0\0\0\0", b"a"),
    ],
)
def test_answer_that_never_ends_is_given_up_before_the_invocation_is(encoding: str, first: bytes, rest: bytes) -> None:
    """With six seconds left, two of which are kept to write down what came of it."""
    with dripping(encoding, first, rest) as port:
        url = f"http://127.0.0.1:{port}"
        calls: list[Callable[[], object]] = [
            lambda: list(platform(url, 6).jobs("w")),
            lambda: post(url, 6),
            lambda: downloaded(platform(url, 6)),
        ]
        with ThreadPoolExecutor() as at_once:
            errors = [each.exception(60) for each in [at_once.submit(call) for call in calls]]
    assert [type(error) for error in errors] == [Unavailable, OutcomeUnknown, Unavailable]


@pytest.mark.parametrize(
    "ask", [lambda it: it.job("j"), lambda it: it.look("w"), lambda it: list(it.jobs("w")), downloaded]
)
def test_answer_that_trickles_is_given_up(
    ask: Callable[[PlatformClient], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would hold a thread to the end of the invocation, and four of them every workflow of the route."""
    monkeypatch.setattr(platform_client, "_QUESTION_SECONDS", 0.5)
    monkeypatch.setattr(platform_client, "_WHOLE_SECONDS", 0.5)
    with dripping("Content-Length: 1000000", b"[", b" ") as port, pytest.raises(Unavailable, match="in time"):
        ask(platform(f"http://127.0.0.1:{port}"))


def test_answer_that_comes_late_but_whole_counts() -> None:
    """The platform has it, whatever the hour: dropped, it would have to be asked for again, or be settled."""
    with dripping("Content-Length: 38", b'{"id": "job-1", "status": "SCHEDULED"}', b"") as port:
        assert post(f"http://127.0.0.1:{port}", 0.5).id == "job-1"


def test_question_is_not_asked_when_no_answer_can_come_in_time() -> None:
    received = Received()
    with server(received) as port, pytest.raises(Unavailable, match="before the invocation ends"):
        list(platform(f"http://127.0.0.1:{port}", 4).jobs("w"))
    assert received.requests == []


def test_key_invalidated_during_a_request_does_not_cost_the_answer() -> None:
    """Another thread was told that it is not accepted, and the secret cannot be read just now."""
    key = key_of("a-key-of-some-length")
    received = Received()
    with server(received) as port:
        url = f"http://127.0.0.1:{port}"
        deadline = Deadline.in_seconds(Clock(), 900)
        asking = PlatformClient(api_url=url, api_key=key, connections=Connections(url), deadline=deadline)
        part = Part(filename="a.pdf", content_type="a/b", length_bytes=1, chunks=lambda: [b"x"])
        assert asking.run("w", Encoder([part], boundary="b"), lambda _: key.invalidate()).id == "job-1"
    assert key.redact(b"of a-key-of-some-length") == b"of ***"


@contextlib.contextmanager
def answering_early(certificate: trustme.LeafCert | None, status: bytes) -> Iterator[int]:
    """A server that answers after the first bytes of a body, and closes while more of it comes."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) if certificate else None
    if certificate and context:
        certificate.configure_cert(context)

    def answer(connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            connection = context.wrap_socket(connection, server_side=True) if context else connection
            received = b""
            while b"\r\n\r\n" not in received:
                received += connection.recv(65536)
            body = b'{"detail": "too large for us"}'
            head = b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
            connection.sendall(head % (status, len(body)) + body)
            connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    with listening(answer) as port:
        yield port


@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (b"413 Content Too Large", Refused),
        (b"400 Bad Request", Refused),
        (b"401 Unauthorized", KeyRejected),
        (b"429 Too Many Requests", Throttled),
        (b"409 Conflict", Busy),
        (b"503 Service Unavailable", NotSent),
    ],
)
def test_answer_that_comes_while_the_body_is_sent_says_what_it_says(
    authority: trustme.CA, tls: bool, status: bytes, kind: type[PlatformError]
) -> None:
    """Case 10: by TLS the sender meets an end of file where it meets a broken pipe without."""
    committed: list[float] = []
    size = 50_000_000

    def chunks() -> Iterator[bytes]:
        for _ in range(50):
            time.sleep(0.005)
            yield bytes(size // 50)

    part = Part(filename="a.pdf", content_type="a/b", length_bytes=size, chunks=chunks)
    with answering_early(authority.issue_cert("127.0.0.1") if tls else None, status) as port:
        url = f"http{'s' if tls else ''}://127.0.0.1:{port}"
        with pytest.raises(PlatformError) as error:
            platform(url).run("w", Encoder([part], boundary="b"), committed.append)
    assert type(error.value) is kind, error.value
    assert committed == []


def test_tls_eof_while_the_body_is_sent_does_not_cost_the_answer(
    authority: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Python's ssl has it on some systems (urllib3#3148), where others have a broken pipe."""
    sent = []
    plain = HTTPSConnection.send

    def ending(connection: Any, data: Any) -> None:
        sent.append(len(data))
        if len(sent) > 1:  # the head has gone
            raise ssl.SSLEOFError(8, "EOF occurred in violation of protocol")
        plain(connection, data)

    monkeypatch.setattr(HTTPSConnection, "send", ending)
    part = Part(filename="a.pdf", content_type="a/b", length_bytes=10, chunks=lambda: [b"x"] * 10)
    early = answering_early(authority.issue_cert("127.0.0.1"), b"413 Content Too Large")
    with early as port, pytest.raises(Refused, match="too large for us"):
        platform(f"https://127.0.0.1:{port}").run("w", Encoder([part], boundary="b"), lambda _: None)
    assert len(sent) == 2
