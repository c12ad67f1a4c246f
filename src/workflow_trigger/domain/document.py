"""Object versions as events name them, which of them are wanted, and the names under which they are sent."""

import hashlib
import re
import unicodedata
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from itertools import accumulate
from pathlib import PurePosixPath
from typing import NamedTuple

from workflow_trigger.domain.errors import printable
from workflow_trigger.domain.media_types import SUPPORTED, extension_of, without_query


class DocumentKey(NamedTuple):
    """The ledger's primary key."""

    object: str
    version: str


class Lane(StrEnum):
    """Who goes first in the queue."""

    FRESH = "fresh"  # uploads
    BULK = "bulk"  # documents of a backfill or a retry


@dataclass(frozen=True, slots=True)
class Route:
    """Documents under a key prefix, the workflows that take them, and where below `ResultsPrefix` their results go."""

    key_prefix: str
    workflow_ids: tuple[str, ...]
    results_prefix: str = ""


def route_of(key: str, routes: Iterable[Route]) -> str:
    """The key prefix of an object's route, the longest one that fits; '' is the route of all others."""
    return max((each.key_prefix for each in routes if key.startswith(each.key_prefix)), key=len, default="")


def queue_of(lane: Lane, route: str) -> str:
    """The queue of a lane and a route, as rows name it."""
    return f"{lane}/{route}" if route else lane.value


@dataclass(frozen=True, kw_only=True, slots=True)
class ObjectVersion:
    """One object version, as an event names it. `etag` is without quotes; `size_bytes` may be unknown."""

    bucket: str
    key: str
    version_id: str | None
    etag: str | None
    size_bytes: int | None
    sequencer: str | None
    uploaded_at: str | None
    lane: Lane = Lane.FRESH
    request_id: str | None = None  # S3's, of the upload
    batch: str | None = None  # the name under which an operator, or the uploader, follows it with others

    @property
    def document_key(self) -> DocumentKey:
        """`s3://bucket/key`, and the version id, or the etag where the bucket has no versions."""
        return DocumentKey(f"s3://{self.bucket}/{self.key}", self.version_id or self.etag or "")


def is_later(sequencer: str | None, than: str | None) -> bool:
    """Whether one event of a key came after another.

    Source: https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html
    """
    if not sequencer or not than:
        return False
    width = max(len(sequencer), len(than))
    return sequencer.upper().ljust(width, "0") > than.upper().ljust(width, "0")


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """Which objects are documents. Patterns are globs over whole keys, without regard to case; `*` includes slashes."""

    include: tuple[str, ...] = ()  # none: all
    exclude: tuple[str, ...] = ()
    min_bytes: float = 1
    max_bytes: int | None = None
    only_supported: bool = False  # the extensions that the vendor names

    def reason_against(self, key: str, size_bytes: int | None) -> str | None:
        """Why an object is skipped; None where it is a document."""
        folded = _folded(key)
        if key.endswith("/") or folded.endswith("_$folder$"):
            return "a folder marker"
        if self.include and not _matches(folded, self.include):
            return "matches none of IncludePatterns"
        if _matches(folded, self.exclude):
            return "matches one of ExcludePatterns"
        if self.only_supported and extension_of(key) not in SUPPORTED:
            return "has no extension that the platform supports"
        if size_bytes is not None and size_bytes < self.min_bytes:
            return "empty" if not size_bytes else f"smaller than MinBytes ({self.min_bytes:,})"
        if self.max_bytes is not None and (size_bytes or 0) > self.max_bytes:
            return f"larger than MaxMegabytesPerFile ({self.max_bytes / 1_000_000:,g})"
        return None


def is_result(bucket: str, key: str, results_bucket: str | None, results_prefix: str) -> bool:
    """Whether an object is one of the stack's own results, which are never documents."""
    return bucket == results_bucket and key.startswith(results_prefix)


def _matches(folded_key: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(folded_key, _folded(pattern)) for pattern in patterns)


def _folded(text: str) -> str:
    """Without regard to case, and to how an accent is composed: tools of macOS may upload it as a letter of its own."""
    return unicodedata.normalize("NFC", text).casefold()


LABELS_LIMIT_BYTES = 4_096  # of an object's metadata, of which S3 takes 2 KB, and of its tags, of which it takes ten


def bounded_labels(labels: Mapping[str, str]) -> dict[str, str]:
    """As many labels as there is room for, the small ones first, without what cannot be printed or stored."""
    sizes_bytes = {name: len((name + value).encode("utf-8", "replace")) for name, value in labels.items() if name}
    small_first = sorted(sizes_bytes, key=lambda name: sizes_bytes[name])
    total_bytes = accumulate(sizes_bytes[name] for name in small_first)
    kept = {name for name, size in zip(small_first, total_bytes, strict=True) if size <= LABELS_LIMIT_BYTES}
    return {printable(name): printable(value) for name, value in labels.items() if name in kept}


def batch_name(text: str | None) -> str | None:
    """The name of a batch, as far as it can be one: at most 200 characters that can be shown."""
    name = (text or "").strip()
    return name if name == printable(name) and 0 < len(name) <= 200 else None


def canonical_id(workflow_id: str) -> str:
    """A UUID in its usual spelling, for it has several, and answers may have another than the setting."""
    return workflow_id if is_workflow_key(workflow_id) else str(uuid.UUID(workflow_id))


def is_workflow_key(workflow_id: str) -> bool:
    """Whether a workflow is named by its key, which the workspace chose, and not by its UUID."""
    try:
        uuid.UUID(workflow_id)
    except ValueError:
        return True
    return False


_STEM_LIMIT = 40  # characters; the platform loses files with long names without an error


def upload_name(key: DocumentKey, attempt_id: str) -> str:
    """The file name that is sent: an ASCII stem (at most 40 characters), a token, the extension.

    The token names the document and the attempt, so that whatever the platform sends back names both.
    """
    whole_stem = PurePosixPath(without_query(key.object)).stem
    ascii_stem = unicodedata.normalize("NFKD", whole_stem).encode("ascii", "ignore").decode()
    stem = re.sub(r"[^A-Za-z0-9]+", "-", ascii_stem)[:_STEM_LIMIT].strip("-") or "document"
    extension = extension_of(key.object)
    identity = "\n".join((*key, attempt_id)).encode("utf-8", "surrogatepass")
    return f"{stem}-{hashlib.sha256(identity).hexdigest()[:16]}{extension and f'.{extension}'}"
