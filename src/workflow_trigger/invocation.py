"""What one invocation works with: the adapters, the settings, the time that is left."""

import random
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from aws_lambda_powertools import Logger

from workflow_trigger.clock import Clock, Deadline, iso, parse_time
from workflow_trigger.decisions import backoff_seconds, is_overdue, pick_batch
from workflow_trigger.errors import Throttled, Unavailable
from workflow_trigger.ledger import Ledger
from workflow_trigger.model import Move, Row, Status, Workflow
from workflow_trigger.platform_api import ANSWER_SECONDS, Platform
from workflow_trigger.settings import Settings
from workflow_trigger.source import Source

type Count = Callable[[str, int], None]

MINIMUM_SECONDS = ANSWER_SECONDS + 120.0  # an invocation with less time left begins no attempt

logger = Logger(child=True)


class Invocation:
    """Handed to the use cases, which find everything here that reaches outside of them."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        source: Source,
        platform: Platform,
        settings: Settings,
        clock: Clock,
        deadline: Deadline,
        count: Count,
    ) -> None:
        self.ledger = ledger
        self.source = source
        self.platform = platform
        self.settings = settings
        self.clock = clock
        self.deadline = deadline
        self.count = count

    def has_time(self) -> bool:
        """Whether the invocation may still begin an attempt."""
        return self.deadline.remaining_seconds() > MINIMUM_SECONDS

    def line(self, fresh: Sequence[Row]) -> list[Row]:
        """The rows that may go now, oldest first: enough for every workflow."""
        limit = 25 * (len(self.settings.workflow_ids) + 1)
        rows = {row.key: row for row in [*fresh, *self.ledger.line.head(limit)]}
        return sorted(rows.values(), key=lambda row: row.eligible_at or "")

    def pick(self, workflow: Workflow, line: Sequence[Row]) -> list[Row]:
        """The batch that goes next to this workflow.

        One that takes nothing gets a single file to try: the others are not bound to it, and may go elsewhere.
        """
        return pick_batch(
            line,
            workflow_id=workflow.workflow_id,
            pool=self.settings.workflow_ids,
            lost=workflow.lost_rows,
            max_files=1 if workflow.setbacks > 1 else self.settings.max_files_per_run,
            max_bytes=self.settings.max_bytes_per_run,
        )

    def put_off(self, row: Row, sets: dict[str, Any]) -> Move:
        """Back into the line, to travel alone, and later with every failure, so that the others go first."""
        failures = row.failures + 1
        again = iso(self.backoff(failures))
        return Move(key=row.key, to=Status.PENDING, sets=sets | {"failures": failures, "eligible_at": again})

    def advance(self, before: Workflow, after: Workflow, moves: Sequence[Move]) -> Workflow:
        """Write a step of a workflow and its rows; rows that have moved on meanwhile are left alone.

        Raises:
            AttemptLost, LedgerUnavailable: as `Ledger.advance`.
        """
        written, left_out = self.ledger.advance(before, after, moves)
        for key in left_out:
            logger.info("row has moved on", object_key=key.object, version=key.version)
        return written

    def documents_since(self, moment: str | None) -> Callable[[str], Sequence[str]]:
        """How to ask for a job's documents; a quarter of an hour after `moment`, without an answer, there are none."""

        @cache
        def documents(job_id: str) -> Sequence[str]:
            try:
                return self.platform.documents(job_id)
            except (Throttled, Unavailable):
                if not is_overdue(parse_time(moment), self.clock.now()):
                    raise
                return []

        return documents

    def noted(self, error: Mapping[str, str]) -> dict[str, str]:
        """An error as a workflow keeps it: with its time."""
        return {**error, "at": iso(self.clock.now())}

    def later(self, seconds: float) -> datetime:
        """The time in so many seconds."""
        return self.clock.now() + timedelta(seconds=seconds)

    def backoff(self, times: int) -> datetime:
        """When to try again after so many failures."""
        return self.later(backoff_seconds(times, random.random()))  # noqa: S311
