"""`report`: what was processed, in groups: documents, bytes, pages, jobs, outcomes, waits, money."""

import csv
import io
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from workflow_trigger.adapters.dynamodb.mapping import Item, deserialize
from workflow_trigger.domain.clock import parse_time
from workflow_trigger.domain.model import FINAL, Status
from workflow_trigger_cli.stack import Stack, split_url

_READ = ("object", "status", "size", "pages", "job_id", "route", "batch", "queued_at", "created_at", "updated_at")
_STEP = math.log(1.05)  # waits are kept in classes of 5 %


class By(StrEnum):
    """What makes a group."""

    DAY = "day"
    HOUR = "hour"
    PREFIX = "prefix"
    ROUTE = "route"
    BATCH = "batch"


@dataclass(slots=True)
class Group:
    """Documents that ended. Its memory depends on the number of jobs, by some bytes each, and on nothing else."""

    name: str
    documents: int = 0
    size_bytes: int = 0
    pages: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    _jobs: set[int] = field(default_factory=set)
    _waits: Counter[int] = field(default_factory=Counter)

    def add(self, row: Item) -> None:
        """Count a row."""
        self.documents += 1
        self.size_bytes += int(row.get("size") or 0)
        self.pages += int(row.get("pages") or 0)
        self.outcomes[str(row["status"])] += 1
        if "job_id" in row:
            self._jobs.add(hash(row["job_id"]))
        queued, begun = parse_time(row.get("queued_at")), parse_time(row.get("created_at"))
        if queued and begun:
            seconds = max((begun - queued).total_seconds(), 0.0)
            self._waits[round(math.log(seconds + 1) / _STEP)] += 1

    def wait_seconds(self, share: float) -> float | None:
        """How long this share of the documents waited for their job at most, to 5 %."""
        limit, seen = share * self._waits.total(), 0
        for step, count in sorted(self._waits.items()):
            seen += count
            if seen >= limit:
                return round(math.exp(step * _STEP) - 1, 1)
        return None

    def figures(self, price_per_page: float | None) -> dict[str, Any]:
        """The group as a line of a table."""
        return {
            "group": self.name,
            "documents": self.documents,
            "bytes": self.size_bytes,
            "pages": self.pages,
            "jobs": len(self._jobs),
            **{status.value.lower(): self.outcomes[status] for status in Status if status in FINAL},
            "wait_p50_seconds": self.wait_seconds(0.5),
            "wait_p95_seconds": self.wait_seconds(0.95),
            **({"cost": round(self.pages * price_per_page, 2)} if price_per_page is not None else {}),
        }


def collect(rows: Iterable[Item], by: By) -> list[Group]:
    """The groups of the rows that are final, in the order of their names, then all together."""
    groups: dict[str, Group] = {}
    total = Group("total")
    for row in rows:
        if row["status"] in FINAL:
            name = _group_of(row, by)
            groups.setdefault(name, Group(name)).add(row)
            total.add(row)
    return [*(groups[name] for name in sorted(groups)), total]


def rows(stack: Stack, since: str) -> Iterator[Item]:
    """What a report needs of the rows that were written since then: the whole ledger is read, a page at a time."""
    read = stack.scanned(
        FilterExpression="attribute_exists(#status) AND #updated_at >= :since",
        ProjectionExpression=", ".join(f"#{name}" for name in _READ),
        ExpressionAttributeNames={f"#{name}": name for name in _READ},
        ExpressionAttributeValues={":since": {"S": since}},
    )
    return map(deserialize, read)


def as_csv(lines: Sequence[Mapping[str, Any]]) -> str:
    """The lines as CSV, with a head. What a spreadsheet would take for a formula gets an apostrophe."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(lines[0]), lineterminator="\n")
    writer.writeheader()
    for line in lines:
        name = str(line["group"])
        writer.writerow({**line, "group": f"'{name}" if name[:1] in {"=", "+", "-", "@"} else name})
    return text.getvalue()


def _group_of(row: Item, by: By) -> str:
    match by:
        case By.DAY:
            return str(row["updated_at"][:10])
        case By.HOUR:
            return str(row["updated_at"][:13])
        case By.PREFIX:
            key = split_url(row["object"])[1]
            return key.partition("/")[0] + "/" if "/" in key else ""
        case By.ROUTE:
            return str(row.get("route", ""))
        case By.BATCH:
            return str(row.get("batch", ""))
