"""Use case: give free workflows the documents that wait. Look, claim, send."""

import threading
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import timedelta
from itertools import islice

from aws_lambda_powertools import Logger

from workflow_trigger.domain import model
from workflow_trigger.domain.batching import in_turn, is_turn_of_bulk, keeps_away, next_batch
from workflow_trigger.domain.document import Lane, upload_name
from workflow_trigger.domain.errors import Busy, ConflictError, PlatformError, as_stored
from workflow_trigger.domain.job import Look
from workflow_trigger.domain.matching import mentions
from workflow_trigger.domain.model import Document, DocumentUpdate, Phase, Snapshot, Status, Workflow
from workflow_trigger.services.context import Context
from workflow_trigger.services.send import LEASE_SECONDS, send

_READ_AT_ONCE = 250
_UPLOADS_AGAIN = timedelta(seconds=1)
_OTHERS_AGAIN = timedelta(minutes=1)

logger = Logger(child=True)


class Queue:
    """The documents of a route that wait, read once by one reader, which hands out disjoint batches to any thread."""

    def __init__(self, context: Context, fresh: Iterable[Document] = ()) -> None:
        """Begin with `fresh` documents, which the index may not show yet; then the others are read later."""
        self._context = context
        self._lock = threading.Lock()
        self._waiting = {document.key: document for document in fresh}
        self._seen = {document.key: document.read_at for document in self._waiting.values()}  # also what was handed out
        now = context.clock.now()
        self._uploads_again_at = now + _UPLOADS_AGAIN if self._waiting else now
        self._others_again_at = now + _OTHERS_AGAIN if self._waiting else now

    def refresh(self) -> None:
        """Something may have come into the queue: read it when it is next asked for."""
        self._uploads_again_at = self._others_again_at = self._context.clock.now()

    def may_have_some(self) -> bool:
        """Whether anything waits, as far as is known."""
        return bool(self._waiting) or self._context.clock.now() >= self._others_again_at

    def take(self, workflow: Workflow) -> list[Document]:
        """The next batch for a workflow; no document is handed out twice as it is."""
        settings = self._context.settings
        with self._lock:
            self._read(workflow)
            batch = next_batch(
                in_turn(self._waiting.values(), workflow, settings.max_files_per_run),
                workflow,
                pool_size=len(settings.workflow_ids),
                max_files=settings.max_files_per_run,
                max_bytes=settings.max_bytes_per_run,
                now=self._context.clock.now(),
            )
            for document in batch:
                del self._waiting[document.key]
            return batch

    def put_back(self, batch: Iterable[Document]) -> None:
        """A batch that was not sent after all."""
        with self._lock:
            self._waiting = {document.key: document for document in batch} | self._waiting

    def _read(self, workflow: Workflow) -> None:
        """Read more for a workflow, unless a batch of older documents is in hand.

        The bulk lane is read when it has its turn, or uploads do not fill a batch, but not again and again while it has
        nothing new.
        """
        context, settings, ledger = self._context, self._context.settings, self._context.ledger
        now, route = context.clock.now(), settings.route
        limit = min(2 * settings.max_files_per_run * (len(settings.workflow_ids) + 1), _READ_AT_ONCE)
        limit += len(self._waiting)  # what is in hand is read again, and must not hide the rest
        if now >= self._uploads_again_at and self._lacks(workflow, Lane.FRESH):
            self._take_in(ledger.ready_in(Lane.FRESH, route, limit))
            self._uploads_again_at = now + _UPLOADS_AGAIN
        is_wanted = is_turn_of_bulk(workflow) or self._lacks(workflow, *Lane)
        if is_wanted and now >= self._others_again_at and self._lacks(workflow, Lane.BULK):
            found = self._take_in(ledger.ready_in(Lane.BULK, route, limit))
            self._others_again_at = now if found else context.later(context.settings.poll_seconds)

    def _lacks(self, workflow: Workflow, *lanes: Lane) -> bool:
        """Whether what is in hand of these lanes, and may go to the workflow, is less than a batch."""
        settings, now = self._context.settings, self._context.clock.now()
        ours = (each for each in self._waiting.values() if each.source.lane in lanes)
        usable = (each for each in ours if not keeps_away(each, workflow, len(settings.workflow_ids), now))
        return sum(1 for _ in islice(usable, settings.max_files_per_run)) < settings.max_files_per_run

    def _take_in(self, found: Iterable[Document]) -> int:
        """Add documents; how many are new."""
        new = 0
        for each in found:
            if each.read_at > self._seen.get(each.key, ""):
                new += each.key not in self._waiting
                self._waiting[each.key] = each
                self._seen[each.key] = each.read_at
        return new


def submit_now(context: Context, fresh: Sequence[Document]) -> bool:
    """Give every free workflow of their routes a batch, those that work well first. True if somebody has to follow."""
    snapshot = context.snapshot()
    if snapshot.poller.paused_until and snapshot.poller.paused_until > context.iso_later():
        return False
    began = False
    for name, own in context.by_route().items():
        ours = [each for each in fresh if context.settings.route_of(each) == name]
        queue = Queue(own, ours)
        for workflow in idle_workflows(snapshot, own) if ours or not context.settings.routes else []:
            began |= workflow.is_free(context.clock.now()) and submit(own, workflow, queue).is_at_work
    return began


def idle_workflows(snapshot: Snapshot, context: Context) -> list[Workflow]:
    """The workflows of the pool that do nothing; none while the route is paused or too many ended jobs wait."""
    pool, routes = context.settings.workflow_ids, context.settings.routes
    ended = [each for each in snapshot.ended_jobs if not routes or each.workflow_id in pool]
    if context.is_paused or len(ended) > 10 + 2 * len(pool):
        return []
    idle = [each for each in snapshot.workflows if each.workflow_id in pool and not each.is_at_work]
    return sorted(idle, key=lambda each: (each.consecutive_failures + each.consecutive_refusals, -each.accepted_count))


def submit(context: Context, workflow: Workflow, queue: Queue) -> Workflow:
    """One attempt on a free workflow; its new state, as another invocation wrote it where that was first."""
    batch = queue.take(workflow) if context.has_time() and not context.is_paused else []
    if not batch:
        return workflow
    try:
        return _submit(context, workflow, batch)
    except ConflictError as lost:
        logger.info("lost a write race", workflow_id=workflow.workflow_id, reason=str(lost))
        return context.ledger.workflow(workflow.workflow_id)
    finally:
        queue.put_back(batch)


def _submit(context: Context, workflow: Workflow, batch: list[Document]) -> Workflow:
    """Look, claim, send. What is left in `batch` afterwards was not claimed."""
    try:
        look = context.client.look(workflow.workflow_id)
    except PlatformError as error:
        logger.warning("platform query failed", workflow_id=workflow.workflow_id, error=as_stored(error))
        return context.fail(workflow, error, [])
    if look.active:
        return _wait_for(context, workflow, look)
    for name in {each.key.object for each in batch}:
        context.supersede_older(name)  # the claim leaves out what has ended
    workflow = _claim(context, workflow, batch, look)
    documents = [each for each in batch if each.key in workflow.attempt.documents]
    batch.clear()
    return send(context, workflow, documents) if documents else context.commit(workflow, workflow.released())


def _wait_for(context: Context, workflow: Workflow, look: Look) -> Workflow:
    """A job is active that is not ours; or a request of ours was accepted after its retry, which nobody can prevent."""
    context.counts.add("Busy")
    new = [job for job in look.active if job.id not in workflow.known_job_ids]
    if not new and workflow.waits_for_another_job:
        return workflow  # noted already
    names = workflow.unanswered
    try:
        late = [job.id for job in look.active if names and mentions(context.client.names_of(job).documents, names)]
    except PlatformError as failed:  # no failure of the workflow; the next look asks again
        paused_until = context.iso_later(context.settings.poll_seconds)
        return context.note(workflow, as_stored(failed), paused_until=paused_until)
    for job in (job for job in new if job.id in late):
        context.counts.add("LateAcceptance")
        logger.error("a batch ran twice", workflow_id=workflow.workflow_id, job_id=job.id)
    known = (*workflow.known_job_ids, *(job.id for job in new))[-model.KNOWN_JOBS :]
    active = look.active[0].id
    whose = "a batch of ours that was accepted late" if active in late else "not of this stack"
    error = Busy(f"job {active} is active, and {whose}")
    return context.note(workflow, as_stored(error), known_job_ids=known)


def _claim(context: Context, workflow: Workflow, batch: Sequence[Document], look: Look) -> Workflow:
    """Workflow and documents in one transaction; documents that have changed since are left out."""
    attempt_id = uuid.uuid4().hex
    names = {document.key: upload_name(document.key, attempt_id) for document in batch}
    attempt = model.Attempt(
        id=attempt_id,
        documents=names,
        started_at=context.iso_later(),
        first_look_at=look.at,
        lease_ends_at=context.iso_later(LEASE_SECONDS),
    )
    updates = tuple(
        DocumentUpdate(key=each.key, to=Status.SUBMITTING, read_at=each.read_at, upload_name=names[each.key])
        for each in batch
    )
    claimed = replace(workflow, phase=Phase.SUBMITTING, attempt=attempt, paused_until=None)
    written = context.commit(workflow, claimed, updates)
    logger.info("sending", **written.log_fields)
    return written
