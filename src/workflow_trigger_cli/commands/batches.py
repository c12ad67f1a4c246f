"""Batches: documents that are followed together. How far one is, how it ended, and its results as files."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from workflow_trigger.adapters.dynamodb.mapping import Item
from workflow_trigger.adapters.s3_results import local_name
from workflow_trigger.domain.document import batch_name
from workflow_trigger.domain.model import Batch, Status
from workflow_trigger_cli.commands.selection import Choice, select
from workflow_trigger_cli.commands.status import messages_in
from workflow_trigger_cli.errors import CommandError, UsageError
from workflow_trigger_cli.stack import Stack, split_url

POLL_SECONDS = 2.0
_QUIET_SECONDS = 20.0  # without a known number of documents: nothing new came for so long
WELL = frozenset({Status.COMPLETED, Status.SKIPPED, Status.SUPERSEDED})  # that need nobody


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchState:
    """How far a batch is. A document that was run again counts again in `registered` and `finished`, not in `rows`."""

    batch: str
    registered: int
    finished: int
    finished_at: str | None
    rows: dict[str, int]

    @property
    def is_well(self) -> bool:
        """Whether nothing of it needs anybody: all that is known succeeded."""
        return bool(self.rows) and all(Status(name) in WELL for name, count in self.rows.items() if count)


def named(name: str) -> str:
    """The name of a batch.

    Raises:
        UsageError: it cannot be one.
    """
    found = batch_name(name)
    if found is None:
        raise UsageError("A batch has a name of at most 200 characters that can be shown")
    return found


def rows_of_batch(stack: Stack, name: str) -> Iterator[Item]:
    """All rows of a batch; the whole ledger is read for it."""
    return select(stack, Choice(statuses=tuple(Status), batch=named(name)))


def collect_batch(stack: Stack, name: str) -> BatchState:
    """How a batch stands.

    Raises:
        CommandError: no document of it is known.
    """
    counts = Counter(str(row["status"]) for row in rows_of_batch(stack, name))
    batch = stack.ledger().batch(name) or Batch(name=name)
    if not counts and not batch.registered:
        raise _unknown(name)
    return BatchState(
        batch=name,
        registered=batch.registered,
        finished=batch.finished,
        finished_at=batch.finished_at,
        rows={status.value: counts[status] for status in Status},
    )


def _unknown(name: str) -> CommandError:
    return CommandError(
        f"No document of a batch {name} is known. An upload tells its batch when its object is read: "
        "metadata `batch`, as in aws s3 cp --metadata batch=NAME."
    )


def follow(stack: Stack, name: str, documents: int | None, seconds: float | None) -> Iterator[Batch]:
    """How far a batch is, again and again, until all its documents are final.

    With `documents` it waits for so many. Without, for nothing more to come: no event waits to be registered, and no
    document was counted for a while.

    Raises:
        CommandError: the time is over; or no document of the batch is known, and none waits that may be of it.
    """
    ledger, name = stack.ledger(), named(name)
    limit = time.monotonic() + seconds if seconds is not None else None
    before, changed_at = Batch(name=name), time.monotonic()
    while True:
        batch = ledger.batch(name) or Batch(name=name)
        now = time.monotonic()
        if (batch.registered, batch.finished) != (before.registered, before.finished):
            before, changed_at = batch, now
        yield batch
        may_end = batch.is_at_rest or not batch.registered
        if documents is not None:
            if batch.is_at_rest and batch.registered >= documents:
                return
        elif may_end and now - changed_at >= _QUIET_SECONDS and not messages_in(stack, "UploadQueueUrl"):
            if batch.is_at_rest:
                return
            if not ledger.longest_wait_seconds():
                raise _unknown(name)
        if limit is not None and now >= limit:
            if not batch.registered:
                raise CommandError(f"No document of the batch {name} is known yet")
            raise CommandError(f"Not all is final yet: {batch.finished:,} of {batch.registered:,} documents")
        time.sleep(POLL_SECONDS)


@dataclass(frozen=True, kw_only=True, slots=True)
class Fetched:
    """One output as a file: stored now, there already, or gone from the results bucket."""

    path: Path
    state: Literal["stored", "there", "gone"]


def fetch(stack: Stack, name: str, folder: Path) -> Iterator[Fetched]:
    """Store the results of a batch under their documents' names: `KEY.json`, or `KEY.NODE.json` where a file has more.

    A file that is there with the right size is left alone, so that an interrupted command can be repeated.

    Raises:
        CommandError: no document of it is known, or a file cannot be written.
    """
    s3 = stack.client("s3")
    written: dict[Path, str] = {}
    row = None
    for row in rows_of_batch(stack, name):
        entries = [entry for entry in row.get("results", []) if "key" in entry]
        for entry in entries:
            path = folder / local_name(split_url(row["object"])[1], entry if len(entries) > 1 else {})
            if written.setdefault(path, row["version"]) != row["version"]:
                path = path.with_name(f"{path.stem}.{row['version'][:16]}.json")  # another version of the object
            try:
                yield Fetched(path=path, state=_stored(s3, entry, path))
            except OSError as error:
                raise CommandError(f"{path} cannot be written: {error.strerror or error}") from error
    if row is None:
        raise _unknown(name)


def _stored(s3: Any, entry: Item, path: Path) -> Literal["stored", "there", "gone"]:
    try:
        answer = s3.get_object(Bucket=entry["bucket"], Key=entry["key"])
    except s3.exceptions.NoSuchKey:
        return "gone"
    with closing(answer["Body"]) as body:
        if path.is_file() and path.stat().st_size == answer["ContentLength"]:
            return "there"
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f"{path.name}.part")
        with unfinished.open("wb") as target:
            for chunk in body.iter_chunks(1024 * 1024):
                target.write(chunk)
        unfinished.replace(path)
    return "stored"
