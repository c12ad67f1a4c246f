"""Outputs of completed jobs, streamed from the platform to a bucket; memory does not depend on their size."""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from botocore.exceptions import BotoCoreError, ClientError

from workflow_trigger.errors import KeyNotSet, KeyRejected, Misconfigured, NotFound, PlatformError
from workflow_trigger.items import LEFT_OUT
from workflow_trigger.model import Row
from workflow_trigger.objects import RowKey, token_of
from workflow_trigger.platform_api import Platform

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

type Entry = dict[str, Any]

_PART_BYTES = 8 * 1024 * 1024  # of a multipart upload; a smaller output is put in one piece
_KEY_LIMIT_BYTES = 1_024
_ROOM_BYTES = 64_000  # in a row: 25 of them have to go into the 4 MB of a transaction
_NAME_LIMIT_BYTES = 150
_METADATA_LIMIT_BYTES = 300


class Results:
    """The place under which outputs are stored: `prefix/<object key>/<version>/<node type>-<node id>.json`."""

    def __init__(self, client: "S3Client", *, bucket: str, prefix: str) -> None:
        self._client = client
        self._bucket = bucket
        self._prefix = prefix

    def store(self, platform: Platform, job_id: str, row: Row, has_time: Callable[[], bool]) -> list[Entry]:
        """Copy the outputs of a row's file that are not in its `results` yet.

        The answer has an entry for every output: where it is, or that it is `delayed`, or `absent` at the platform,
        which both call for another try. Copying again replaces the same objects.

        Raises:
            Misconfigured: the bucket does not take them, or the key is not accepted.
        """
        done = {_identity(entry): dict(entry) for entry in row.results if "key" in entry}
        entries: list[Entry] = []
        room_bytes = _ROOM_BYTES
        for node in _outputs(row):
            entry = done.get(_identity(node))
            place = self._place(row, node)
            # Before it is copied, for what no row names would be found by nobody.
            if entry is None and _size(place) <= room_bytes:
                entry = self._copy(platform, job_id, node, place, has_time)
            room_bytes -= _size(entry or place)
            if entry is None or room_bytes < 0:
                return [*entries, {"missing": LEFT_OUT}]
            entries.append(entry)
        entries += [dict(node) for node in row.output_node_files if "missing" in node]
        return entries or [{"absent": "the platform names no outputs"}]

    def _place(self, row: Row, node: Mapping[str, str]) -> Entry:
        named = node if is_of_several_files(row.output_node_files) else {**node, "file_id": ""}
        key = self._prefix + result_key(row.key, named, _KEY_LIMIT_BYTES - len(self._prefix))
        return {**_described(node), "bucket": self._bucket, "key": key}

    def _copy(
        self, platform: Platform, job_id: str, node: Mapping[str, str], place: Entry, has_time: Callable[[], bool]
    ) -> Entry:
        entry = _described(node)
        if not has_time():
            return {**entry, "delayed": "the invocation ended before its turn"}
        try:
            with platform.download(job_id, node["file_id"], node.get("node_id")) as chunks:
                self._put(place["key"], chunks, metadata({"job_id": job_id, **entry}))
        except NotFound as error:
            return {**entry, "absent": str(error)}
        except (KeyRejected, KeyNotSet):
            raise
        except PlatformError as error:
            return {**entry, "delayed": str(error)}
        except (ClientError, BotoCoreError) as error:
            raise Misconfigured(f"Results cannot be stored in {self._bucket}: {error}") from error
        return place

    def _put(self, key: str, chunks: Iterable[bytes], described_by: Mapping[str, str]) -> None:
        target: dict[str, Any] = {"Bucket": self._bucket, "Key": key}
        described: dict[str, Any] = {"ContentType": "application/json", "Metadata": described_by}
        parts = _regrouped(chunks)
        first = next(parts, b"")
        if len(first) < _PART_BYTES:
            self._client.put_object(**target, **described, Body=first)
            return
        target["UploadId"] = self._client.create_multipart_upload(**target, **described)["UploadId"]
        try:
            done = [self._put_part(target, number, part) for number, part in enumerate(_chain(first, parts), start=1)]
            self._client.complete_multipart_upload(**target, MultipartUpload={"Parts": done})
        except BaseException:
            self._client.abort_multipart_upload(**target)
            raise

    def _put_part(self, target: Mapping[str, Any], number: int, part: bytes) -> Any:
        answer = self._client.upload_part(**target, PartNumber=number, Body=part)
        return {"PartNumber": number, "ETag": answer["ETag"]}


def metadata(entry: Mapping[str, str]) -> dict[str, str]:
    """What an output is, for whoever finds it in the bucket: as headers, of which S3 takes 2 KB."""
    return {name.replace("_", "-"): _quoted(value[:_METADATA_LIMIT_BYTES]) for name, value in entry.items()}


def _quoted(text: str) -> str:
    while len(quote(text)) > _METADATA_LIMIT_BYTES:
        text = text[:-1]  # by letters: half of one could not be read again
    return quote(text)


def result_key(key: RowKey, node: Mapping[str, str], limit_bytes: int) -> str:
    """Where an output of a row belongs, below the prefix. A key that leaves no room is replaced by the row's token."""
    object_key = key.object.removeprefix("s3://").partition("/")[2]
    name = "-".join(filter(None, (node.get("node_type"), node.get("node_id"), node.get("file_id")))) or "output"
    file_name = _within(_harmless(name).replace("/", "-"), _NAME_LIMIT_BYTES) + ".json"
    path = f"{_harmless(object_key)}/{_harmless(key.version)}/{file_name}"
    return path if len(path.encode()) <= limit_bytes else f"{token_of(key)}/{file_name}"


def is_of_several_files(nodes: Iterable[Mapping[str, str]]) -> bool:
    """Whether outputs name more than one file."""
    return len({node["file_id"] for node in nodes if node.get("file_id")}) > 1


def _within(name: str, limit_bytes: int) -> str:
    """A name, cut where it is too long, and then told from others that begin alike."""
    if len(name.encode()) <= limit_bytes:
        return name
    digest = "-" + hashlib.sha256(name.encode()).hexdigest()[:16]
    return name.encode()[: limit_bytes - len(digest)].decode("utf-8", "ignore") + digest


def _harmless(text: str) -> str:
    """Without control and formatting characters, and without segments that mean another folder."""
    text = "".join(letter if letter.isprintable() else quote(letter) for letter in text)
    return re.sub(r"(^|/)(\.{1,2})(?=/|$)", lambda found: found[1] + found[2].replace(".", "%2E"), text)


def _described(node: Mapping[str, str]) -> Entry:
    return {name: node[name] for name in ("node_id", "node_type", "node_subtype", "file_id") if name in node}


def _size(entry: Entry) -> int:
    return len(json.dumps(entry))


def _identity(node: Mapping[str, str]) -> tuple[str | None, str | None]:
    return node.get("file_id"), node.get("node_id")


def _outputs(row: Row) -> Iterator[Mapping[str, str]]:
    """The nodes that a row's file went through; without any knowledge of them, the file by itself."""
    own = [node for node in row.output_node_files if row.input_file_id in {None, node.get("file_id")}]
    yield from (node for node in own if node.get("file_id"))
    if not own and row.input_file_id:
        yield {"file_id": row.input_file_id}


def _regrouped(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes in parts of the size that S3 wants, the last one smaller."""
    buffer = bytearray()
    for chunk in chunks:
        buffer += chunk
        while len(buffer) >= _PART_BYTES:
            yield bytes(buffer[:_PART_BYTES])
            del buffer[:_PART_BYTES]
    if buffer:
        yield bytes(buffer)


def _chain(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest
