"""Object versions as events name them, and the names under which the platform gets to know them."""

import hashlib
import re
import unicodedata
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import NamedTuple


class RowKey(NamedTuple):
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
    def row_key(self) -> RowKey:
        """`s3://bucket/key`, and the version id, or the etag where the bucket has no versions."""
        return RowKey(f"s3://{self.bucket}/{self.key}", self.version_id or self.etag or "")


def is_later(sequencer: str | None, than: str | None) -> bool:
    """Whether one event of a key came after another.

    Source: https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html
    """
    if not sequencer or not than:
        return False
    width = max(len(sequencer), len(than))
    return sequencer.upper().ljust(width, "0") > than.upper().ljust(width, "0")


def token_of(key: RowKey) -> str:
    """16 hexadecimal digits that name a row in the names and ids which the platform sends back."""
    return hashlib.sha256("\n".join(key).encode("utf-8", "surrogatepass")).hexdigest()[:16]


_STEM_LIMIT = 40  # the platform loses files with long names without an error


def upload_name(key: RowKey) -> str:
    """The file name that is sent: ASCII stem (at most 40), the row's token, the extension."""
    path = PurePosixPath(key.object)
    ascii_stem = unicodedata.normalize("NFKD", path.stem).encode("ascii", "ignore").decode()
    stem = re.sub(r"[^A-Za-z0-9]+", "-", ascii_stem)[:_STEM_LIMIT].strip("-") or "document"
    extension = path.suffix if re.fullmatch(r"\.[A-Za-z0-9]{1,10}", path.suffix) else ""
    return f"{stem}-{token_of(key)}{extension}"
