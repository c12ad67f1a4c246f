"""HTTP enough for both ends of a relay, each in a process of its own: a server of files, and a sink that discards.

They cost as little as Linux allows, so that what is measured is the relay between them: the file is sent without a
copy, what the sink receives is dropped where it lies, and nothing is paced. With a context they speak TLS, as S3 and
the platform do.
"""

import contextlib
import multiprocessing
import os
import re
import socket
import ssl
import threading
import uuid
from collections.abc import Iterator
from functools import cache

_FILE_BYTES = 8 * 1024 * 1024  # sent again and again, as far as an object goes
_JOB = (
    b'{"id": "%b", "workflow_id": "%b", "workflow_name": "w", "status": "SCHEDULED", '
    b'"created_at": "2026-01-01T00:00:00Z", "input_file_ids": [], "output_node_files": [], "job_type": "ephemeral"}'
)


@contextlib.contextmanager
def server(tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """An address: GET .../SIZE answers that many bytes, a range of them if asked; POST reads all and answers a job."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        # BBR, the default of some machines, paces by round trips, which take microseconds here: it sends a segment at a
        # time, many of them twice, and its timers are what would be measured.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"reno")
        process = multiprocessing.get_context("fork").Process(target=_serve, args=(listener, tls), daemon=True)
        process.start()
        try:
            yield f"{'https' if tls else 'http'}://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            process.terminate()
            process.join()


def _serve(listener: socket.socket, tls: ssl.SSLContext | None) -> None:
    while True:
        connection, _ = listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # a head is not to wait for its answer
        threading.Thread(target=_answer, args=(connection, tls), daemon=True).start()


def _answer(accepted: socket.socket, tls: ssl.SSLContext | None) -> None:
    with contextlib.suppress(OSError), tls.wrap_socket(accepted, server_side=True) if tls else accepted as connection:
        while request := _head(connection):
            if request.startswith((b"GET", b"HEAD")):
                _send_object(connection, request)
            else:
                _drain(connection, request)


def _head(connection: socket.socket) -> bytes:
    """A request's head, and not a byte more."""
    head = b""
    while isinstance(connection, ssl.SSLSocket) and not head.endswith(b"\r\n\r\n"):
        if not (byte := connection.recv(1)):  # OpenSSL has the rest of the record; it cannot be peeked at
            return b""
        head += byte
    while not head.endswith(b"\r\n\r\n"):
        ahead = connection.recv(4096, socket.MSG_PEEK)
        if not ahead:
            return b""
        end = (head + ahead).find(b"\r\n\r\n")
        head += connection.recv(len(ahead) if end < 0 else end + 4 - len(head))
    return head


def _send_object(connection: socket.socket, request: bytes) -> None:
    size = int(request.split()[1].rpartition(b"/")[2].partition(b"?")[0])
    found = re.search(rb"range: bytes=(\d+)-(\d+)", request, re.IGNORECASE)
    first, last = (int(found[1]), min(int(found[2]), size - 1)) if found else (0, size - 1)
    status = b"206 Partial Content\r\nContent-Range: bytes %d-%d/%d" % (first, last, size) if found else b"200 OK"
    left = last - first + 1
    connection.sendall(b'HTTP/1.1 %b\r\nETag: "e"\r\nContent-Length: %d\r\n\r\n' % (status, left))
    while left and request.startswith(b"GET"):
        if isinstance(connection, ssl.SSLSocket):
            connection.sendall(memoryview(_content())[: min(left, _FILE_BYTES)])
            left -= min(left, _FILE_BYTES)
            continue
        left -= os.sendfile(connection.fileno(), _file(), 0, min(left, _FILE_BYTES))


@cache
def _content() -> bytes:
    return os.urandom(_FILE_BYTES)


@cache
def _file() -> int:
    """A file in memory that has pages, which a hole would not."""
    file = os.memfd_create("object")
    os.write(file, _content())
    return file


def _drain(connection: socket.socket, head: bytes) -> None:
    buffer = bytearray(1024 * 1024)
    found = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
    if found:
        left = int(found[1])
        while left:
            drops = 0 if isinstance(connection, ssl.SSLSocket) else socket.MSG_TRUNC
            received = connection.recv_into(buffer, min(left, len(buffer)), drops)
            if not received:
                return
            left -= received
    else:
        _drain_chunked(connection)
    answer = _JOB % (uuid.uuid4().hex.encode(), b"00000000-0000-0000-0000-000000000000")
    connection.sendall(
        b"HTTP/1.1 202 Accepted\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
        % (len(answer), answer)
    )


def _drain_chunked(connection: socket.socket) -> None:
    with connection.makefile("rb", buffering=1024 * 1024) as body:
        while size := int(body.readline().partition(b";")[0], 16):
            while size:
                size -= len(body.read(min(size, 1024 * 1024)))
            body.readline()
        body.readline()
