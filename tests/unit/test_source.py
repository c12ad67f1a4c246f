"""Reads that break are resumed by range, under the same pin; what cannot be read is told apart."""

from typing import Any
from unittest.mock import Mock

import boto3
import pytest
from botocore.exceptions import ClientError, ReadTimeoutError

from workflow_trigger.adapters.s3_owner import expect_owner
from workflow_trigger.adapters.s3_reader import ObjectReader
from workflow_trigger.domain.document import ObjectVersion
from workflow_trigger.domain.errors import ObjectDenied, ObjectGone, ObjectOverwritten, ObjectUnreadable

CONTENT = bytes(range(256)) * 8_192  # two chunks


class Body:
    """A body that breaks after so many bytes."""

    def __init__(self, content: bytes, breaks_after: int | None, *, silently: bool) -> None:
        self.content, self.breaks_after, self.silently, self.position = content, breaks_after, silently, 0

    def read(self, amount: int) -> bytes:
        end = min(self.position + amount, len(self.content))
        if self.breaks_after is not None and end > self.breaks_after:
            if self.position >= self.breaks_after:
                if self.silently:
                    return b""
                raise ReadTimeoutError(endpoint_url="s3")
            end = self.breaks_after
        chunk = self.content[self.position : end]
        self.position = end
        return chunk

    def close(self) -> None:
        pass


class S3:
    """Answers GetObject; each answer breaks after `breaks` bytes."""

    def __init__(self, breaks: list[int | None], *, silently: bool = False, then: str | None = None) -> None:
        self.breaks, self.silently, self.then = breaks, silently, then
        self.calls: list[dict[str, Any]] = []

    def get_object(self, **arguments: Any) -> dict[str, Any]:
        self.calls.append(arguments)
        if self.then and len(self.calls) > 1:
            raise ClientError({"Error": {"Code": self.then, "Message": ""}}, "GetObject")
        start = int(arguments.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        breaks = self.breaks.pop(0) if self.breaks else None
        content = CONTENT[start:]
        return {"ContentLength": len(content), "Body": Body(content, breaks, silently=self.silently)}


def version(version_id: str | None = None) -> ObjectVersion:
    return ObjectVersion(
        bucket="b", key="k.pdf", version_id=version_id, etag="abc", size_bytes=1, sequencer=None, uploaded_at=None
    )


def read(s3: S3, version_id: str | None = None) -> bytes:
    opened = ObjectReader(s3).open(version(version_id))  # type: ignore[arg-type]
    assert opened.length_bytes == len(CONTENT)
    assert opened.content_type == "application/pdf"
    return b"".join(opened.chunks())


@pytest.mark.parametrize("silently", [True, False])
def test_a_read_that_breaks_goes_on_where_it_stopped(silently: bool) -> None:
    s3 = S3([1_000, 0, 1_500_000], silently=silently)
    assert read(s3) == CONTENT
    assert [call.get("Range") for call in s3.calls] == [None, "bytes=1000-", "bytes=1000-", "bytes=1501000-"]
    assert all(call["IfMatch"] == '"abc"' for call in s3.calls)


def test_a_version_is_pinned_by_its_id() -> None:
    s3 = S3([10])
    assert read(s3, "v7") == CONTENT
    assert all(call["VersionId"] == "v7" and "IfMatch" not in call for call in s3.calls)


def test_a_read_that_never_gets_on_ends() -> None:
    with pytest.raises(ObjectUnreadable):
        read(S3([0] * 50))


def test_an_object_that_is_overwritten_half_way_is_told() -> None:
    with pytest.raises(ObjectOverwritten):
        read(S3([10], then="PreconditionFailed"))


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("NoSuchKey", ObjectGone),
        ("NoSuchVersion", ObjectGone),
        ("NoSuchBucket", ObjectGone),
        ("MethodNotAllowed", ObjectGone),
        ("InvalidObjectState", ObjectGone),
        ("PreconditionFailed", ObjectOverwritten),
        ("AccessDenied", ObjectDenied),
        ("KMS.DisabledException", ObjectDenied),
        ("SlowDown", ObjectUnreadable),
        ("InternalError", ObjectUnreadable),
    ],
)
def test_what_s3_says_is_told_apart(code: str, error: type[Exception]) -> None:
    class Refusing:
        def get_object(self, **_: Any) -> None:
            raise ClientError({"Error": {"Code": code, "Message": ""}}, "GetObject")

    with pytest.raises(error):
        ObjectReader(Refusing()).open(version())  # type: ignore[arg-type]


def test_owner_is_demanded_in_every_call_to_a_bucket_that_is_not_ours() -> None:
    client = boto3.client("s3", region_name="us-east-1")
    expect_owner(client, {"theirs", ""}, "111122223333")
    sent: list[dict[str, Any]] = []

    def instead(params: dict[str, Any], **_: Any) -> Any:
        sent.append(dict(params["headers"]))
        return Mock(status_code=200), {}

    client.meta.events.register("before-call.s3", instead)
    for bucket in ("theirs", "ours"):
        client.get_object(Bucket=bucket, Key="k")
        client.put_object(Bucket=bucket, Key="k", Body=b"")
        client.list_objects_v2(Bucket=bucket)
        client.get_bucket_versioning(Bucket=bucket)
    owners = [headers.get("x-amz-expected-bucket-owner") for headers in sent]
    assert owners == ["111122223333"] * 4 + [None] * 4
