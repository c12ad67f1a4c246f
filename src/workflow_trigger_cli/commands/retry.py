"""`retry`: select documents with a final status, count them, and put them back into the queue."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from workflow_trigger.adapters.dynamodb.mapping import Item, deserialize
from workflow_trigger.domain.clock import iso
from workflow_trigger.domain.document import Lane, route_of
from workflow_trigger.domain.model import FINAL, Status
from workflow_trigger_cli.commands.find import rows_of
from workflow_trigger_cli.errors import UsageError
from workflow_trigger_cli.stack import Stack, split_url

UNSUCCESSFUL = (Status.FAILED, Status.STOPPED, Status.REJECTED)
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """Which rows. `ended_before` and `ended_after` are ISO 8601, UTC; no status, no error type: any of them."""

    statuses: tuple[Status, ...] = UNSUCCESSFUL
    error_types: tuple[str, ...] = ()
    prefix: str | None = None
    object: str | None = None
    version: str | None = None
    ended_before: str
    ended_after: str | None = None

    def __post_init__(self) -> None:
        """Check the choice.

        Raises:
            UsageError: it can choose nothing.
        """
        wrong = [status for status in self.statuses if status not in FINAL]
        if wrong:
            raise UsageError(f"{wrong[0]} is not final: such a row is on its way already")
        for url in (self.prefix, self.object):
            if url is not None:
                split_url(url)
        if self.version is not None and self.object is None:
            raise UsageError("--version goes with --object")

    def includes(self, row: Item) -> bool:
        """Whether a row is selected."""
        return (
            row["status"] in self.statuses
            and (not self.error_types or (row.get("error") or {}).get("type") in self.error_types)
            and row["object"].startswith(self.prefix or "")
            and self.version in {None, row["version"]}
            and (self.ended_after or "") <= row["updated_at"] <= self.ended_before
        )


def moment_before_now(age: str) -> str:
    """`90s`, `30m`, `2h` or `7d` → the moment so long ago, as the ledger writes it.

    Raises:
        UsageError: it is none of these.
    """
    found = re.fullmatch(r"(\d{1,5})([smhd])", age)
    if not found:
        raise UsageError(f"'{age}' is not an age like 90s, 30m, 2h or 7d")
    return iso(datetime.now(UTC) - timedelta(**{_UNITS[found[2]]: int(found[1])}))


def select(stack: Stack, choice: Choice) -> Iterator[Item]:
    """The rows, page by page; all of one object are a query, anything else reads the whole ledger."""
    rows = rows_of(stack, choice.object) if choice.object is not None else _scanned(stack, choice)
    return filter(choice.includes, rows)


def count(rows: Iterable[Item]) -> Counter[tuple[str, str]]:
    """How many there are, by status and type of error."""
    return Counter((str(row["status"]), str((row.get("error") or {}).get("type", "-"))) for row in rows)


def reopen(stack: Stack, rows: Iterable[Item], lane: Lane, progress: Callable[[], None]) -> int:
    """Put rows back into the queue; those that have changed since are left out. Returns how many went."""
    ledger = stack.ledger()
    done = 0
    for row in rows:
        done += ledger.reopen(row, lane, route_of(split_url(row["object"])[1], stack.routes))
        progress()
    return done


def _scanned(stack: Stack, choice: Choice) -> Iterator[Item]:
    names = {f":s{number}": {"S": status.value} for number, status in enumerate(choice.statuses)}
    condition = f"#status IN ({', '.join(names)})"
    values: dict[str, Any] = dict(names)
    if choice.prefix:
        condition += " AND begins_with(#object, :prefix)"
        values[":prefix"] = {"S": choice.prefix}
    attributes = {"#status": "status"} | ({"#object": "object"} if choice.prefix else {})
    pages = (
        stack.client("dynamodb")
        .get_paginator("scan")
        .paginate(
            TableName=stack["LedgerTable"],
            FilterExpression=condition,
            ExpressionAttributeNames=attributes,
            ExpressionAttributeValues=values,
        )
    )
    yield from (deserialize(item) for page in pages for item in page["Items"])
