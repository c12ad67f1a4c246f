"""Relays objects from a stand-in for S3 to a sink, in processes of their own, and prints its own peak memory in KB.

Started by `test_memory.py`; the objects are zeros that nobody stores.
"""

import multiprocessing
import re
import socket
import sys
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import boto3
from botocore.config import Config

from workflow_trigger.clock import Clock, Deadline
from workflow_trigger.model import ObjectVersion
from workflow_trigger.multipart import Encoder, Part
from workflow_trigger.platform_api import Platform, connection_pool
from workflow_trigger.source import Source

_BLOCK = bytes(1024 * 1024)
_ANSWER = b'{"id": "job"}'


def _serve(listener: socket.socket) -> None:
    """HTTP enough for both: GET answers zeros as long as the key says, POST reads everything and answers a job."""
    while True:
        connection, _ = listener.accept()
        with connection:
            while request := _head(connection):
                if request.startswith(b"GET"):
                    _send_zeros(connection, int(request.split()[1].rpartition(b"/")[2].partition(b"?")[0]))
                else:
                    _drain(connection, request)


def _head(connection: socket.socket) -> bytes:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = connection.recv(1)
        if not byte:
            return b""
        head += byte
    return head


def _send_zeros(connection: socket.socket, size: int) -> None:
    connection.sendall(b'HTTP/1.1 200 OK\r\nETag: "e"\r\nContent-Length: %d\r\n\r\n' % size)
    while size:
        connection.sendall(_BLOCK[: min(size, len(_BLOCK))])
        size -= min(size, len(_BLOCK))


def _drain(connection: socket.socket, head: bytes) -> None:
    found = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
    left = int(found.group(1)) if found else 0
    buffer = bytearray(1024 * 1024)
    while left:
        left -= connection.recv_into(buffer, min(left, len(buffer)))
    connection.sendall(b"HTTP/1.1 202 Accepted\r\nContent-Length: %d\r\n\r\n%b" % (len(_ANSWER), _ANSWER))


def _server() -> tuple[Any, str]:
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    process = multiprocessing.get_context("fork").Process(target=_serve, args=(listener,), daemon=True)
    process.start()
    return process, f"http://127.0.0.1:{listener.getsockname()[1]}"


def _part(source: Source, number: int, size: int) -> Part:
    version = ObjectVersion(
        bucket="bucket", key=str(size), version_id=None, etag="e", size_bytes=size, sequencer=None, uploaded_at=None
    )
    opened = source.open(version)
    return Part(
        field="input_files",
        filename=f"{number}.pdf",
        content_type=opened.content_type,
        length_bytes=opened.length_bytes,
        chunks=opened.chunks,
    )


def main(sizes: list[int]) -> None:
    """Relay objects of these sizes in one run."""
    servers = [_server() for _ in sizes] + [_server()]
    platform_url = servers[-1][1]
    deadline = Deadline.in_seconds(Clock(), 900)
    platform = Platform(
        api_url=platform_url, api_key=Mock(value=lambda: "key"), pool=connection_pool(platform_url), deadline=deadline
    )
    parts = []
    for number, (size, (_, url)) in enumerate(zip(sizes, servers, strict=False)):
        config = Config(s3={"addressing_style": "path"}, response_checksum_validation="when_required")
        client = boto3.client(
            "s3",
            endpoint_url=url,
            region_name="us-east-1",
            aws_access_key_id="test",
            aws_secret_access_key="test",
            config=config,
        )
        parts.append(_part(Source(client), number, size))
    job = platform.run("workflow", Encoder(parts, boundary="boundary"), lambda _seconds: None)
    assert job.id == "job"
    # Not ru_maxrss, which a new process takes over from the one that started it.
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    print(found.group(1))
    for process, _ in servers:
        process.terminate()


if __name__ == "__main__":
    main([int(argument) for argument in sys.argv[1:]])
