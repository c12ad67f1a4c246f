"""Jobs of earlier attempts that turn up late: the answer was lost, and as long as it was looked for, there was none."""

from collections.abc import Callable, Iterable, Sequence

from aws_lambda_powertools import Logger

from workflow_trigger.decisions import Evidence, Found, find_named, find_ours
from workflow_trigger.invocation import Invocation
from workflow_trigger.job import Baseline, Job
from workflow_trigger.model import Row, Status, Workflow
from workflow_trigger.objects import RowKey

logger = Logger(child=True)


class LostRows:
    """The rows that wait for one workflow, for a lost answer of theirs may still turn up there."""

    def __init__(self, invocation: Invocation, workflow: Workflow, meanwhile: Callable[[], None]) -> None:
        self._invocation = invocation
        self._workflow = workflow
        self._meanwhile = meanwhile
        self.rows: dict[RowKey, Row] = {}
        self.last: tuple[RowKey, ...] = ()  # those of them that went together the last time

    def late_job(self, jobs: Sequence[Job], line: Sequence[Row]) -> Found | None:
        """A job that an earlier attempt on this workflow started after all, later than it was looked for.

        By its name each row is looked for since its own loss, however many attempts came between; by anything else
        only those that were lost last, among the jobs that are new since then.
        """
        workflow = self._workflow
        lost = self._invocation.ledger.rows(workflow.lost_rows).values() if workflow.lost_rows else []
        waiting = [*line, *(row for row in lost if row.status is Status.PENDING)]
        self.rows = {row.key: row for row in waiting if row.bound_to == workflow.workflow_id}
        self.last = tuple(key for key in workflow.lost_rows if key in self.rows)
        if not self.rows:
            return None
        rows = self.rows.values()
        documents = self._documents(max(row.seen for row in rows))
        new = [job for job in jobs if workflow.baseline.is_new(job)]
        found = find_ours(new, workflow.baseline, self.last, documents)
        if found and found.evidence is Evidence.TOKENS:
            return found
        since = None if any(row.bound_since is None for row in rows) else min(row.bound_since or "" for row in rows)
        known = frozenset(job_id for row in rows for job_id in row.earlier_job_ids)
        baseline = Baseline(ids=known, reaches_back_to=since)
        named = find_named(jobs, baseline, [*self.rows], documents)
        if named is None:
            return found if found and is_sure(self._invocation, workflow, found) else None
        # All rows that the job names are its, wherever in the line they are.
        for row in self._invocation.ledger.line.bound_to(workflow.workflow_id):
            if named.job.id not in row.earlier_job_ids:
                self.rows.setdefault(row.key, row)
        return find_named([named.job], Baseline(), [*self.rows], documents)

    def _documents(self, since: str) -> Callable[[str], Sequence[str]]:
        """How to ask for a job's documents, which may take its time; not for ever since rows were last written."""
        ask = self._invocation.documents_since(since)

        def documents(job_id: str) -> Sequence[str]:
            self._meanwhile()
            return ask(job_id)

        return documents


def is_sure(invocation: Invocation, workflow: Workflow, found: Found, held: Iterable[Row] = ()) -> bool:
    """Whether a job can be of no rows but these.

    What nothing names may be that of any rows that were lost here before, those that an attempt holds by now among
    them. To run one of two sets again is better than neither.
    """
    if found.evidence is Evidence.TOKENS:
        return True
    lost_before = {row.key for row in held if row.bound_to}
    others = lost_before.union(row.key for row in invocation.ledger.line.bound_to(workflow.workflow_id)) - {*found.rows}
    return not others or others | {*found.rows} <= {*workflow.lost_rows}


def report_second_runs(invocation: Invocation, workflow: Workflow, jobs: Sequence[Job]) -> None:
    """What no client can prevent here, an acceptance later than the next attempt's whole job, is at least told."""
    new = [job for job in jobs if workflow.baseline.is_new(job)]
    found = find_named(new, Baseline(), workflow.rows)
    if found is None:
        return
    for row in invocation.ledger.rows(found.rows).values():
        if row.job_id not in {None, found.job.id}:
            invocation.count("LateAcceptance", 1)
            logger.error("an object ran twice", object_key=row.key.object, job_id=found.job.id, first=row.job_id)
