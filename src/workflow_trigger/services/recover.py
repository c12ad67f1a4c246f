"""Use case: what an invocation that died, a person, or an earlier release left behind is taken up again."""

import uuid
from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta
from itertools import batched, chain, islice

from aws_lambda_powertools import Logger

from workflow_trigger.domain import model
from workflow_trigger.domain.document import Lane, route_of
from workflow_trigger.domain.model import Document, DocumentUpdate, Phase, Snapshot, Status, Workflow
from workflow_trigger.domain.retry import ROUNDS
from workflow_trigger.services.context import Context

_ORPHAN_SECONDS = 120.0  # a document changes before its index entry does; younger ones are not judged
_HELD = (Status.SUBMITTING, Status.SCHEDULED, Status.IN_PROGRESS)
_BATCH = 25
_EVENT_PAGES = 20  # in a run, of 50: what waits for the loop waits until then
_PAGES = 50  # of all that wait, of 100
_ENQUEUED = 500  # in a run, of documents in no queue: each takes a write
_QUIET = timedelta(minutes=1)  # documents of a batch come one after the other

logger = Logger(child=True)


def publish_late_events(context: Context) -> None:
    """Publish final documents that still carry their mark."""
    for keys in islice(context.ledger.unpublished_keys(), _EVENT_PAGES):
        if not keys or not context.publish(keys):
            return


def finish_batches(context: Context) -> None:
    """Tell of batches whose documents are all final, once no more have come for a while."""
    for batch in context.ledger.batches_at_rest(_QUIET):
        context.events.put_batch(batch)
        context.ledger.mark_finished(batch)
        logger.info("batch finished", batch=batch.name, documents=batch.registered)


def enqueue_left_behind(context: Context, gone: Iterable[str], *, is_thorough: bool) -> bool:
    """Put documents that wait in no queue that is read into the one of their keys; whether there were any.

    A route that is `gone` has left a queue of its own. Documents of 0.2.0 are in none; they are the oldest of all, so
    that, where no search has found any before, the first page without them ends this one.
    """
    settings, ledger, enqueued = context.settings, context.ledger, 0
    theirs = (each.key for route in gone for lane in Lane for each in ledger.ready_in(lane, route, _ENQUEUED))
    first = list(islice(theirs, _ENQUEUED))
    for page in chain([first] if first else [], islice(ledger.waiting(), _PAGES)):
        documents = [each for each in ledger.documents(page).values() if each.status is Status.PENDING]
        left = [each for each in documents if not (each.queue_at and settings.is_live(each.queue))]
        for each in left:
            ledger.enqueue(each, route_of(each.source.key, settings.routes))
        enqueued += len(left)
        if enqueued >= _ENQUEUED or not (left or is_thorough):
            break
    return enqueued > 0


def orphans(context: Context, snapshot: Snapshot) -> list[tuple[str, list[Document]]]:
    """What lost its workflow's item, say to a hand that deleted it: workflows, and documents of one attempt of each.

    Until 1.0 also documents of 0.2.0 whose answer was lost: they wait in the queue, bound to their workflow.
    """
    live = {each.attempt.id for each in snapshot.workflows} | {each.attempt_id for each in snapshot.ended_jobs}
    judged_before = context.iso_later(-_ORPHAN_SECONDS)
    held = {key: by for status in _HELD for key, by in context.ledger.held(status).items()}
    live |= {by for by, written_at in held.values() if by and written_at >= judged_before}  # all of an attempt, or none
    hints = {key: by for key, (by, _) in held.items() if by not in live}
    bound = context.ledger.bound()
    groups: dict[tuple[str, str], list[Document]] = {}
    for each in context.ledger.documents([*hints, *bound]).values() if hints or bound else ():
        is_bound = each.status is Status.PENDING and each.bound_to
        if is_bound or (each.status in _HELD and each.attempt_id == hints.get(each.key)):
            batch = (each.bound_to or each.workflow_id or "", each.bound_since or each.attempt_id or "")
            groups.setdefault(batch, []).append(each)
    return [
        (workflow_id, list(part))
        for (workflow_id, _), documents in groups.items()
        for part in batched(documents, _BATCH, strict=False)
        if workflow_id
    ]


def take_up(context: Context, workflow: Workflow, documents: list[Document]) -> Workflow:
    """Hold orphans again, with a workflow that is idle: those of a job, which is followed, or those of a lost answer.

    Those of 0.2.0 have waited for long: one look at the list of jobs finds theirs, or there is none.
    """
    logger.warning("orphans are taken up again", workflow_id=workflow.workflow_id, documents=len(documents))
    first, now = documents[0], context.iso_later()
    is_running = first.status in model.RUNNING
    to, phase = (first.status, Phase.RUNNING) if is_running else (Status.SUBMITTING, Phase.COMMITTED)
    attempt = model.Attempt(
        id=f"{uuid.uuid4().hex}-again",
        documents={each.key: each.upload_name for each in documents},
        started_at=now,
        first_look_at=first.bound_since or min(each.read_at for each in documents),
        settle_after=None if is_running else now,
        rounds=ROUNDS - 1 if first.bound_to else 0,
    )
    updates = tuple(
        DocumentUpdate(key=each.key, to=to, read_at=each.read_at, upload_name=each.upload_name) for each in documents
    )
    after = replace(workflow, phase=phase, attempt=attempt, job_id=first.job_id if is_running else None, doubts=())
    taken = context.commit(workflow, after, updates)
    return taken if taken.attempt.documents else context.commit(taken, workflow)  # all have changed since
