"""Which documents a command is about: by status, error, place, batch and age."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from workflow_trigger.adapters.dynamodb.mapping import Item, deserialize
from workflow_trigger.domain.clock import iso
from workflow_trigger.domain.model import FINAL, Status
from workflow_trigger_cli import advice
from workflow_trigger_cli.commands.find import rows_of
from workflow_trigger_cli.errors import UsageError
from workflow_trigger_cli.stack import Stack, split_url

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """Which rows. `before` and `after` are ISO 8601, UTC: when a row ended, or came into the queue where it is open.

    What is not given includes all.
    """

    statuses: tuple[Status, ...]
    error_types: tuple[str, ...] = ()
    prefix: str | None = None
    object: str | None = None
    version: str | None = None
    batch: str | None = None
    before: str = "9"
    after: str = ""

    def __post_init__(self) -> None:
        """Check the choice.

        Raises:
            UsageError: it can choose nothing.
        """
        for url in (self.prefix, self.object):
            if url is not None:
                split_url(url)
        if self.version is not None and self.object is None:
            raise UsageError("--version goes with --object")

    def includes(self, row: Item) -> bool:
        """Whether a row is selected. One that was forgotten never is."""
        since = str(row["updated_at"] if row["status"] in FINAL else row.get("queued_at", row["updated_at"]))
        return (
            row["status"] in self.statuses
            and "forgotten_at" not in row
            and (not self.error_types or advice.kind_of(row.get("error")) in self.error_types)
            and row["object"].startswith(self.prefix or "")
            and self.version in {None, row["version"]}
            and self.batch in {None, row.get("batch")}
            and self.after <= since <= self.before
        )


def error_types(given: Iterable[str] | None) -> tuple[str, ...]:
    """Values of `--error`.

    Raises:
        UsageError: one is the type of no error.
    """
    chosen = tuple(map(advice.kind_of, given or ()))
    for each in chosen:
        if each not in advice.OF_ERROR:
            raise UsageError(f"There is no error {each}. There are: {', '.join(advice.OF_ERROR)}")
    return chosen


def moment_before_now(age: str) -> str:
    """`90s`, `30m`, `2h` or `7d` → the moment so long ago, as the ledger writes it.

    Raises:
        UsageError: it is none of these.
    """
    return iso(datetime.now(UTC) - timedelta(seconds=age_seconds(age)))


def age_seconds(age: str) -> float:
    """`90s`, `30m`, `2h` or `7d` → seconds.

    Raises:
        UsageError: it is none of these.
    """
    found = re.fullmatch(r"(\d{1,5})([smhd])", age)
    if not found:
        raise UsageError(f"'{age}' is not an age like 90s, 30m, 2h or 7d")
    return timedelta(**{_UNITS[found[2]]: int(found[1])}).total_seconds()


def select(stack: Stack, choice: Choice) -> Iterator[Item]:
    """The rows, page by page; all of one object are a query, anything else reads the whole ledger.

    What was skipped and is still not wanted is selected by its object alone.
    """
    if choice.object is not None:
        return filter(choice.includes, rows_of(stack, choice.object))
    selection = stack.selection

    def is_wanted(row: Item) -> bool:
        key = split_url(row["object"])[1]
        return row["status"] != Status.SKIPPED or selection.reason_against(key, row.get("size")) is None

    return filter(is_wanted, filter(choice.includes, _scanned(stack, choice)))


def count(rows: Iterable[Item]) -> Counter[tuple[str, str]]:
    """How many there are, by status and type of error."""
    return Counter((str(row["status"]), str((row.get("error") or {}).get("type", "-"))) for row in rows)


def _scanned(stack: Stack, choice: Choice) -> Iterator[Item]:
    names = {f":s{number}": {"S": status.value} for number, status in enumerate(choice.statuses)}
    condition = f"#status IN ({', '.join(names)})"
    values: dict[str, Any] = dict(names)
    attributes = {"#status": "status"}
    if choice.prefix:
        condition += " AND begins_with(#object, :prefix)"
        values[":prefix"], attributes["#object"] = {"S": choice.prefix}, "object"
    if choice.batch:
        condition += " AND #batch = :batch"
        values[":batch"], attributes["#batch"] = {"S": choice.batch}, "batch"
    read = stack.scanned(
        FilterExpression=condition, ExpressionAttributeNames=attributes, ExpressionAttributeValues=values
    )
    return map(deserialize, read)
