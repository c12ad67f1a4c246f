"""`retry`: put documents with a final status back into the queue."""

from collections.abc import Callable, Iterable

from workflow_trigger.adapters.dynamodb.mapping import Item
from workflow_trigger.domain.document import Lane, route_of
from workflow_trigger.domain.model import FINAL, Status
from workflow_trigger_cli.errors import UsageError
from workflow_trigger_cli.stack import Stack, split_url

UNSUCCESSFUL = (Status.FAILED, Status.STOPPED, Status.REJECTED)


def final(statuses: Iterable[Status]) -> tuple[Status, ...]:
    """The statuses of which documents can be run again; without any, those that are no success.

    Raises:
        UsageError: one is not final.
    """
    chosen = tuple(statuses) or UNSUCCESSFUL
    for status in chosen:
        if status not in FINAL:
            raise UsageError(f"{status} is not final: such a row is on its way already")
    return chosen


def reopen(stack: Stack, rows: Iterable[Item], lane: Lane, progress: Callable[[], None]) -> int:
    """Put rows back into the queue; those that have changed since are left out. Returns how many went."""
    ledger = stack.ledger()
    done = 0
    for row in rows:
        done += ledger.reopen(row, lane, route_of(split_url(row["object"])[1], stack.routes))
        progress()
    return done
