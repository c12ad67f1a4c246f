"""The next batch of the queue."""

from collections.abc import Iterable
from datetime import datetime

from workflow_trigger.domain.clock import has_passed
from workflow_trigger.domain.model import Document, Workflow

_AVOID_SECONDS = 600  # a document keeps away from the workflow on which it failed: another one tells whose fault it was


def next_batch(
    queue: Iterable[Document], workflow: Workflow, *, pool_size: int, max_files: int, max_bytes: int, now: datetime
) -> list[Document]:
    """The documents that go next to this workflow, oldest first: at most so many files and bytes, the first always.

    A batch is half as large for every failure that its documents, or the workflow, have had: so a culprit is soon
    alone, and a workflow that is at fault itself holds few documents. Only documents with equally many failures travel
    together, for one that failed more often would slow the others down.
    """
    batch: list[Document] = []
    limit, room_bytes = 1, max_bytes
    for each in queue:
        failed_here = each.failures and each.workflow_id == workflow.workflow_id
        if pool_size > 1 and failed_here and not has_passed(each.read_at, now, seconds=_AVOID_SECONDS):
            continue
        if not batch:
            limit = max(max_files >> max(each.failures, workflow.consecutive_failures), 1)
        elif len(batch) == limit or (each.source.size_bytes or 0) > room_bytes:
            break
        if not batch or each.failures == batch[0].failures:
            batch.append(each)
            room_bytes -= each.source.size_bytes or 0
    return batch
