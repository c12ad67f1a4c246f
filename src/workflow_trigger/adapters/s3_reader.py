"""S3: objects opened under the event's pin, read in chunks, resumed where a read breaks."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from email.errors import MessageError
from email.header import decode_header, make_header
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError
from urllib3.exceptions import HTTPError

from workflow_trigger.domain.document import ObjectVersion, bounded_labels
from workflow_trigger.domain.errors import ObjectDenied, ObjectGone, ObjectOverwritten, ObjectUnreadable, SourceError
from workflow_trigger.domain.media_types import encoded_as, extension_of, media_type

if TYPE_CHECKING:
    from botocore.response import StreamingBody
    from mypy_boto3_s3 import S3Client

CHUNK_BYTES = 1792 * 1024  # measured: smaller ones cost calls, larger ones do not stay in the processor's caches
_RESUMES = 4  # in a row, without a single byte between them

_GONE = {"NoSuchKey", "NoSuchVersion", "NoSuchBucket", "NotFound", "404", "MethodNotAllowed", "405"}
_ARCHIVED = {"InvalidObjectState"}
_OVERWRITTEN = {"PreconditionFailed", "412", "InvalidRange", "416"}
_DENIED = {"AccessDenied", "Forbidden", "403", "AllAccessDisabled"}
_DENIED |= {"InvalidRequest", "InvalidArgument"}  # encrypted with a key of the uploader's own, for one


@dataclass(slots=True)
class OpenObject:
    """An object whose first bytes are on their way. Read once, from the beginning to the end."""

    client: "S3Client"
    version: ObjectVersion
    length_bytes: int
    content_type: str
    name_suffix: str  # '', or the extension that says how the bytes are encoded
    body: "StreamingBody"
    labels: Mapping[str, Mapping[str, str]]  # its `metadata`, and its `tags` where they are read

    def chunks(self) -> Iterator[bytes]:
        """All bytes, at most 1.75 MiB at a time.

        Raises:
            SourceError: they could not be had in full.
        """
        sent = 0
        resumes = 0
        while sent < self.length_bytes:
            try:
                chunk = self.body.read(CHUNK_BYTES)
                fault: Exception | None = None
            except (BotoCoreError, HTTPError, OSError) as error:
                chunk, fault = b"", error
            if chunk:
                sent += len(chunk)
                resumes = 0
                yield chunk
                continue
            # Reading beyond the end would say so; a body that ends early is as broken as one that fails.
            if resumes == _RESUMES:
                raise ObjectUnreadable(f"S3 stopped delivering {self.version.document_key.object}") from fault
            resumes += 1
            self.close()
            self.body = _get(self.client, self.version, Range=f"bytes={sent}-")["Body"]

    def close(self) -> None:
        """Give the connection up; half-read, it cannot be used again."""
        self.body.close()


class ObjectReader:
    """The buckets that events come from."""

    def __init__(self, client: "S3Client", *, reads_tags: bool = False) -> None:
        self._client = client
        self._reads_tags = reads_tags

    def open(self, version: ObjectVersion) -> OpenObject:
        """Begin to download exactly the bytes of the event.

        Raises:
            ObjectGone, ObjectOverwritten, ObjectDenied, ObjectUnreadable
        """
        tags = self._tags(version) if self._reads_tags else {}
        answer = _get(self._client, version)
        metadata = {name: _decoded(value) for name, value in answer.get("Metadata", {}).items()}
        plain = media_type(answer.get("ContentType"), version.key), ""
        kind, suffix = encoded_as(answer.get("ContentEncoding")) or plain
        return OpenObject(
            client=self._client,
            version=version,
            length_bytes=answer["ContentLength"],
            content_type=kind,
            name_suffix="" if suffix == f".{extension_of(version.key)}" else suffix,
            body=answer["Body"],
            labels={"metadata": bounded_labels(metadata), "tags": tags},
        )

    def _tags(self, version: ObjectVersion) -> dict[str, str]:
        pin: Any = {"VersionId": version.version_id} if version.version_id else {}
        with _translated(f"the tags of {version.document_key.object}"):
            answer = self._client.get_object_tagging(Bucket=version.bucket, Key=version.key, **pin)
        return bounded_labels({each["Key"]: each["Value"] for each in answer["TagSet"]})


def _get(client: "S3Client", version: ObjectVersion, **more: Any) -> Any:
    pin = {"VersionId": version.version_id} if version.version_id else {"IfMatch": f'"{version.etag}"'}
    with _translated(version.document_key.object):
        return client.get_object(Bucket=version.bucket, Key=version.key, **pin, **more)  # type: ignore[arg-type]


def _decoded(value: str) -> str:
    """S3 gives values of other alphabets as mail has them in its headers.

    Source: https://docs.aws.amazon.com/AmazonS3/latest/userguide/UsingMetadata.html
    """
    try:
        return str(make_header(decode_header(value)))
    except (LookupError, ValueError, MessageError):
        return value


@contextmanager
def _translated(name: str) -> Iterator[None]:
    """What S3 answers, as what it means for a document."""
    try:
        yield
    except ClientError as error:
        raise _error_of(error.response.get("Error", {}).get("Code", ""), name) from error
    except (BotoCoreError, HTTPError, OSError) as error:
        raise ObjectUnreadable(f"S3 did not answer for {name}: {type(error).__name__}") from error


def _error_of(code: str, name: str) -> SourceError:
    if code in _GONE:
        return ObjectGone(f"Not there any more ({code}): {name}")
    if code in _ARCHIVED:
        return ObjectGone(f"Archived; restore it and retry ({code}): {name}")
    if code in _OVERWRITTEN:
        return ObjectOverwritten(f"Overwritten since the event ({code}): {name}")
    if code in _DENIED or code.startswith("KMS."):
        return ObjectDenied(f"The function is not allowed to read it ({code}): {name}")
    return ObjectUnreadable(f"S3 could not deliver it ({code}): {name}")
