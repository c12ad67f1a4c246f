"""Relays objects from a stand-in for S3 to a sink, in processes of their own, and prints its own peak memory in KB.

Started by `test_memory.py`; the objects are bytes that nobody stores.
"""

import contextlib
import sys
from unittest.mock import Mock

import boto3
from botocore.config import Config

from local.function_process import peak_kb
from local.loopback import server
from workflow_trigger.adapters.s3_reader import ObjectReader
from workflow_trigger.adapters.unstructured.api_key import ApiKey
from workflow_trigger.adapters.unstructured.client import PlatformClient
from workflow_trigger.adapters.unstructured.connections import Connections
from workflow_trigger.adapters.unstructured.multipart import Encoder, Part
from workflow_trigger.domain.clock import Clock, Deadline
from workflow_trigger.domain.document import ObjectVersion


def _part(source: ObjectReader, number: int, size: int) -> Part:
    version = ObjectVersion(
        bucket="bucket", key=str(size), version_id=None, etag="e", size_bytes=size, sequencer=None, uploaded_at=None
    )
    opened = source.open(version)
    return Part(
        filename=f"{number}.pdf",
        content_type=opened.content_type,
        length_bytes=opened.length_bytes,
        chunks=opened.chunks,
    )


def main(sizes: list[int]) -> None:
    """Relay objects of these sizes in one run."""
    with contextlib.ExitStack() as ends:
        *objects, sink = [ends.enter_context(server()) for _ in [*sizes, "sink"]]
        _relay(sizes, objects, sink)
        print(peak_kb())


def _relay(sizes: list[int], objects: list[str], sink: str) -> None:
    secret = Mock(get_secret_value=lambda **_: {"SecretString": "a-key-of-some-length"})
    deadline = Deadline.in_seconds(Clock(), 900)
    platform = PlatformClient(
        api_url=sink, api_key=ApiKey(secret, "arn"), connections=Connections(sink), deadline=deadline
    )
    parts = []
    for number, (size, url) in enumerate(zip(sizes, objects, strict=True)):
        config = Config(s3={"addressing_style": "path"}, response_checksum_validation="when_required")
        client = boto3.client(
            "s3",
            endpoint_url=url,
            region_name="us-east-1",
            aws_access_key_id="test",
            aws_secret_access_key="test",
            config=config,
        )
        parts.append(_part(ObjectReader(client), number, size))
    job = platform.run("workflow", Encoder(parts, boundary="boundary"), lambda _seconds: None)
    assert job.id


if __name__ == "__main__":
    main([int(argument) for argument in sys.argv[1:]])
