"""S3 notifications, EventBridge events, and either inside SQS, or inside SNS inside SQS, as object versions.

Source: https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html
Source: https://docs.aws.amazon.com/AmazonS3/latest/userguide/ev-events.html
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Self
from urllib.parse import unquote_plus

from workflow_trigger.domain.document import Lane, ObjectVersion, batch_name
from workflow_trigger.domain.errors import UnreadableEvent

LANE_FIELD, BATCH_FIELD = "lane", "batch"  # of records that a backfill makes; S3 has none of these names
_ENVELOPES_LIMIT = 4
# S3 writes a percent sign as %25.
_NO_ESCAPE = re.compile("%(?![0-9A-Fa-f]{2})")
_LIMIT_BYTES = 1_024  # of an object key, and of the ledger's sort key


@dataclass(slots=True)
class ParsedEvent:
    """What an event says: object versions to register, what needs no work, and why something could not be read.

    Each list is in the order of the event, so that one bad record never costs its neighbours.
    """

    versions: list[ObjectVersion] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, event: object) -> Self:
        """Read an event or the body of an SQS message, through whatever envelopes it is in."""
        parsed = cls()
        parsed._read(event, depth=0)
        return parsed

    def _read(self, event: object, depth: int) -> None:
        match event:
            case _ if depth > _ENVELOPES_LIMIT:
                self.unreadable.append("too many envelopes")
            case str():
                try:
                    inner = json.loads(event)
                except (ValueError, RecursionError) as error:
                    self.unreadable.append(f"the body is not JSON: {_safe_for_log(error)}")
                else:
                    self._read(inner, depth + 1)
            case {"Event": "s3:TestEvent"}:
                self.skipped.append("S3's test event")
            case {"Records": list(records)}:
                for record in records:
                    self._read_record(_from_s3_record, record)
            case {"detail-type": "Object Created", "source": "aws.s3", "detail": _}:
                self._read_record(_from_eventbridge, event)
            case {"detail-type": str(kind), "source": "aws.s3", "detail": _}:
                self.skipped.append(f"not a creation: {_safe_for_log(kind)}")
            case {"Type": "Notification", "Message": str(message)}:
                self._read(message, depth)
            case _:
                self.unreadable.append("neither an S3 notification nor an EventBridge event of S3")

    def _read_record(self, read: Callable[[object], ObjectVersion | str], record: object) -> None:
        try:
            found = read(record)
        except UnreadableEvent as error:
            self.unreadable.append(str(error))
            return
        if isinstance(found, ObjectVersion):
            self.versions.append(found)
        else:
            self.skipped.append(found)


def _from_s3_record(record: object) -> ObjectVersion | str:
    name = _text(_require(record, "eventName"), "eventName")
    if not name.removeprefix("s3:").startswith("ObjectCreated:"):
        return f"not a creation: {_safe_for_log(name)}"
    # Form-encoded here, and raw in EventBridge's events.
    encoded = _text(_require(record, "s3", "object", "key"), "the object key", limit_bytes=4 * _LIMIT_BYTES)
    unreadable = UnreadableEvent(f"the object key cannot be decoded: {_safe_for_log(encoded)}")
    if _NO_ESCAPE.search(encoded):
        raise unreadable
    try:
        key = unquote_plus(encoded, errors="strict")
    except UnicodeDecodeError:
        raise unreadable from None
    lane = Lane.BULK if _optional(record, LANE_FIELD) == Lane.BULK else Lane.FRESH
    version = _version(_require(record, "s3"), key, _optional(record, "eventTime"))
    batch = batch_name(str(_optional(record, BATCH_FIELD) or ""))
    request_id = _short(_optional(_optional(record, "responseElements"), "x-amz-request-id"))
    return replace(version, lane=lane, batch=batch, request_id=request_id)


def _from_eventbridge(event: object) -> ObjectVersion | str:
    detail = _require(event, "detail")
    version = _version(detail, _require(event, "detail", "object", "key"), _optional(event, "time"))
    return replace(version, request_id=_short(_optional(detail, "request-id")))


def _version(event: object, key: object, uploaded_at: object) -> ObjectVersion:
    """The two kinds of events have the same fields, but for the spelling: `versionId` and `version-id`."""
    s3_object = _require(event, "object")
    fields = s3_object.items() if isinstance(s3_object, Mapping) else ()
    given = {str(name).lower().replace("-", ""): value for name, value in fields}
    size = given.get("size")
    if size is not None and (isinstance(size, bool) or not isinstance(size, int) or not 0 <= size < 2**63):
        raise UnreadableEvent("size is not a number of bytes")
    version = ObjectVersion(
        bucket=_text(_require(event, "bucket", "name"), "bucket name", limit_bytes=255),
        key=_text(key, "the object key"),
        version_id=_absent_if(given.get("versionid"), "null", "version id"),
        etag=_absent_if(given.get("etag"), '""', "etag", strip='"'),
        size_bytes=size,
        sequencer=_absent_if(given.get("sequencer"), "", "sequencer"),
        uploaded_at=_absent_if(uploaded_at, "", "event time"),
    )
    if not version.version_id and not version.etag:
        name = _safe_for_log(version.document_key.object)
        raise UnreadableEvent(f"{name}: neither a version id nor an etag says which object is meant")
    return version


# -- event fields, read with distrust ----------------------------------------------------------------------------------


def _require(value: object, *names: str) -> object:
    for name in names:
        if not isinstance(value, Mapping) or name not in value:
            raise UnreadableEvent(f"the record has no {name}")
        value = value[name]
    return value


def _optional(value: object, name: str) -> object:
    return value.get(name) if isinstance(value, Mapping) else None


def _text(value: object, name: str, limit_bytes: int = _LIMIT_BYTES) -> str:
    if not isinstance(value, str) or not value:
        raise UnreadableEvent(f"{name} is not a text")
    try:
        size_bytes = len(value.encode())
    except UnicodeEncodeError:
        raise UnreadableEvent(f"{name} is not Unicode") from None
    if size_bytes > limit_bytes:
        raise UnreadableEvent(f"{name} is longer than {limit_bytes:,} bytes")
    return value


def _short(value: object) -> str | None:
    """A text that only people read, and that is no reason to refuse an event."""
    return value if isinstance(value, str) and value.isprintable() and 0 < len(value) <= 100 else None


def _absent_if(value: object, nothing: str, name: str, strip: str = "") -> str | None:
    if value is None or value in ("", nothing):
        return None
    text = _text(value, name).strip(strip)
    if not text.isprintable():
        raise UnreadableEvent(f"{name} has characters that cannot be shown")
    return text or None


def _safe_for_log(value: object) -> str:
    """A remote text as it may be logged: escaped, and short."""
    return ascii(str(value))[1:-1][:200]
