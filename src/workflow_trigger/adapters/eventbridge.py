"""Final documents and finished batches, published on EventBridge so that others can go on from there.

`event-schema.json` in the documentation has the fields. Bytes count: EventBridge limits an entry and a call.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import batched
from typing import TYPE_CHECKING, Any

from workflow_trigger.domain.errors import EventsRefused
from workflow_trigger.domain.model import Batch

if TYPE_CHECKING:
    from mypy_boto3_events import EventBridgeClient

SOURCE = "unstructured.workflow-trigger"
DETAIL_TYPE = "unstructured.job-status-changed"
BATCH_DETAIL_TYPE = "unstructured.batch-finished"
SCHEMA_VERSION = 1  # of both; it changes when a field loses its meaning, not when one is added

_ENTRIES = 10  # of one call
_LIMIT_BYTES = 240_000  # EventBridge takes 256 KB an entry and a call, all fields counted
_LONG_FIELDS = ("runs", "output_node_files", "results")  # left out of an event that would be too large


class EventPublisher:
    """Puts rows and batches on a bus, at least once each."""

    def __init__(self, client: "EventBridgeClient", *, stack: str, bus: str = "default") -> None:
        self._client = client
        self._stack = stack
        self._bus = bus

    def put(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Publish rows.

        Raises:
            EventsRefused: EventBridge did not take them all.
        """
        for few in batched(rows, _ENTRIES, strict=False):
            details = [detail_of(row, self._stack) for row in few]
            if sum(map(len, details)) > _LIMIT_BYTES:
                for detail in details:
                    self._put([detail])
            else:
                self._put(details)

    def put_batch(self, batch: Batch) -> None:
        """Publish that all documents of a batch are final.

        Raises:
            EventsRefused: EventBridge did not take it.
        """
        detail = {"schema_version": SCHEMA_VERSION, "stack": self._stack, "batch": batch.name}
        self._put([json.dumps({**detail, "documents": batch.registered})], BATCH_DETAIL_TYPE)

    def _put(self, details: Sequence[str], kind: str = DETAIL_TYPE) -> None:
        common = {"Source": SOURCE, "DetailType": kind, "EventBusName": self._bus}
        entries: list[Any] = [{**common, "Detail": detail} for detail in details]
        answer = self._client.put_events(Entries=entries)
        if answer["FailedEntryCount"]:
            codes = {entry.get("ErrorCode") for entry in answer["Entries"]} - {None}
            raise EventsRefused(f"EventBridge did not take {answer['FailedEntryCount']} events: {codes}")


def detail_of(row: Mapping[str, Any], stack: str) -> str:
    """A row as the detail of an event: its attributes, and the stack that it belongs to."""
    common = {"schema_version": SCHEMA_VERSION, "stack": stack}
    detail = json.dumps({**common, **row}, default=str)
    for name in _LONG_FIELDS:
        if len(detail) <= _LIMIT_BYTES:
            break
        row = {each: value for each, value in row.items() if each != name}
        detail = json.dumps({**common, **row, "shortened": True}, default=str)
    return detail
