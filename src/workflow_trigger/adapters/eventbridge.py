"""Final documents, published on EventBridge so that others can go on from there."""

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import batched
from typing import TYPE_CHECKING, Any

from workflow_trigger.domain.errors import EventsRefused

if TYPE_CHECKING:
    from mypy_boto3_events import EventBridgeClient

SOURCE = "unstructured.workflow-trigger"
DETAIL_TYPE = "unstructured.job-status-changed"

_ENTRIES = 10  # of one call
_LIMIT_BYTES = 240_000  # EventBridge takes 256 KB an entry and a call, all fields counted
_LONG_FIELDS = ("runs", "output_node_files", "results")  # left out of an event that would be too large


class EventPublisher:
    """Puts rows on the account's default bus, at least once each."""

    def __init__(self, client: "EventBridgeClient", *, stack: str) -> None:
        self._client = client
        self._stack = stack

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

    def _put(self, details: Sequence[str]) -> None:
        entries: list[Any] = [{"Source": SOURCE, "DetailType": DETAIL_TYPE, "Detail": detail} for detail in details]
        answer = self._client.put_events(Entries=entries)
        if answer["FailedEntryCount"]:
            codes = {entry.get("ErrorCode") for entry in answer["Entries"]} - {None}
            raise EventsRefused(f"EventBridge did not take {answer['FailedEntryCount']} events: {codes}")


def detail_of(row: Mapping[str, Any], stack: str) -> str:
    """A row as the detail of an event: its attributes, and the stack that it belongs to."""
    detail = json.dumps({"stack": stack, **row}, default=str)
    for name in _LONG_FIELDS:
        if len(detail) <= _LIMIT_BYTES:
            break
        row = {each: value for each, value in row.items() if each != name}
        detail = json.dumps({"stack": stack, **row, "shortened": True}, default=str)
    return detail
