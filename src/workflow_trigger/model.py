"""Rows and workflows: what the ledger knows, and how a row's status may change."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, Self

from workflow_trigger.clock import iso
from workflow_trigger.job import Baseline, Job
from workflow_trigger.objects import ObjectVersion, RowKey


class Status(StrEnum):
    """Where an object version stands."""

    PENDING = "PENDING"  # in the line
    SUBMITTING = "SUBMITTING"  # in an attempt whose outcome is not known yet
    SCHEDULED = "SCHEDULED"  # accepted by the platform
    IN_PROGRESS = "IN_PROGRESS"  # the platform works on it, or its end is being confirmed
    COMPLETED = "COMPLETED"  # this file succeeded
    FAILED = "FAILED"  # this file failed, or its job did
    STOPPED = "STOPPED"  # its job was stopped
    REJECTED = "REJECTED"  # never ran: gone, too slow to stream, or refused by the platform
    SUPERSEDED = "SUPERSEDED"  # never ran: overwritten before it was read


FINAL = frozenset({Status.COMPLETED, Status.FAILED, Status.STOPPED, Status.REJECTED, Status.SUPERSEDED})
RUNNING = frozenset({Status.SCHEDULED, Status.IN_PROGRESS})
ENDED = frozenset({Status.COMPLETED, Status.FAILED, Status.STOPPED})

# PENDING goes to a running state directly when a job turns up that a lost attempt had started after all. A running row
# goes on as running when its job changes, or when a workflow takes up a job that had lost its workflow's item.
TRANSITIONS: Mapping[Status, frozenset[Status]] = {
    Status.PENDING: frozenset({Status.SUBMITTING}) | RUNNING,
    Status.SUBMITTING: frozenset({Status.PENDING, Status.REJECTED, Status.SUPERSEDED}) | RUNNING,
    Status.SCHEDULED: RUNNING | ENDED,
    Status.IN_PROGRESS: RUNNING | ENDED,
    **dict.fromkeys(FINAL, frozenset({Status.PENDING})),  # a later event, or an operator's retry
}


def sources_of(target: Status) -> frozenset[Status]:
    """The states from which a row may go to `target`."""
    return frozenset(source for source, targets in TRANSITIONS.items() if target in targets)


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """What the use cases need of a ledger row. `seen` is its `updated_at` when it was read."""

    source: ObjectVersion
    status: Status
    seen: str
    eligible_at: str | None
    queued_at: str | None = None  # when it came into the line, however often its turn was put off
    attempt_id: str | None = None
    bound_to: str | None = None  # the workflow in which a lost attempt may still turn up
    bound_since: str | None = None  # only jobs that are not older than this may be that attempt's; the platform's time
    workflow_id: str | None = None
    job_id: str | None = None
    failures: int = 0
    strikes: int = 0
    accepted_count_then: int | None = None  # of the workflow, when the last strike was counted
    slow_tries: int = 0
    earlier_job_ids: tuple[str, ...] = ()
    input_file_id: str | None = None  # this and the next two are not in the index
    output_node_files: tuple[Mapping[str, str], ...] = ()
    results: tuple[Mapping[str, str], ...] = ()

    @property
    def key(self) -> RowKey:
        """The row's primary key."""
        return self.source.row_key


class Phase(StrEnum):
    """What a workflow is doing for us."""

    IDLE = "idle"
    SUBMITTING = "submitting"  # an attempt streams; provably nothing runs yet
    COMMITTED = "committed"  # the last bytes may have been sent; the answer is not recorded
    RUNNING = "running"  # a job is active


@dataclass(frozen=True, kw_only=True, slots=True)
class Workflow:
    """One workflow's item: its phase and, while it is not idle, the attempt. `revision` changes with every write."""

    workflow_id: str
    phase: Phase = Phase.IDLE
    revision: str | None = None
    attempt_id: str | None = None
    rows: tuple[RowKey, ...] = ()
    baseline: Baseline = field(default_factory=Baseline)
    started_at: str | None = None
    committed_at: str | None = None
    lease_ends_at: str | None = None
    lost_rows: tuple[RowKey, ...] = ()  # of the last attempt whose answer was lost: its job may still turn up
    job_id: str | None = None
    job_status: str | None = None
    doubtful_since: str | None = None  # the job is missing, or its end cannot be confirmed, since then
    results_since: str | None = None  # the job has ended, and outputs of it are waited for, since then
    not_before: str | None = None
    accepted_count: int = 0  # files, ever
    setbacks: int = 0  # attempts in a row that never came to an answer
    refusals: int = 0  # single files refused in a row, nothing accepted between
    last_error: Mapping[str, str] | None = None

    @property
    def is_at_work(self) -> bool:
        """Whether files of ours are on their way, or in a job."""
        return self.phase is not Phase.IDLE and bool(self.rows)

    def is_free(self, now: datetime) -> bool:
        """Whether an attempt may start."""
        return self.phase is Phase.IDLE and (self.not_before is None or self.not_before <= iso(now))

    def lease_has_ended(self, now: datetime) -> bool:
        """Whether the invocation that made the attempt is to be taken for dead."""
        return self.lease_ends_at is None or self.lease_ends_at <= iso(now)

    def released(self, *, not_before: datetime | None = None, error: Mapping[str, str] | None = None) -> Self:
        """Idle again. Lost rows and the baseline stay: their job is looked for once more with them."""
        known = self.baseline.ids | {self.job_id} if self.job_id else self.baseline.ids
        return replace(
            self,
            phase=Phase.IDLE,
            baseline=replace(self.baseline, ids=known),
            attempt_id=None,
            lease_ends_at=None,
            committed_at=None,
            job_id=None,
            job_status=None,
            doubtful_since=None,
            results_since=None,
            not_before=iso(not_before) if not_before else None,
            last_error=error or self.last_error,
        )

    def running(self, job: Job, *, rows: tuple[RowKey, ...]) -> Self:
        """Runs `job`, which holds the given rows' files; no rows: a stranger's."""
        return replace(
            self,
            phase=Phase.RUNNING,
            rows=rows,
            job_id=job.id,
            job_status=job.status,
            lease_ends_at=None,
            lost_rows=() if rows else self.lost_rows,
            doubtful_since=None,
            results_since=None,
            not_before=None,
            accepted_count=self.accepted_count + len(rows),
            setbacks=0,
            refusals=0 if rows else self.refusals,
            last_error=None if rows else self.last_error,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Move:
    """One row's next step. `sets` are ledger attributes beside the status, None removes one."""

    key: RowKey
    to: Status
    sets: Mapping[str, Any] = field(default_factory=dict)
    seen: str | None = None  # for a row that waits: as it was when it was read; else the attempt is the condition
    sequencer: str | None = None  # only while no later event of the key has come; '': none has, but for a backfill
