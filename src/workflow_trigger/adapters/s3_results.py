"""The bucket for the outputs of completed jobs; memory does not depend on their size."""

import base64
import hashlib
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from email.header import Header
from itertools import chain
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from botocore.exceptions import BotoCoreError, ClientError

from workflow_trigger.domain.document import DocumentKey
from workflow_trigger.domain.errors import ResultsRefused, truncate
from workflow_trigger.domain.matching import is_own_file
from workflow_trigger.domain.model import Document
from workflow_trigger.settings import Settings

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

type Entry = dict[str, Any]

_PART_BYTES = 5 * 1024 * 1024  # the smallest that S3 allows; a smaller output is put in one piece
_KEY_LIMIT_BYTES = 1_024
_ROOM_BYTES = 64_000  # in a row: 25 of them have to go into the 4 MB of a transaction
_NAME_LIMIT_BYTES = 150
_METADATA_LIMIT_BYTES = 300
_HEADERS_LIMIT_BYTES = 2_048


class ResultsBucket:
    """Stores outputs, encrypted with the stack's own key where it has one."""

    def __init__(self, client: "S3Client", kms_key_arn: str | None = None) -> None:
        self._client = client
        encryption = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": kms_key_arn} if kms_key_arn else {}
        self._headers: dict[str, Any] = {"ContentType": "application/json", **encryption}

    def put(self, place: Mapping[str, str], chunks: Iterable[bytes], described_by: Mapping[str, str]) -> None:
        """Store an output, with headers that describe it. Checksums go along, which a bucket with object lock demands.

        Raises:
            ResultsRefused: the bucket does not take it.
        """
        try:
            self._put({"Bucket": place["bucket"], "Key": place["key"]}, chunks, described_by)
        except (ClientError, BotoCoreError) as error:
            raise ResultsRefused(truncate(f"Results cannot be stored in {place['bucket']}: {error}")) from error

    def _put(self, target: dict[str, Any], chunks: Iterable[bytes], described_by: Mapping[str, str]) -> None:
        parts = _regrouped(chunks)
        first: Any = next(parts, bytearray())  # which S3 takes, whatever its stubs say
        described = {**self._headers, "Metadata": described_by}
        if len(first) < _PART_BYTES:
            self._client.put_object(**target, **described, Body=first, ChecksumCRC32=_checksum(first))
            return
        begun = self._client.create_multipart_upload(**target, **described, ChecksumAlgorithm="CRC32")
        target = {**target, "UploadId": begun["UploadId"]}
        try:
            done = [self._put_part(target, number, part) for number, part in enumerate(chain([first], parts), start=1)]
            self._client.complete_multipart_upload(**target, MultipartUpload={"Parts": done})
        except BaseException:
            with suppress(ClientError, BotoCoreError):
                self._client.abort_multipart_upload(**target)
            raise

    def _put_part(self, target: Mapping[str, Any], number: int, part: Any) -> Any:
        checksum = _checksum(part)
        answer = self._client.upload_part(**target, PartNumber=number, Body=part, ChecksumCRC32=checksum)
        return {"PartNumber": number, "ETag": answer["ETag"], "ChecksumCRC32": checksum}


def outputs_of(document: Document, job_id: str, settings: Settings) -> Iterator[tuple[Entry, Entry | None]]:
    """The outputs of a document's file, and where each belongs; None for the first for which its row has no room.

    They are those of the nodes that the file went through; if no node is known, that of the file.
    """
    several_files = len({node["file_id"] for node in document.output_node_files if node.get("file_id")}) > 1
    own_id, name = document.input_file_id, document.upload_name
    own = [node for node in document.output_node_files if _is_of(own_id, name, node.get("file_id"))]
    nodes: Iterable[Mapping[str, str]] = [node for node in own if node.get("file_id")]
    if not own and own_id:
        nodes = [{"file_id": own_id}]
    room_bytes = _ROOM_BYTES
    for node in nodes:
        entry = {field: node[field] for field in ("node_id", "node_type", "node_subtype", "file_id") if field in node}
        in_key = node if several_files else {**node, "file_id": ""}
        place = {**entry, **_place(document.key, job_id, in_key, settings)}
        room_bytes -= len(json.dumps(place))
        yield entry, place if room_bytes >= 0 else None


def _place(key: DocumentKey, job_id: str, node: Mapping[str, str], settings: Settings) -> Entry:
    """Where an output belongs. The job is part of it, so that a slow copy of an old run replaces nothing newer."""
    if not settings.results_bucket:
        return {}
    prefix = settings.results_prefix
    name = result_key(key, job_id, node, _KEY_LIMIT_BYTES - len(prefix.encode()))
    return {"bucket": settings.results_bucket, "key": prefix + name}


def _is_of(own_id: str | None, upload_name: str | None, file_id: str | None) -> bool:
    """Whether an output is of the file with that id. Its own may go on after it, and is known by the token then."""
    return own_id in {None, file_id} or is_own_file(file_id or "", upload_name)


def identity(node: Mapping[str, str]) -> tuple[str | None, str | None]:
    """What tells the outputs of a document apart."""
    return node.get("file_id"), node.get("node_id")


def metadata(entry: Mapping[str, str], document: Document) -> dict[str, str]:
    """What an output is, and what its document's uploader said of it: as headers, of which S3 takes 2 KB in all.

    The document's metadata keep their names, a tag `case` becomes `tag-case`. What does not fit is only in the row.
    """
    headers = {name.replace("_", "-"): _quoted(value[:_METADATA_LIMIT_BYTES]) for name, value in entry.items()}
    labels = {**document.metadata, **{f"tag-{name}": value for name, value in document.tags.items()}}
    for name, value in labels.items():
        more = {quote(name.lower(), safe=""): value if value.isascii() else Header(value, "utf-8").encode(maxlinelen=0)}
        with_more = {**more, **headers}
        if sum(len(part) for pair in with_more.items() for part in pair) <= _HEADERS_LIMIT_BYTES:
            headers = with_more
    return headers


def _quoted(text: str) -> str:
    while len(quote(text)) > _METADATA_LIMIT_BYTES:
        text = text[:-1]  # by characters: half of one could not be read again
    return quote(text)


def result_key(key: DocumentKey, job_id: str, node: Mapping[str, str], limit_bytes: int) -> str:
    """Where an output belongs, below the prefix. An object key that leaves no room is replaced by its digest."""
    plain, short = result_folders(key)
    name = "-".join(filter(None, (node.get("node_type"), node.get("node_id"), node.get("file_id")))) or "output"
    below = f"{_segment(job_id)}/{_segment(name)}.json"
    path = f"{plain}/{below}"
    return path if len(path.encode()) <= limit_bytes else f"{short}/{below}"


def result_folders(key: DocumentKey) -> tuple[str, str]:
    """The two folders below the prefix in which the outputs of an object version can be, as `job/file`."""
    object_key = key.object.removeprefix("s3://").partition("/")[2]
    return f"{_harmless(object_key)}/{_harmless(key.version)}", _digest("\n".join(key))


def local_name(object_key: str, node: Mapping[str, str]) -> str:
    """The relative path of an output on a disk; `node` is empty where its document has no other."""
    kind = "-".join(filter(None, (node.get("node_type"), node.get("node_id"))))
    parts = [_segment(part) for part in _harmless(object_key).split("/") if part] or ["document"]
    return "/".join(parts) + (f".{_segment(kind, 80)}.json" if kind else ".json")


def _segment(text: str, limit_bytes: int = _NAME_LIMIT_BYTES) -> str:
    """One segment of a path. Where it is too long, it is cut, and then told from others that begin alike."""
    name = _harmless(text).replace("/", "-")
    if len(name.encode()) <= limit_bytes:
        return name
    digest = f"-{_digest(name)}"
    return name.encode()[: limit_bytes - len(digest)].decode("utf-8", "ignore") + digest


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _harmless(text: str) -> str:
    """Without control and formatting characters, and without segments that mean another folder."""
    text = "".join(character if character.isprintable() else quote(character) for character in text)
    return re.sub(r"(^|/)(\.{1,2})(?=/|$)", lambda found: found[1] + found[2].replace(".", "%2E"), text)


def _checksum(content: bytearray) -> str:
    return base64.b64encode(zlib.crc32(content).to_bytes(4)).decode()


def _regrouped(chunks: Iterable[bytes]) -> Iterator[bytearray]:
    """The same bytes in parts that are large enough for S3, the last one smaller. All are the same buffer, filled anew.

    A buffer for each part, which grows with every chunk, would leave holes in the memory that the process holds.
    """
    part, filled = bytearray(_PART_BYTES), 0
    for chunk in chunks:
        rest = memoryview(chunk)
        while rest:
            room = min(len(rest), _PART_BYTES - filled)
            part[filled : filled + room] = rest[:room]
            rest, filled = rest[room:], filled + room
            if filled == _PART_BYTES:
                yield part
                filled = 0
    if filled:
        del part[filled:]
        yield part
