"""The next batch of the queue."""

from collections.abc import Iterable
from datetime import datetime

from workflow_trigger.domain.clock import has_passed
from workflow_trigger.domain.model import Document, Workflow

_AVOID_SECONDS = 600  # a document keeps away from the workflow on which it failed last


def next_batch(
    queue: Iterable[Document],
    workflow: Workflow,
    *,
    pool_size: int,
    max_files: int,
    max_bytes: int,
    now: datetime,
) -> list[Document]:
    """The documents that go next to this workflow, oldest first: at most so many files and bytes, the first always.

    A batch is half as large for every failure that its documents, or the workflow, have had: so a culprit is soon
    alone, and a workflow that is at fault itself holds few documents. Only documents with equally many failures travel
    together, for one that failed more often would slow the others down.
    """
    open_to_us = [each for each in queue if not (pool_size > 1 and _failed_here(each, workflow, now))]
    if not open_to_us:
        return []
    first, *rest = open_to_us
    limit = max(max_files >> max(first.failures, workflow.consecutive_failures), 1)
    batch, total_bytes = [first], first.source.size_bytes or 0
    for each in rest:
        size_bytes = each.source.size_bytes or 0
        if len(batch) == limit or total_bytes + size_bytes > max_bytes:
            break
        if each.failures == first.failures:
            batch.append(each)
            total_bytes += size_bytes
    return batch


def _failed_here(document: Document, workflow: Workflow, now: datetime) -> bool:
    """Whether this is where the document failed, not long ago: another workflow tells whose fault it was."""
    failed_here = document.failures > 0 and document.workflow_id == workflow.workflow_id
    return failed_here and not has_passed(document.read_at, now, seconds=_AVOID_SECONDS)
