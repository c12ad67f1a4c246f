"""What every failure to start a job means: for documents and workflow, what counts, and when it ends. One table.

While it is uncertain whether anything of a batch runs, the batch stays with its workflow (`services/settle.py`). This
module says what happens as soon as it is certain that nothing runs. What becomes of each file of a job that did start
is in `domain/outcome.py`. `docs/failures.md` is made from `POLICIES`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

from workflow_trigger.domain import errors
from workflow_trigger.domain.clock import iso
from workflow_trigger.domain.document import DocumentKey
from workflow_trigger.domain.errors import Refused, TriggerError, as_stored
from workflow_trigger.domain.model import Document, DocumentUpdate, Status, Workflow

COUNTED_FAILURES_LIMIT = 5
REFUSALS_IN_A_ROW = 3  # of solo documents: after so many the workflow is suspected, not the next document
ROUNDS = 3  # complete lists, two minutes apart, that do not show an attempt's job: then, at the earliest, it is let go
SICK_AFTER = 3  # requests in a row without an answer: a person should look
BACKOFF_LIMIT_SECONDS = 900.0
_DENIED_SECONDS = 300.0


class Documents(StrEnum):
    """What the documents of a batch do."""

    UNCHANGED = "back in the queue, unchanged"
    COUNTED = "back in the queue; each failure counts, makes batches smaller, and a solo document wait longer"
    PUT_OFF = "tried again every 5 minutes; the rest goes on"
    REJECTED = "`REJECTED`; the rest goes on"
    SUPERSEDED = "`SUPERSEDED`; the rest goes on"


class OnWorkflow(StrEnum):
    """What the workflow does."""

    GOES_ON = "goes on"
    SUSPECTED = "goes on; suspected after three solo refusals in a row"
    WAITS = "waits for the active job"
    PAUSED = "paused for `Retry-After`, at most 15 minutes"
    BLOCKED = "blocked: tried again every 5 minutes; with a key that was rejected, every 30 seconds"
    HAS_NO_KEY = "blocked: tried again every 30 seconds"
    BACKS_OFF = "backs off, for longer each time; after three requests in a row a person is called"


ENDS_AS = {Documents.REJECTED: Status.REJECTED, Documents.SUPERSEDED: Status.SUPERSEDED}
# When it ends.
_BY_ITSELF, _AT_ONCE, _BY_A_PERSON = "automatically", "at once", "when a person has fixed it"
_FIVE = "five counted failures, the last one alone: `REJECTED`"
_REFUSED = (
    "alone: `REJECTED`, at once; by a suspected workflow: when, after the pool has accepted another document, a second "
    "workflow refuses it too or, in a pool of one, the same workflow does"
)


class Policy(NamedTuple):
    """What one class of failure means; what comes back in such a case is the first line of the class."""

    documents: Documents
    workflow: OnWorkflow
    ends: str
    metric: str | None = None


POLICIES: Mapping[type[TriggerError], Policy] = {
    errors.Busy: Policy(Documents.UNCHANGED, OnWorkflow.WAITS, "with that job", "Busy"),
    errors.Throttled: Policy(Documents.UNCHANGED, OnWorkflow.PAUSED, _BY_ITSELF, "Throttled"),
    errors.Misconfigured: Policy(Documents.UNCHANGED, OnWorkflow.BLOCKED, _BY_A_PERSON, "Held"),
    errors.KeyNotSet: Policy(Documents.UNCHANGED, OnWorkflow.HAS_NO_KEY, _BY_A_PERSON, "Held"),
    errors.Refused: Policy(Documents.COUNTED, OnWorkflow.SUSPECTED, _REFUSED),
    errors.NotSent: Policy(Documents.COUNTED, OnWorkflow.BACKS_OFF, _FIVE, "SetBack"),
    errors.Unreachable: Policy(Documents.UNCHANGED, OnWorkflow.BACKS_OFF, _BY_ITSELF, "SetBack"),
    errors.TooSlow: Policy(Documents.COUNTED, OnWorkflow.GOES_ON, _FIVE),
    # When three lists of jobs, each two minutes after a try, have shown nothing. Until then the batch stays.
    errors.OutcomeUnknown: Policy(Documents.COUNTED, OnWorkflow.BACKS_OFF, _FIVE, "SetBack"),
    errors.Unavailable: Policy(Documents.UNCHANGED, OnWorkflow.BACKS_OFF, _BY_ITSELF, "Unanswered"),
    errors.ObjectGone: Policy(Documents.REJECTED, OnWorkflow.GOES_ON, _AT_ONCE, "ObjectGone"),
    errors.ObjectOverwritten: Policy(Documents.SUPERSEDED, OnWorkflow.GOES_ON, _AT_ONCE, "ObjectOverwritten"),
    errors.OutsidePrefix: Policy(Documents.REJECTED, OnWorkflow.GOES_ON, _AT_ONCE, "OutsidePrefix"),
    errors.ObjectDenied: Policy(Documents.PUT_OFF, OnWorkflow.GOES_ON, _BY_A_PERSON, "ObjectDenied"),
    errors.ObjectUnreadable: Policy(Documents.COUNTED, OnWorkflow.GOES_ON, _FIVE, "ObjectUnreadable"),
}


def policy_for(error: TriggerError) -> Policy:
    """The policy of an error's class, or of the nearest class above it."""
    return next(POLICIES[kind] for kind in type(error).__mro__ if kind in POLICIES)


@dataclass(frozen=True, kw_only=True, slots=True)
class Circumstances:
    """What a decision depends on apart from the failure itself. `jitter` is from 0 to 1."""

    now: datetime
    accepted: int  # documents, by the whole pool, ever
    jitter: float
    pool_size: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """What happens now that it is certain that nothing runs: the workflow, its documents, what is counted."""

    workflow: Workflow
    updates: tuple[DocumentUpdate, ...]
    metrics: tuple[str, ...]


def after_failure(
    error: TriggerError, workflow: Workflow, documents: Sequence[Document], given: Circumstances
) -> Decision:
    """What a failure of a whole batch means, also one that began with a single object. Nothing of it runs."""
    updates = tuple(_after(error, each, given, workflow, solo=len(documents) == 1) for each in documents)
    counted = _count_on_workflow(error, workflow, documents)
    released = counted.released(
        paused_until=_paused_until(error, counted, given), error=as_stored(error, iso(given.now))
    )
    return Decision(workflow=released, updates=updates, metrics=_metrics(error, released))


def after_lost_objects(
    failed: Mapping[DocumentKey, TriggerError], workflow: Workflow, documents: Sequence[Document], given: Circumstances
) -> Decision:
    """What it means that some objects cannot be read: for their documents alone, however many travelled together."""
    lost = [each for each in documents if each.key in failed]
    updates = tuple(_after(failed[each.key], each, given, workflow, solo=True) for each in lost)
    after = workflow.without(failed) if len(lost) < len(documents) else workflow.released()
    metrics = tuple(name for error in failed.values() for name in _metrics(error, after))
    return Decision(workflow=after, updates=updates, metrics=metrics)


def backoff_seconds(times: int, jitter: float) -> float:
    """The wait before another try; `jitter` from 0 to 1 spreads it over the upper half."""
    return min(2.0 ** min(times, 12), BACKOFF_LIMIT_SECONDS) * (0.5 + jitter / 2)


# -- documents ---------------------------------------------------------------------------------------------------------


def _after(
    error: TriggerError, document: Document, given: Circumstances, workflow: Workflow, *, solo: bool
) -> DocumentUpdate:
    """What a failure means for one document."""
    does = policy_for(error).documents
    culprit = error.document_key if isinstance(error, errors.SourceError) else None
    if isinstance(error, errors.Busy) or culprit not in {None, document.key}:
        # In its old place, with nothing to be told.
        return DocumentUpdate(key=document.key, to=Status.PENDING, workflow_id=document.workflow_id)
    update = DocumentUpdate(key=document.key, to=ENDS_AS.get(does, Status.PENDING), error=as_stored(error))
    if does in ENDS_AS:
        return replace(update, last_sequencer=document.source.sequencer or "")  # if no later event of its key has come
    if does is Documents.PUT_OFF:
        return replace(update, eligible_at=iso(given.now + timedelta(seconds=_DENIED_SECONDS)))
    if does is Documents.UNCHANGED:
        return replace(update, workflow_id=document.workflow_id)
    failures, counted = document.failures + 1, document.counted_failures + _has_accepted_since(document, given)
    update = replace(update, failures=failures, counted_failures=counted, accepted_then=given.accepted)
    if not (solo or culprit):
        return update  # of several, each keeps its place in the queue; a solo document goes behind the others
    again = given.now + timedelta(seconds=backoff_seconds(failures, given.jitter))
    to = Status.REJECTED if _ends(error, document, given, workflow) else Status.PENDING
    return replace(update, to=to, eligible_at=iso(again))


def _has_accepted_since(document: Document, given: Circumstances) -> bool:
    """Whether the pool has accepted another document since this one's last failure: so it is not an outage."""
    return document.accepted_then is None or given.accepted != document.accepted_then  # fewer when the pool has changed


def _ends(error: TriggerError, document: Document, given: Circumstances, workflow: Workflow) -> bool:
    """Whether a document that failed alone is given up.

    A workflow that refuses one after the other is suspected itself: then it takes an acceptance between two refusals
    and, where there is one, a second workflow that refuses the document too.
    """
    if not isinstance(error, Refused):
        return _has_accepted_since(document, given) and document.counted_failures + 1 >= COUNTED_FAILURES_LIMIT
    if workflow.consecutive_refusals < REFUSALS_IN_A_ROW:
        return True
    pool_goes_on = document.accepted_then is not None and _has_accepted_since(document, given)
    return pool_goes_on and (given.pool_size == 1 or document.workflow_id != workflow.workflow_id)


# -- the workflow ------------------------------------------------------------------------------------------------------


def _count_on_workflow(error: TriggerError, workflow: Workflow, documents: Sequence[Document]) -> Workflow:
    """A failure of the workflow, too; but a document that failed alone and before is its own suspect."""
    solo = len(documents) == 1
    if isinstance(error, Refused):
        return replace(workflow, consecutive_refusals=workflow.consecutive_refusals + solo)
    is_blamed_on_document = solo and documents[0].failures > 0 and not isinstance(error, errors.Unreachable)
    if policy_for(error).workflow is not OnWorkflow.BACKS_OFF or is_blamed_on_document:
        return workflow
    lost_requests = max(workflow.attempt.rounds, 1)
    return replace(workflow, consecutive_failures=workflow.consecutive_failures + lost_requests)


def _paused_until(error: TriggerError, workflow: Workflow, given: Circumstances) -> datetime | None:
    if isinstance(error, errors.Throttled | errors.Misconfigured | errors.Busy):
        return given.now + timedelta(seconds=error.retry_after_seconds)
    if policy_for(error).workflow is OnWorkflow.BACKS_OFF:
        return given.now + timedelta(seconds=backoff_seconds(max(workflow.consecutive_failures, 1), given.jitter))
    return None


def _metrics(error: TriggerError, workflow: Workflow) -> tuple[str, ...]:
    """What is counted: the failure itself, and what a person has to look at."""
    policy = policy_for(error)
    suspected = isinstance(error, Refused) and workflow.consecutive_refusals > REFUSALS_IN_A_ROW
    is_sick = policy.workflow is OnWorkflow.BACKS_OFF and workflow.consecutive_failures >= SICK_AFTER
    is_held = suspected or is_sick or isinstance(error, errors.ObjectDenied)
    return (*filter(None, [policy.metric]), *(["Held"] if is_held else []))
