"""Documents, workflows and attempts: what the ledger knows, and how a status may change."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, Self

from workflow_trigger.domain.clock import iso
from workflow_trigger.domain.document import DocumentKey, ObjectVersion
from workflow_trigger.domain.doubt import Doubtful
from workflow_trigger.domain.errors import Busy
from workflow_trigger.domain.job import Job


class Status(StrEnum):
    """Where an object version stands."""

    PENDING = "PENDING"  # in the queue
    SUBMITTING = "SUBMITTING"  # in an attempt whose outcome is not known yet
    SCHEDULED = "SCHEDULED"  # accepted by the platform
    IN_PROGRESS = "IN_PROGRESS"  # the platform works on it, or its end is being confirmed, or its results are copied
    COMPLETED = "COMPLETED"  # this file succeeded
    FAILED = "FAILED"  # this file failed, or its job did
    STOPPED = "STOPPED"  # its job was stopped, or it was cancelled while it waited
    REJECTED = "REJECTED"  # never ran: gone, too slow to stream, or refused by the platform
    SUPERSEDED = "SUPERSEDED"  # never ran: overwritten before it was read
    SKIPPED = "SKIPPED"  # never ran: not wanted, by the parameters of the stack


RUNNING = frozenset({Status.SCHEDULED, Status.IN_PROGRESS})
ENDED = frozenset({Status.COMPLETED, Status.FAILED, Status.STOPPED})
FINAL = ENDED | {Status.REJECTED, Status.SUPERSEDED, Status.SKIPPED}

# A document stays SUBMITTING, or running, when its job changes, or when it is taken up again.
TRANSITIONS: Mapping[Status, frozenset[Status]] = {
    Status.PENDING: frozenset({Status.SUBMITTING, Status.SUPERSEDED, Status.STOPPED}),
    Status.SUBMITTING: frozenset({Status.SUBMITTING, Status.PENDING, Status.REJECTED, Status.SUPERSEDED}) | RUNNING,
    Status.SCHEDULED: RUNNING | ENDED,
    Status.IN_PROGRESS: RUNNING | ENDED,
    **dict.fromkeys(FINAL, frozenset({Status.PENDING})),  # a later event, or an operator's retry
}


def sources_of(target: Status) -> frozenset[Status]:
    """The states from which a document may go to `target`."""
    return frozenset(source for source, targets in TRANSITIONS.items() if target in targets)


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """An object version and how it stands. `read_at` is its `updated_at` when it was read; times are ISO 8601, UTC.

    What a document from the index does not have, for the index does not carry it: the attributes from `upload_name` on.
    """

    source: ObjectVersion
    status: Status
    read_at: str
    eligible_at: str | None = None  # not before this, and in this order
    attempt_id: str | None = None
    workflow_id: str | None = None  # where it runs, or was tried last
    failures: int = 0
    counted_failures: int = 0
    accepted_then: int | None = None  # documents accepted by the pool when its last failure was counted
    bound_to: str | None = None  # of 0.2.0: the workflow in which an answer was lost
    bound_since: str | None = None  # of 0.2.0: when the youngest job then known was created
    upload_name: str | None = None
    job_id: str | None = None
    input_file_id: str | None = None
    output_node_files: tuple[Mapping[str, str], ...] = ()
    results: tuple[Mapping[str, str], ...] = ()
    queue: str | None = None  # not in every index
    queue_at: str | None = None
    route: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)  # what the uploader said about the object
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> DocumentKey:
        """The primary key."""
        return self.source.document_key


UNCHANGED: Any = object()  # an update leaves the attribute as it is; None takes it away


@dataclass(frozen=True, kw_only=True, slots=True)
class DocumentUpdate:
    """One document's next step. It is written only while its conditions hold.

    `read_at` and `last_sequencer` are conditions: the document still is as it was read (else: its attempt still holds
    it), and no later event of its key has come ('': none at all). `job` holds the document's own entries alone.
    """

    key: DocumentKey
    to: Status
    read_at: str | None = None
    last_sequencer: str | None = None
    job: Job | None = None
    input_file_id: str | None = None  # None: not known, and left as it is
    upload_name: str | None = UNCHANGED
    error: Mapping[str, str] | None = UNCHANGED
    failures: int = UNCHANGED
    counted_failures: int = UNCHANGED
    accepted_then: int = UNCHANGED
    eligible_at: str = UNCHANGED
    results: list[dict[str, Any]] | None = UNCHANGED
    pages: int | None = UNCHANGED
    inferred: bool | None = UNCHANGED
    workflow_id: str | None = UNCHANGED  # of one that goes back, where this try says nothing of it


class Phase(StrEnum):
    """What a workflow is doing for us."""

    IDLE = "idle"
    SUBMITTING = "submitting"  # an attempt streams; this request provably is not complete yet
    COMMITTED = "committed"  # the last bytes may have been sent; what became of them is not recorded
    RUNNING = "running"  # a job of ours is active


@dataclass(frozen=True, kw_only=True, slots=True)
class Attempt:
    """One batch on one workflow, until its outcome is known.

    `documents` have the names under which they are sent; None in items of 0.2.0: then the document itself tells it.
    `rounds` counts the complete lists of jobs that showed nothing of it, each two minutes after a request or the list
    before.
    """

    id: str = ""
    documents: Mapping[DocumentKey, str | None] = field(default_factory=dict)
    started_at: str = ""
    first_look_at: str | None = None  # the platform's time
    lease_ends_at: str | None = None  # until then somebody sends, or waits for the answer
    settle_after: str | None = None  # a list that shows nothing proves nothing before
    rounds: int = 0

    @property
    def is_unsettled(self) -> bool:
        """Whether an earlier request may have been accepted, whatever happens to the present one."""
        return self.rounds > 0

    @property
    def upload_names(self) -> tuple[str, ...]:
        """The names under which the documents were sent, as far as they are known."""
        return tuple(filter(None, self.documents.values()))


KNOWN_JOBS = 20
LEFT_OUT = "more outputs than a row has room for"  # said in place of outputs that are not recorded


@dataclass(frozen=True, kw_only=True, slots=True)
class Workflow(Doubtful):
    """One workflow's item: its phase and, while it is not idle, the attempt. `revision` changes with every write."""

    workflow_id: str
    phase: Phase = Phase.IDLE
    revision: str | None = None
    attempt: Attempt = field(default_factory=Attempt)
    job_id: str | None = None
    job_status: str | None = None
    paused_until: str | None = None
    accepted_count: int = 0  # documents, ever
    consecutive_failures: int = 0  # requests without an answer, since one was accepted
    consecutive_refusals: int = 0  # solo documents refused, since one was accepted
    last_error: Mapping[str, str] | None = None
    known_job_ids: tuple[str, ...] = ()  # the last jobs that were followed here: none of them is new
    unanswered: tuple[str, ...] = ()  # names of the last attempt of which a request was never answered
    let_go_at: str | None = None  # when an attempt was last given up, or a nameless job made us busy: none is inferred

    @property
    def attempt_id(self) -> str | None:
        """The attempt by which it holds documents."""
        return self.attempt.id or None

    @property
    def is_at_work(self) -> bool:
        """Whether documents of ours are on their way, or in a job."""
        return self.phase is not Phase.IDLE

    @property
    def waits_for_another_job(self) -> bool:
        """Whether a job of somebody else is in the way."""
        return (self.last_error or {}).get("type") == Busy.__name__

    @property
    def log_fields(self) -> dict[str, Any]:
        """The attempt as log lines name it: so every line of a document's life is found by its object's name."""
        objects = [key.object for key in self.attempt.documents]
        return {"workflow_id": self.workflow_id, "attempt_id": self.attempt.id, "objects": objects}

    def is_free(self, now: datetime) -> bool:
        """Whether an attempt may start."""
        return self.phase is Phase.IDLE and (self.paused_until is None or self.paused_until <= iso(now))

    def lease_has_ended(self, now: datetime) -> bool:
        """Whether nobody sends any more, or the sender counts as dead."""
        return self.attempt.lease_ends_at is None or self.attempt.lease_ends_at <= iso(now)

    def with_attempt(self, **changes: Any) -> Self:
        """The same with other attributes of the attempt."""
        return replace(self, attempt=replace(self.attempt, **changes))

    def without(self, keys: Collection[DocumentKey]) -> Self:
        """The same without some documents of the attempt. A job keeps all or none, for it has all their files."""
        left = {key: name for key, name in self.attempt.documents.items() if key not in keys}
        return self if left and self.phase is Phase.RUNNING else self.with_attempt(documents=left)

    def released(self, *, paused_until: datetime | None = None, error: Mapping[str, str] | None = None) -> Self:
        """Idle again; the job, if there was one, is known from now on."""
        known = (*self.known_job_ids, self.job_id) if self.job_id else self.known_job_ids
        idle = replace(self, phase=Phase.IDLE, attempt=Attempt(), job_id=None, job_status=None, doubts=())
        until = iso(paused_until) if paused_until else None
        return replace(idle, known_job_ids=known[-KNOWN_JOBS:], paused_until=until, last_error=error)

    def running(self, job: Job) -> Self:
        """Runs `job`, which holds the attempt's documents."""
        is_new = self.job_id != job.id
        return replace(
            self.with_attempt(lease_ends_at=None, settle_after=None),
            phase=Phase.RUNNING,
            job_id=job.id,
            job_status=job.status if is_new else self.job_status,
            doubts=(),
            paused_until=None,
            accepted_count=self.accepted_count + (len(self.attempt.documents) if is_new else 0),
            consecutive_failures=0,
            consecutive_refusals=0,
            last_error=None,
            unanswered=self.attempt.upload_names if self.attempt.is_unsettled else self.unanswered,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """How one file ended. Where `outputs_decide`, it is COMPLETED if its outputs can be had, else as it says."""

    status: Status
    error: Mapping[str, str] | None = None
    outputs_decide: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class EndedJob(Doubtful):
    """A job that has ended, and whose outputs are being brought home; its workflow is free."""

    job_id: str
    workflow_id: str
    attempt_id: str
    documents: Mapping[DocumentKey, Outcome]  # how each ends, unless all its outputs can be had: then COMPLETED
    ended_at: str
    is_solo: bool  # no other file was in the job
    revision: str | None = None
    lease_ends_at: str | None = None  # until then somebody copies
    retry_at: str | None = None

    def without(self, keys: Collection[DocumentKey]) -> Self:
        """The same without some documents."""
        return replace(self, documents={key: end for key, end in self.documents.items() if key not in keys})


@dataclass(frozen=True, kw_only=True, slots=True)
class Poller:
    """The one run of on_schedule that polls, and until when the platform wants no questions at all."""

    revision: str | None = None
    owner: str | None = None
    began_at: str | None = None
    lease_ends_at: str | None = None
    paused_until: str | None = None
    searched_at: str | None = None  # when orphans, and documents in no queue, were searched; None: there are more
    routes: str | None = None  # names of the routes then and, after an empty one, of those that are gone
    unresolved: str | None = None  # workflows of the pool whose key the platform does not resolve, and what it says

    def is_alive(self, now: datetime) -> bool:
        """Whether somebody polls."""
        return self.lease_ends_at is not None and self.lease_ends_at > iso(now)


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """Documents that are followed together. A document that is run again counts again, in both numbers."""

    name: str
    registered: int = 0
    finished: int = 0
    finished_at: str | None = None  # None: documents are on their way, or came lately

    @property
    def is_at_rest(self) -> bool:
        """Whether every document that is known is final."""
        return 0 < self.registered <= self.finished


ALL_ROUTES = "*"


@dataclass(frozen=True, kw_only=True, slots=True)
class Pause:
    """An operator wants no batch begun on a route (`ALL_ROUTES`: on any) until it is resumed."""

    route: str
    reason: str
    since: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """Everything but the documents: the workflows (the pool's first), ended jobs, who polls, and what is paused."""

    workflows: tuple[Workflow, ...]
    ended_jobs: tuple[EndedJob, ...] = ()
    poller: Poller = field(default_factory=Poller)
    pauses: tuple[Pause, ...] = ()
    names: Mapping[str, str] = field(default_factory=dict)  # how the pool's ids are stored, by how they were given

    def pause_of(self, route: str) -> Pause | None:
        """The pause that a route is in."""
        return next((each for each in self.pauses if each.route in {route, ALL_ROUTES}), None)


@dataclass(frozen=True, slots=True)
class Transition[R: (Workflow, EndedJob, Poller)]:
    """One step of a record and of documents that it holds, written together.

    A document whose condition does not hold any more is left out, and the others go on without it; one that was to end,
    and for which a later event has come, goes back into the queue for that event. `after` None deletes the record.
    `creates` takes documents over.
    """

    before: R
    after: R | None
    updates: tuple[DocumentUpdate, ...] = ()
    creates: EndedJob | None = None
