"""Ways to take objects from S3 to the run endpoint, ours and others', in a process each that measures itself.

`python -m bench.ways WAY SIZE COUNT [CHUNK_BYTES]` prints seconds, processor seconds (user and system, of this process
alone) and peak memory, after a first small relay that loads what there is to load. Both ends speak TLS.
"""

import contextlib
import json
import os
import resource
import socket
import ssl
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import Mock
from urllib.parse import urlsplit

import boto3
import trustme
import urllib3
from botocore.config import Config

from local.function_process import peak_kb
from local.loopback import server

type Relay = Callable[[Sequence[str], int, str], None]

_BUFFER_BYTES = 1024 * 1024  # with which raw sockets are fastest, of what was tried
_AUTHORITY = f"{tempfile.gettempdir()}/authority-{os.getpid()}.pem"  # what both ends are signed with
_URL = "{sink}/api/v1/workflows/00000000-0000-0000-0000-000000000000/run"


@cache
def _s3(url: str) -> Any:
    """A client, made once: functions make theirs at their start."""
    config = Config(s3={"addressing_style": "path"}, response_checksum_validation="when_required")
    return boto3.client(
        "s3",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
        verify=_AUTHORITY,
        config=config,
    )


def ours(objects: Sequence[str], size: int, sink: str) -> None:
    """The product's own source, encoder and platform."""
    from workflow_trigger.adapters.s3_reader import ObjectReader
    from workflow_trigger.adapters.unstructured.api_key import ApiKey
    from workflow_trigger.adapters.unstructured.client import PlatformClient
    from workflow_trigger.adapters.unstructured.connections import Connections
    from workflow_trigger.adapters.unstructured.multipart import Encoder, Part
    from workflow_trigger.domain.clock import Clock, Deadline
    from workflow_trigger.domain.document import ObjectVersion

    secret = Mock(get_secret_value=lambda **_: {"SecretString": "a-key-of-some-length"})
    deadline = Deadline.in_seconds(Clock(), 900)
    platform = PlatformClient(
        api_url=sink, api_key=ApiKey(secret, "arn"), connections=Connections(sink, _pem), deadline=deadline
    )
    parts = []
    for number, url in enumerate(objects):
        version = ObjectVersion(
            bucket="bucket",
            key=str(size),
            version_id=None,
            etag="e",
            size_bytes=size,
            sequencer=None,
            uploaded_at=None,
        )
        opened = ObjectReader(_s3(url)).open(version)
        part = Part(
            filename=f"{number}.pdf",
            content_type=opened.content_type,
            length_bytes=opened.length_bytes,
            chunks=opened.chunks,
        )
        parts.append(part)
    platform.run("workflow", Encoder(parts, boundary=uuid.uuid4().hex), lambda _seconds: None)


def read_everything(objects: Sequence[str], size: int, sink: str) -> None:
    """What most handlers do: `get_object().read()`, then urllib3's `fields`."""
    bodies = [_s3(url).get_object(Bucket="bucket", Key=str(size))["Body"].read() for url in objects]
    fields = [("input_files", (f"{number}.pdf", body, "application/pdf")) for number, body in enumerate(bodies)]
    pool = urllib3.PoolManager(ca_certs=_AUTHORITY)
    pool.request("POST", _URL.format(sink=sink), fields=fields, headers={"unstructured-api-key": "key"})


def disk(objects: Sequence[str], size: int, sink: str) -> None:
    """Download to disk, then post the files, which httpx reads as it sends them."""
    import httpx

    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as opened:
        files = []
        for number, url in enumerate(objects):
            path = Path(folder, f"{number}.pdf")
            _s3(url).download_file("bucket", str(size), str(path))
            files.append(("input_files", (path.name, opened.enter_context(path.open("rb")), "application/pdf")))
        key = {"unstructured-api-key": "key"}
        httpx.post(_URL.format(sink=sink), files=files, headers=key, timeout=None, verify=_trusting())


def sdk(objects: Sequence[str], size: int, sink: str) -> None:
    """The vendor's SDK."""
    import httpx
    from unstructured_client import UnstructuredClient
    from unstructured_client.models import operations, shared

    bodies = [_s3(url).get_object(Bucket="bucket", Key=str(size))["Body"].read() for url in objects]
    files = [
        shared.BodyRunWorkflowInputFiles(content=body, file_name=f"{number}.pdf", content_type="application/pdf")
        for number, body in enumerate(bodies)
    ]
    request = operations.RunWorkflowRequest(
        workflow_id="00000000-0000-0000-0000-000000000000",
        body_run_workflow=shared.BodyRunWorkflow(input_files=files),
    )
    transport = httpx.Client(verify=_trusting(), timeout=None)
    client = UnstructuredClient(
        api_key_auth="key", server_url=sink, client=transport
    )  # without a name it is cleared away too early
    client.workflows.run_workflow(request=request)


def raw_socket(objects: Sequence[str], size: int, sink: str) -> None:
    """The limit: bytes from one TLS socket to another, no HTTP beyond the heads."""
    boundary = b"0" * 32
    heads = [
        b"\r\n--" + boundary + b'\r\nContent-Disposition: form-data; name="input_files"; filename="%d.pdf"\r\n\r\n' % n
        for n in range(len(objects))
    ]
    closing = b"\r\n--" + boundary + b"--\r\n"
    length = sum(map(len, heads)) + size * len(objects) + len(closing)
    buffer = memoryview(bytearray(_BUFFER_BYTES))
    with _connected(sink) as out:
        out.sendall(b"POST /run HTTP/1.1\r\nHost: sink\r\nContent-Length: %d\r\n\r\n" % length)
        for head, url in zip(heads, objects, strict=True):
            out.sendall(head)
            with _connected(url) as source:
                source.sendall(b"GET /bucket/%d HTTP/1.1\r\nHost: source\r\n\r\n" % size)
                answer = b""
                while b"\r\n\r\n" not in answer:
                    answer += source.recv(4096)
                first = answer.partition(b"\r\n\r\n")[2]
                out.sendall(first)
                left = size - len(first)
                while left:
                    received = source.recv_into(buffer, min(left, _BUFFER_BYTES))
                    out.sendall(buffer[:received])
                    left -= received
        out.sendall(closing)
        out.recv(4096)


def _connected(url: str) -> ssl.SSLSocket:
    parts = urlsplit(url)
    connection = socket.create_connection((parts.hostname or "", parts.port or 443))
    return _trusting().wrap_socket(connection, server_hostname=parts.hostname)


def _pem() -> str:
    return Path(_AUTHORITY).read_text()


@cache
def _trusting() -> ssl.SSLContext:
    return ssl.create_default_context(cafile=_AUTHORITY)


WAYS: Mapping[str, Relay] = {
    "ours": ours,
    "read_everything": read_everything,
    "disk": disk,
    "sdk": sdk,
    "raw_socket": raw_socket,
}


def main(way: str, size: int, count: int, chunk_bytes: int | None) -> None:
    """Relay `count` objects of `size` bytes in one run."""
    if chunk_bytes:
        from workflow_trigger.adapters import s3_reader

        s3_reader.CHUNK_BYTES = chunk_bytes
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with contextlib.ExitStack() as ends:
        authority.cert_pem.write_to_path(_AUTHORITY)
        ends.callback(os.unlink, _AUTHORITY)
        *objects, sink = [ends.enter_context(server(context)) for _ in range(count + 1)]
        WAYS[way](objects, 1_000, sink)
        began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
        WAYS[way](objects, size, sink)
        seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(json.dumps({"seconds": seconds, "processor_seconds": processor, "peak_kb": peak_kb()}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]) if len(sys.argv) > 4 else None)
