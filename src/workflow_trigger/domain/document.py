"""Object versions as events name them, which of them are wanted, and the names under which they are sent."""

import hashlib
import re
import unicodedata
import uuid
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import NamedTuple


class DocumentKey(NamedTuple):
    """The ledger's primary key."""

    object: str
    version: str


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


def why_unwanted(bucket: str, key: str, size_bytes: int | None, results: tuple[str | None, str]) -> str | None:
    """Why an object is not a document to be processed, or None. `results`: bucket and prefix of our own outputs."""
    if key.endswith("/") and size_bytes == 0:
        return "a folder"
    return "a result of ours" if bucket == results[0] and key.startswith(results[1]) else None


def canonical_id(workflow_id: str) -> str:
    """A UUID in its usual spelling, for it has several, and answers may have another than the setting."""
    try:
        return str(uuid.UUID(workflow_id))
    except ValueError:
        return workflow_id


_STEM_LIMIT = 40  # characters; the platform loses files with long names without an error


def upload_name(key: DocumentKey, attempt_id: str) -> str:
    """The file name that is sent: an ASCII stem (at most 40 characters), a token, the extension.

    The token names the document and the attempt, so that whatever the platform sends back names both.
    """
    path = PurePosixPath(key.object)
    ascii_stem = unicodedata.normalize("NFKD", path.stem).encode("ascii", "ignore").decode()
    stem = re.sub(r"[^A-Za-z0-9]+", "-", ascii_stem)[:_STEM_LIMIT].strip("-") or "document"
    extension = path.suffix if re.fullmatch(r"\.[A-Za-z0-9]{1,10}", path.suffix) else ""
    identity = "\n".join((*key, attempt_id)).encode("utf-8", "surrogatepass")
    return f"{stem}-{hashlib.sha256(identity).hexdigest()[:16]}{extension}"
