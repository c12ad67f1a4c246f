"""Objects that were there before the stack, registered through the same queue as new ones where they are not known.

One page of the listing at a time: neither a million objects nor their rows are ever held in memory. Sending a message
twice changes nothing in the ledger, so an interrupted pass is simply made again.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import batched
from typing import Any
from urllib.parse import quote_plus

from workflow_trigger.adapters.dynamodb.ledger import Ledger
from workflow_trigger.adapters.s3_events import BATCH_FIELD, LANE_FIELD
from workflow_trigger.adapters.s3_listing import listed_versions
from workflow_trigger.domain.clock import iso
from workflow_trigger.domain.document import Lane, ObjectVersion, is_result
from workflow_trigger.domain.model import Status
from workflow_trigger_cli.errors import CommandError
from workflow_trigger_cli.stack import Stack, split_url

_KNOWN_AT_ONCE = 100  # of a BatchGetItem
_RECORDS = 10  # of a message: what one message brings is registered in one piece
_BATCH = 10  # messages of a SendMessageBatch
_BATCH_BYTES = 240_000  # of 256 KB


@dataclass(frozen=True, kw_only=True, slots=True)
class Tally:
    """How far a pass is, in objects (or versions)."""

    listed: int = 0
    skipped: int = 0  # folders, other suffixes, results
    known: int = 0
    skipped_before: int = 0  # of the known: SKIPPED, and wanted by now
    expired: int = 0  # older than the retention: their rows may have expired
    new: int = 0
    new_bytes: int = 0

    def __add__(self, other: "Tally") -> "Tally":
        """Both together."""
        return Tally(
            listed=self.listed + other.listed,
            skipped=self.skipped + other.skipped,
            known=self.known + other.known,
            skipped_before=self.skipped_before + other.skipped_before,
            expired=self.expired + other.expired,
            new=self.new + other.new,
            new_bytes=self.new_bytes + other.new_bytes,
        )


class Backfill:
    """One prefix of the stack's bucket."""

    def __init__(
        self, stack: Stack, url: str, *, all_versions: bool, include_expired: bool, lane: Lane, batch: str | None = None
    ) -> None:
        """Check that the stack would take what is there.

        Raises:
            CommandError: another bucket, or a prefix that the stack does not listen to.
        """
        self._stack = stack
        self._bucket, asked = split_url(url)
        key_prefix = stack.parameters.get("KeyPrefix", "")
        if self._bucket != stack["SourceBucket"]:
            raise CommandError(f"{stack.name} listens to the bucket {stack['SourceBucket']}, not to {self._bucket}")
        if not (asked.startswith(key_prefix) or key_prefix.startswith(asked)):
            raise CommandError(f"{stack.name} takes only keys that begin with {key_prefix}, so it cannot read {url}")
        self._prefix = max(asked, key_prefix, key=len)
        self._selection = stack.selection
        self._suffix = stack.parameters.get("KeySuffix", "")
        self._results = stack.outputs.get("ResultsBucket"), stack.parameters.get("ResultsPrefix", "")
        self._sqs = stack.client("sqs")
        self._ledger: Ledger = stack.ledger()
        self._all_versions = all_versions
        self._lane = lane
        self._batch = batch
        kept_since = datetime.now(UTC) - stack.retention
        expires = stack.retention and kept_since > stack.created_at and not include_expired
        self._kept_since = iso(kept_since) if expires else ""

    def run(self, *, send: bool, progress: Callable[[Tally], None]) -> Tally:
        """One pass over the prefix; without `send` it only counts. `progress` is called after every hundred."""
        tally = Tally()
        listed = listed_versions(self._stack.client("s3"), self._bucket, self._prefix, old_ones=self._all_versions)
        for few in batched(listed, _KNOWN_AT_ONCE, strict=False):
            wanted = [each for each in few if self._is_wanted(each)]
            known = self._ledger.documents([each.document_key for each in wanted])
            unknown = [each for each in wanted if each.document_key not in known]
            new = [each for each in unknown if (each.uploaded_at or "") >= self._kept_since]
            if send:
                self._send(new)
            tally += Tally(
                listed=len(few),
                skipped=len(few) - len(wanted),
                known=len(wanted) - len(unknown),
                skipped_before=sum(each.status is Status.SKIPPED for each in known.values()),
                expired=len(unknown) - len(new),
                new=len(new),
                new_bytes=sum(each.size_bytes or 0 for each in new),
            )
            progress(tally)
        return tally

    # -- the bucket ----------------------------------------------------------------------------------------------------

    def _is_wanted(self, version: ObjectVersion) -> bool:
        """As the function and the bucket's notification would have it."""
        is_own = is_result(version.bucket, version.key, *self._results)
        is_selected = self._selection.reason_against(version.key, version.size_bytes) is None
        return version.key.endswith(self._suffix) and is_selected and not is_own

    # -- the queue -----------------------------------------------------------------------------------------------------

    def _send(self, versions: list[ObjectVersion]) -> None:
        bodies = [self._message(few) for few in batched(versions, _RECORDS, strict=False)]
        batch: list[str] = []
        for body in bodies:
            if batch and (len(batch) == _BATCH or sum(map(len, batch)) + len(body) > _BATCH_BYTES):
                self._send_batch(batch)
                batch = []
            batch.append(body)
        if batch:
            self._send_batch(batch)

    def _send_batch(self, bodies: list[str]) -> None:
        entries = [{"Id": str(number), "MessageBody": body} for number, body in enumerate(bodies)]
        answer = self._sqs.send_message_batch(QueueUrl=self._stack["UploadQueueUrl"], Entries=entries)
        if answer.get("Failed"):
            reason = answer["Failed"][0].get("Message") or answer["Failed"][0].get("Code")
            raise CommandError(
                f"The upload queue did not take {len(answer['Failed'])} messages: {reason}. Do it again."
            )

    def _message(self, versions: tuple[ObjectVersion, ...]) -> str:
        """An S3 notification, as the bucket itself would have sent it."""
        return json.dumps({"Records": [self._record(version) for version in versions]})

    def _record(self, version: ObjectVersion) -> dict[str, Any]:
        s3_object = {
            "key": quote_plus(version.key),
            "size": version.size_bytes,
            "eTag": version.etag,
            "versionId": version.version_id,
        }
        return {
            "eventVersion": "2.1",
            "eventSource": "aws:s3",
            "awsRegion": self._stack.region,
            "eventTime": version.uploaded_at,
            "eventName": "ObjectCreated:Put",
            LANE_FIELD: self._lane,
            **({BATCH_FIELD: self._batch} if self._batch else {}),
            "s3": {
                "bucket": {"name": version.bucket},
                "object": {name: value for name, value in s3_object.items() if value is not None},
            },
        }
