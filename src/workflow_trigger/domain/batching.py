"""The next batch of the queue."""

from collections.abc import Iterable
from datetime import datetime

from workflow_trigger.domain.clock import has_passed
from workflow_trigger.domain.document import Lane
from workflow_trigger.domain.model import Document, Workflow

_BULK_TURN = 4  # one batch in so many begins with documents of the bulk lane
_AVOID_SECONDS = 600  # another workflow tells whose fault a failure was


def in_turn(waiting: Iterable[Document], workflow: Workflow, max_files: int) -> list[Document]:
    """The queue in the order in which it goes: fresh uploads first, the longest in the queue before the others.

    One batch in four begins with the bulk lane, by lot, so that a backfill goes on however many are uploaded. It leaves
    a quarter of its places to uploads, so that a single one goes with the next batch whoever has the turn.
    """
    by_age = sorted(waiting, key=lambda each: each.eligible_at or "")
    fresh = [each for each in by_age if each.source.lane is Lane.FRESH]
    bulk = [each for each in by_age if each.source.lane is Lane.BULK]
    if not is_turn_of_bulk(workflow):
        return fresh + bulk
    left = min(len(fresh), max_files // 4)
    own = max_files - left
    return [*bulk[:own], *fresh[:left], *bulk[own:], *fresh[left:]]


def is_turn_of_bulk(workflow: Workflow) -> bool:
    """Whether the next batch begins with the bulk lane. The revision, drawn anew with every write, is the lot."""
    return int(workflow.revision or "0", 16) % _BULK_TURN == 1


def keeps_away(document: Document, workflow: Workflow, pool_size: int, now: datetime) -> bool:
    """Whether a document goes to another workflow of the pool: on this one it has failed not long ago."""
    failed_here = document.failures and document.workflow_id == workflow.workflow_id
    return bool(failed_here) and pool_size > 1 and not has_passed(document.read_at, now, seconds=_AVOID_SECONDS)


def next_batch(
    queue: Iterable[Document], workflow: Workflow, *, pool_size: int, max_files: int, max_bytes: int, now: datetime
) -> list[Document]:
    """The documents that go next to this workflow, in the queue's order; so many files and bytes, the first always.

    A batch is half as large for every failure that its documents, or the workflow, have had: so a culprit is soon
    alone, and a workflow that is at fault itself holds few documents. Only documents with equally many failures travel
    together, for one that failed more often would slow the others down.
    """
    batch: list[Document] = []
    limit, room_bytes = 1, max_bytes
    for each in queue:
        if keeps_away(each, workflow, pool_size, now):
            continue
        if not batch:
            limit = max(max_files >> max(each.failures, workflow.consecutive_failures), 1)
        elif each.failures != batch[0].failures:
            continue
        elif len(batch) == limit or (each.source.size_bytes or 0) > room_bytes:
            break
        batch.append(each)
        room_bytes -= each.source.size_bytes or 0
    return batch
