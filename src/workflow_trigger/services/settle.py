"""Use case: find out what became of an attempt whose answer was lost. Until then its batch stays with its workflow.

committed: the platform may have heard a request of the batch
    ── a look shows its job, whichever request started it ──► running: followed like any other (`services/track.py`)
    └─ two minutes after a request a complete list does not show it: a round
           first and second round ──► the same batch again, under the same names ──► committed
                (not while any new job is active: a request would be in vain)
           third round, or the workflow left the pool ──► let go: the documents go back to the queue
                (not while a job may still run that may be the attempt's)
           the workflow was deleted ──► let go

So: request at 0:00; answer given up at 2:00, look, second request; 4:00 look, third request; 6:00 look, let go. While
an answer is waited for nobody looks; when it breaks off earlier, looks begin at once. A busy answer to a second request
proves nothing: the active job may be the first one's.
"""

from dataclasses import replace

from aws_lambda_powertools import Logger

from workflow_trigger.domain.clock import has_passed
from workflow_trigger.domain.doubt import PATIENCE_SECONDS, DoubtKind
from workflow_trigger.domain.errors import LeaseEnded, NotFound, OutcomeUnknown, Throttled, Unavailable
from workflow_trigger.domain.job import FileStatus
from workflow_trigger.domain.matching import Search, candidates, match
from workflow_trigger.domain.model import Document, Phase, Status, Workflow
from workflow_trigger.domain.retry import ROUNDS
from workflow_trigger.services.context import Context
from workflow_trigger.services.send import LEASE_SECONDS, SETTLE_SECONDS, job_updates, send

_INFER_NOTHING_SECONDS = 3_600.0  # after an attempt was let go, or answered as busy by a job that hides its files

logger = Logger(child=True)


def expire_lease(context: Context, workflow: Workflow) -> Workflow:
    """The sender died, or froze, before this request was complete; its next write will be refused.

    Nothing runs, unless an earlier request of the attempt is unsettled: then it goes on being settled.
    """
    logger.warning("lease ended", **workflow.log_fields)
    if workflow.attempt.is_unsettled:
        after = workflow.with_attempt(lease_ends_at=None, settle_after=context.iso_later(SETTLE_SECONDS))
        return context.commit(workflow, replace(after, phase=Phase.COMMITTED))
    error = LeaseEnded("the invocation ended before it had sent the files")
    return context.fail(workflow, error, _documents(context, workflow))


def settle(context: Context, workflow: Workflow) -> Workflow:
    """One look at the workflow's jobs, and what follows from it.

    Raises:
        PlatformError: the list is not complete, or not ours to see; it proves nothing.
    """
    if not workflow.lease_has_ended(context.clock.now()):
        return workflow
    workflow = named(context, workflow)
    is_round_due = has_passed(workflow.attempt.settle_after, context.clock.now())  # before, absence proves nothing
    found, is_busy = _look(context, workflow, is_round_due=is_round_due)
    if found.job is not None:
        logger.info("settled", job_id=found.job.id, inferred=found.is_inferred, **workflow.log_fields)
        context.counts.add("Settled")
        updates = job_updates(found.job, workflow.attempt, error=None, inferred=found.is_inferred or None)
        return context.commit(workflow, workflow.running(found.job), updates)
    if not is_round_due:
        return workflow
    if found.unexplained:
        ids = [job.id for job in found.unexplained]
        logger.error("a job that hides its files may be the batch's", workflow_id=workflow.workflow_id, job_ids=ids)
    may_run = any(not job.state.has_ended for job in found.unexplained)
    return _after_round(context, workflow, may_run=may_run, is_busy=is_busy)


def named(context: Context, workflow: Workflow) -> Workflow:
    """The same with the name of every document. An item of 0.2.0 has none; the documents themselves do."""
    missing = [key for key, name in workflow.attempt.documents.items() if name is None]
    if not missing:
        return workflow
    names = {key: each.upload_name for key, each in context.ledger.documents(missing).items()}
    return workflow.with_attempt(documents={**workflow.attempt.documents, **names})


def _look(context: Context, workflow: Workflow, *, is_round_due: bool) -> tuple[Search, bool]:
    """What the list shows of an attempt; and whether any new job at all is active: then a request would be in vain."""
    attempt, now = workflow.attempt, context.clock.now()
    # What the platform has not told for so long after a round was due counts as never told.
    is_old = has_passed(attempt.settle_after, now, seconds=PATIENCE_SECONDS[DoubtKind.NAMES_MISSING])
    try:
        new = candidates(context.client.jobs(workflow.workflow_id), attempt, workflow.known_job_ids)
    except (NotFound, Unavailable) as error:  # a workflow that was deleted may have no list at all
        has_no_list = isinstance(error, NotFound) or is_old
        if not (has_no_list and context.is_gone(workflow.workflow_id)):
            raise
        new = []
    may_infer = not workflow.let_go_at or has_passed(workflow.let_go_at, now, seconds=_INFER_NOTHING_SECONDS)

    def ask_names(job_id: str) -> FileStatus:
        try:
            return context.client.names(job_id)
        except (Throttled, Unavailable):
            if not is_old:
                raise
            return FileStatus()

    found = match(new, attempt, ask_names, may_infer=is_round_due and may_infer)
    return found, any(job.state.is_active for job in new)


def _after_round(context: Context, workflow: Workflow, *, may_run: bool, is_busy: bool) -> Workflow:
    """A complete list does not show the job of a request that is two minutes old: send it again, or let go."""
    rounds, settle_after = workflow.attempt.rounds + 1, context.iso_later(SETTLE_SECONDS)
    after = workflow.with_attempt(rounds=rounds, settle_after=settle_after)
    logger.warning("not accepted so far", rounds=rounds, **workflow.log_fields)
    documents = _documents(context, workflow)
    may_let_go = rounds >= ROUNDS or not context.is_in_pool(workflow.workflow_id)
    is_gone = context.is_gone(workflow.workflow_id)  # raises for a key of another workspace, whose lists are empty
    if is_gone or (may_let_go and not may_run):
        context.counts.add("Settled")
        reason = (workflow.last_error or {}).get("message", "no answer, and no job was found")
        # `after_failure` counts `rounds` as lost requests. While another job is active, no round has sent one.
        requests = 1 if is_busy or workflow.waits_for_another_job else min(rounds, ROUNDS)
        let_go = replace(after, unanswered=after.attempt.upload_names, let_go_at=context.iso_later())
        return context.fail(let_go.with_attempt(rounds=requests), OutcomeUnknown(reason), documents)
    is_whole = len(documents) == len(after.attempt.documents)  # only the very same batch may be sent again
    if may_let_go or is_busy or not context.has_time() or not is_whole:
        return context.commit(workflow, after)
    again = replace(after.with_attempt(lease_ends_at=context.iso_later(LEASE_SECONDS)), phase=Phase.SUBMITTING)
    return send(context, context.commit(workflow, again), documents)


def _documents(context: Context, workflow: Workflow) -> list[Document]:
    """The documents that the attempt still holds, in the order in which they were sent."""
    attempt = workflow.attempt
    read = context.ledger.documents(list(attempt.documents))
    found = (read[key] for key in attempt.documents if key in read)
    return [each for each in found if each.attempt_id == attempt.id and each.status is Status.SUBMITTING]
