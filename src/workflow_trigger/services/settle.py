"""Use case: find out what became of an attempt whose answer was lost. Until then its batch stays with its workflow.

committed ── a list of jobs shows it ──► running
    └─ two minutes later a complete list shows nothing: a round
           first and second round ──► the same batch again, under the same names ──► committed
           third round, or the workflow is gone or left the pool ──► let go: the documents go back
"""

from collections.abc import Sequence
from dataclasses import replace

from aws_lambda_powertools import Logger

from workflow_trigger.domain.clock import has_passed, iso
from workflow_trigger.domain.errors import LeaseEnded, NotFound, OutcomeUnknown, Throttled, Unavailable
from workflow_trigger.domain.job import FileStatus
from workflow_trigger.domain.matching import Evidence, Match, candidates, match
from workflow_trigger.domain.model import Attempt, Document, Phase, Status, Transition, Workflow, names_of
from workflow_trigger.domain.retry import ROUNDS, after_failure
from workflow_trigger.services.context import Context
from workflow_trigger.services.send import LEASE_SECONDS, SETTLE_SECONDS, accepted, send

_NAMES_TIMEOUT_SECONDS = 900.0  # names that are not told until then are hidden
_INFER_NOTHING_SECONDS = 3_600.0  # after an attempt was let go

logger = Logger(child=True)


def expire_lease(context: Context, workflow: Workflow) -> Workflow:
    """The sender died, or froze, before this request was complete; its next write will be refused.

    Nothing runs, unless an earlier request of the attempt is unsettled: then it goes on being settled.
    """
    attempt = workflow.attempt
    logger.warning("lease ended", workflow_id=workflow.workflow_id, attempt_id=workflow.holder)
    if attempt is not None and attempt.rounds:
        after = workflow.with_attempt(lease_ends_at=None, settle_after=iso(context.later(SETTLE_SECONDS)))
        return context.commit(Transition(workflow, replace(after, phase=Phase.COMMITTED)))
    error = LeaseEnded("the invocation ended before it had sent the files")
    return _let_go(context, workflow, error, _documents(context, workflow))


def settle(context: Context, workflow: Workflow) -> Workflow:
    """One look at the workflow's jobs, and what follows from it.

    Raises:
        PlatformError: the list is not complete, or not ours to see; it proves nothing.
    """
    if workflow.attempt is None or not workflow.lease_has_ended(context.clock.now()):
        return workflow
    attempt = context.named(workflow.attempt)
    is_time = has_passed(attempt.settle_after, context.clock.now())  # a list proves nothing that was begun before
    found, is_busy = _look(context, workflow, attempt, is_time=is_time)
    if found is not None:
        return _found(context, workflow, attempt, found)
    if not is_time:
        return workflow
    return _after_round(context, workflow, attempt, is_busy=is_busy)


def is_gone(context: Context, workflow: Workflow) -> bool:
    """Whether a workflow was deleted, told from a key that shows another workspace.

    Raises:
        NotFound: no workflow of the pool is to be seen, so the key may be of another workspace.
    """
    if context.client.has_workflow(workflow.workflow_id):
        return False
    pool = context.settings.workflow_ids
    others = [each for each in pool if each != workflow.workflow_id]
    if workflow.workflow_id in pool and not any(map(context.client.has_workflow, others)):
        raise NotFound(
            f"workflow {workflow.workflow_id} is not to be seen: deleted, or the key is of another workspace"
        )
    return True


def _look(context: Context, workflow: Workflow, attempt: Attempt, *, is_time: bool) -> tuple[Match | None, bool]:
    """The job of an attempt, if the list shows it; and whether another new job is active."""
    try:
        new = candidates(context.client.jobs(workflow.workflow_id), attempt, workflow.known_job_ids)
    except NotFound:
        if not is_gone(context, workflow):
            raise
        new = []
    now = context.clock.now()
    may_infer = not workflow.let_go_at or has_passed(workflow.let_go_at, now, seconds=_INFER_NOTHING_SECONDS)

    def ask_names(job_id: str) -> FileStatus:
        try:
            return context.client.names(job_id)
        except (Throttled, Unavailable):
            if not has_passed(attempt.settle_after, now, seconds=_NAMES_TIMEOUT_SECONDS):
                raise
            return FileStatus()

    found = match(new, attempt, ask_names, may_infer=is_time and may_infer)
    return found, any(job.is_active for job in new)


def _found(context: Context, workflow: Workflow, attempt: Attempt, found: Match) -> Workflow:
    logger.info("settled", workflow_id=workflow.workflow_id, job_id=found.job.id, evidence=found.evidence.value)
    context.counts.add("Settled")
    updates = accepted(found.job, attempt, inferred=found.evidence is Evidence.ONLY_CANDIDATE)
    after = replace(workflow, attempt=attempt).running(found.job)
    return context.commit(Transition(workflow, after, updates))


def _after_round(context: Context, workflow: Workflow, attempt: Attempt, *, is_busy: bool) -> Workflow:
    """A complete list showed nothing of a request that is older than two minutes: send it again, or let go."""
    attempt = replace(attempt, rounds=attempt.rounds + 1)
    logger.warning("not accepted so far", workflow_id=workflow.workflow_id, rounds=attempt.rounds)
    documents = _documents(context, workflow)
    is_in_pool = workflow.workflow_id in context.settings.workflow_ids
    if attempt.rounds >= ROUNDS or not is_in_pool or is_gone(context, workflow):
        context.counts.add("Settled")
        reason = (workflow.last_error or {}).get("message", "no answer, and no job was found")
        let_go = replace(workflow, unanswered=names_of(attempt), let_go_at=iso(context.clock.now()))
        return _let_go(context, workflow, OutcomeUnknown(reason), documents, let_go)
    attempt = replace(attempt, settle_after=iso(context.later(SETTLE_SECONDS)))
    if is_busy or not context.has_time() or len(documents) < len(attempt.documents):
        return context.commit(Transition(workflow, replace(workflow, attempt=attempt)))
    attempt = replace(attempt, lease_ends_at=iso(context.later(LEASE_SECONDS)))
    again = Transition(workflow, replace(workflow, phase=Phase.SUBMITTING, attempt=attempt))
    return send(context, context.commit(again), documents)


def _let_go(
    context: Context,
    before: Workflow,
    error: LeaseEnded | OutcomeUnknown,
    documents: Sequence[Document],
    workflow: Workflow | None = None,
) -> Workflow:
    """It counts as certain now that nothing runs: the documents go back. `workflow`: `before`, and what to remember."""
    decision = after_failure(error, workflow or before, documents, context.circumstances())
    for name in decision.metrics:
        context.counts.add(name)
    return context.commit(Transition(before, decision.workflow, decision.updates))


def _documents(context: Context, workflow: Workflow) -> list[Document]:
    """The documents that the attempt still holds, in the order in which they were sent."""
    attempt = workflow.attempt
    if attempt is None or not attempt.documents:
        return []
    read = context.ledger.documents(attempt.keys)
    found = (read[key] for key in attempt.keys if key in read)
    return [each for each in found if each.attempt_id == attempt.id and each.status is Status.SUBMITTING]
