"""What every failure means: for the documents, for the workflow, what counts, and when it ends. One table.

While it is uncertain whether anything of a batch runs, the batch stays with its workflow (`services/settle.py`). This
module says what happens as soon as it is certain that nothing runs. `docs/failures.md` is made from `POLICIES`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import NamedTuple

from workflow_trigger.domain.clock import iso
from workflow_trigger.domain.document import DocumentKey
from workflow_trigger.domain.errors import (
    Busy,
    Misconfigured,
    NotSent,
    ObjectDenied,
    ObjectGone,
    ObjectOverwritten,
    ObjectUnreadable,
    OutcomeUnknown,
    OutsidePrefix,
    Refused,
    Throttled,
    TooSlow,
    TriggerError,
    Unavailable,
    Unreachable,
    as_stored,
)
from workflow_trigger.domain.model import Document, DocumentUpdate, Status, Workflow

COUNTED_FAILURES_LIMIT = 5
SLOW_TRIES_LIMIT = 2
REFUSALS_IN_A_ROW = 3  # of solo documents: after so many the workflow is suspected, not the next document
ROUNDS = 3  # tries of an unsettled attempt, each with a complete list of jobs that shows nothing of it
SICK_AFTER = 3  # requests in a row without an answer: a person should look
DENIED_SECONDS = 300.0
BACKOFF_LIMIT_SECONDS = 900.0


class Policy(NamedTuple):
    """What one class of failure means. The first four are texts, those of docs/failures.md.

    `counts`: each document has a failure more, so that its next batch is half as large, and alone it waits longer each
    time; counted failures end it. `pauses`: the workflow backs off, for longer with every attempt that fails. `final`:
    the document ends at once.
    """

    came_back: str
    documents: str
    workflow: str
    ends: str
    metric: str | None = None
    counts: bool = False
    pauses: bool = False
    final: Status | None = None


_UNCHANGED, _BACK, _REST = "back in the queue, unchanged", "back in the queue, a failure each", "the rest goes on"
_GOES_ON, _BACKS_OFF, _BY_ITSELF, _AT_ONCE = "goes on", "backs off", "by itself", "at once"
_FIVE, _BY_A_PERSON = "five counted failures, the last one alone: `REJECTED`", "when a person has mended it"

POLICIES: Mapping[type[TriggerError], Policy] = {
    Busy: Policy(
        "2xx without the id of a new job; 409", _UNCHANGED, "waits for the active job", "with that job", "Busy"
    ),
    Throttled: Policy("429", _UNCHANGED, "paused for `Retry-After`, at most 15 minutes", _BY_ITSELF, "Throttled"),
    Misconfigured: Policy(
        "401, 402, 403, 404, 405, 410, another 4xx, a redirect; no key yet",
        f"{_UNCHANGED}, for other workflows to take",
        "blocked: tried again every 5 minutes, every 30 seconds without a key",
        _BY_A_PERSON,
        "Held",
    ),
    Refused: Policy(
        "400, 413, 415, 422",
        "alone: `REJECTED` with the platform's reason; several: back at once, in batches half as large",
        "goes on; after three solo refusals in a row it is suspected",
        "alone: at once; by a suspected workflow: when another one refuses it too or, in a pool of one, when it is "
        "refused again after the workflow has accepted another document",
        counts=True,
    ),
    NotSent: Policy(
        "broken before the last bytes: TLS, reset, an invocation that ended",
        _BACK,
        _BACKS_OFF,
        _FIVE,
        "SetBack",
        counts=True,
        pauses=True,
    ),
    Unreachable: Policy(
        "no connection: DNS, connect, TLS handshake",
        f"{_UNCHANGED}: none of them had a part in it",
        _BACKS_OFF,
        _BY_ITSELF,
        "SetBack",
        pauses=True,
    ),
    TooSlow: Policy(
        "the invocation ends before the files can be streamed",
        _BACK,
        _GOES_ON,
        "two tries alone, each with a whole invocation: `REJECTED`",
        counts=True,
    ),
    OutcomeUnknown: Policy(
        "5xx, 408, a timeout, a reset, nonsense, an invocation that died after the last bytes; and three complete "
        "lists of jobs, each two minutes after a try, showed nothing",
        "stay with their workflow until then; then back in the queue, a failure each",
        "settles; then backs off, and infers nothing from nameless jobs for an hour",
        _FIVE,
        "SetBack",
        counts=True,
        pauses=True,
    ),
    Unavailable: Policy(
        "a question without a usable answer",
        "unchanged",
        "backs off before it submits; a job that is followed is asked about again",
        _BY_ITSELF,
        "Unanswered",
        pauses=True,
    ),
    ObjectGone: Policy(
        "S3: the object is gone, or archived",
        f"`REJECTED`; {_REST}",
        _GOES_ON,
        _AT_ONCE,
        "ObjectGone",
        final=Status.REJECTED,
    ),
    ObjectOverwritten: Policy(
        "S3: the object was overwritten before it was read",
        f"`SUPERSEDED`; {_REST}",
        _GOES_ON,
        _AT_ONCE,
        "ObjectOverwritten",
        final=Status.SUPERSEDED,
    ),
    OutsidePrefix: Policy(
        "S3: access denied to an object outside of `KeyPrefix`, which has changed since",
        f"`REJECTED`; {_REST}",
        _GOES_ON,
        _AT_ONCE,
        "OutsidePrefix",
        final=Status.REJECTED,
    ),
    ObjectDenied: Policy(
        "S3: access denied, to the object or to its key",
        f"tried again every 5 minutes; {_REST}",
        _GOES_ON,
        _BY_A_PERSON,
        "ObjectDenied",
    ),
    ObjectUnreadable: Policy(
        "S3 did not deliver the object",
        f"back in the queue, a failure; {_REST}, or goes again",
        _GOES_ON,
        _FIVE,
        "ObjectUnreadable",
        counts=True,
    ),
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
    had_whole_invocation: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """What happens now that it is certain that nothing runs: the workflow, its documents, what is counted."""

    workflow: Workflow
    updates: tuple[DocumentUpdate, ...]
    metrics: tuple[str, ...]


def after_failure(
    error: TriggerError, workflow: Workflow, documents: Sequence[Document], given: Circumstances
) -> Decision:
    """What a failure of a whole batch means. Nothing of it runs."""
    solo = len(documents) == 1
    updates = tuple(after_document_failure(error, each, given, solo=solo, workflow=workflow) for each in documents)
    after = _count_on_workflow(error, workflow, documents)
    released = after.released(paused_until=_paused_until(error, after, given), error=_noted(error, given.now))
    return Decision(workflow=released, updates=updates, metrics=_metrics(error, released, updates))


def after_document_failure(
    error: TriggerError,
    document: Document,
    given: Circumstances,
    *,
    solo: bool = True,
    workflow: Workflow | None = None,
) -> DocumentUpdate:
    """What a failure means for one document."""
    policy = policy_for(error)
    if policy.final is not None:
        known = document.source.sequencer or ""  # a later event of the same bytes brings it back
        return DocumentUpdate(key=document.key, to=policy.final, error=as_stored(error), last_sequencer=known)
    if isinstance(error, ObjectDenied):
        return _back(document, error, eligible_at=iso(given.now + timedelta(seconds=DENIED_SECONDS)))
    if isinstance(error, Busy):
        return back_unchanged(document.key)
    if not policy.counts:
        return _back(document, error)
    counted = _count(document, error, given, solo=solo)
    if solo and _ends(error, document, counted, given, workflow):
        return replace(counted, to=Status.REJECTED)
    return counted


def back_unchanged(key: DocumentKey) -> DocumentUpdate:
    """Back into the queue, in its old place, with nothing to be told."""
    return DocumentUpdate(key=key, to=Status.PENDING)


def backoff_seconds(times: int, jitter: float) -> float:
    """The wait before another try; `jitter` from 0 to 1 spreads it over the upper half."""
    return min(2.0 ** min(times, 12), BACKOFF_LIMIT_SECONDS) * (0.5 + jitter / 2)


# -- documents ---------------------------------------------------------------------------------------------------------


def _back(document: Document, error: TriggerError, *, eligible_at: str | None = None) -> DocumentUpdate:
    update = DocumentUpdate(key=document.key, to=Status.PENDING, error=as_stored(error))
    return replace(update, eligible_at=eligible_at) if eligible_at else update


def _has_accepted_since(document: Document, given: Circumstances) -> bool:
    """Whether the pool has accepted another document since this one's last failure: so it is not an outage."""
    return document.accepted_then is None or given.accepted > document.accepted_then


def _count(document: Document, error: TriggerError, given: Circumstances, *, solo: bool) -> DocumentUpdate:
    """A failure more. Of several, each keeps its place in the queue; a solo document goes behind the others."""
    failures = document.failures + 1
    update = DocumentUpdate(
        key=document.key,
        to=Status.PENDING,
        error=as_stored(error),
        failures=failures,
        counted_failures=document.counted_failures + _has_accepted_since(document, given),
        accepted_then=given.accepted,
    )
    if isinstance(error, TooSlow):
        update = replace(update, slow_tries=document.slow_tries + (solo and given.had_whole_invocation))
    if not solo:
        return update
    again = given.now + timedelta(seconds=backoff_seconds(failures, given.jitter))
    return replace(update, eligible_at=iso(again))


def _ends(
    error: TriggerError, document: Document, counted: DocumentUpdate, given: Circumstances, workflow: Workflow | None
) -> bool:
    """Whether a document that failed alone is given up.

    A workflow that refuses one after the other is suspected itself: then it takes a second workflow that refuses the
    document or, where there is none, an acceptance between two refusals.
    """
    if isinstance(error, TooSlow):
        return counted.slow_tries == SLOW_TRIES_LIMIT
    if isinstance(error, Refused):
        if workflow is None or workflow.consecutive_refusals < REFUSALS_IN_A_ROW:
            return True
        was_refused = document.accepted_then is not None and given.accepted > document.accepted_then
        return was_refused and (given.pool_size == 1 or document.workflow_id != workflow.workflow_id)
    return _has_accepted_since(document, given) and document.counted_failures + 1 >= COUNTED_FAILURES_LIMIT


# -- the workflow ------------------------------------------------------------------------------------------------------


def _count_on_workflow(error: TriggerError, workflow: Workflow, documents: Sequence[Document]) -> Workflow:
    """A failure of the workflow, too; but a document that failed alone and before is its own suspect."""
    solo = len(documents) == 1
    if isinstance(error, Refused):
        return replace(workflow, consecutive_refusals=workflow.consecutive_refusals + solo)
    is_the_documents = solo and documents[0].failures > 0 and not isinstance(error, Unreachable)
    if not policy_for(error).pauses or is_the_documents:
        return workflow
    lost_requests = ROUNDS if isinstance(error, OutcomeUnknown) else 1
    return replace(workflow, consecutive_failures=workflow.consecutive_failures + lost_requests)


def _paused_until(error: TriggerError, workflow: Workflow, given: Circumstances) -> datetime | None:
    if isinstance(error, Throttled | Misconfigured):
        return given.now + timedelta(seconds=error.retry_after_seconds)
    if policy_for(error).pauses:
        return given.now + timedelta(seconds=backoff_seconds(max(workflow.consecutive_failures, 1), given.jitter))
    return None


def _noted(error: TriggerError, now: datetime) -> dict[str, str]:
    """An error as a workflow keeps it: with its time."""
    return {**as_stored(error), "at": iso(now)}


def _metrics(error: TriggerError, workflow: Workflow, updates: Sequence[DocumentUpdate]) -> tuple[str, ...]:
    """What is counted: the failure itself, documents that it ended, and what a person has to look at."""
    policy = policy_for(error)
    suspected = isinstance(error, Refused) and workflow.consecutive_refusals > REFUSALS_IN_A_ROW
    is_sick = policy.pauses and workflow.consecutive_failures >= SICK_AFTER
    names = [policy.metric] if policy.metric else []
    names += ["Held"] if suspected or is_sick else []
    return (*names, *(update.to.capitalize() for update in updates if update.to is Status.REJECTED))
