"""`cancel`: end documents that wait, and stop the jobs of those that run."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from workflow_trigger.adapters.dynamodb.mapping import Item
from workflow_trigger.adapters.unstructured.client import PlatformClient
from workflow_trigger.domain.document import DocumentKey
from workflow_trigger.domain.errors import Misconfigured, NotSent, PlatformError, Throttled
from workflow_trigger.domain.model import RUNNING, Phase, Status
from workflow_trigger_cli.stack import Stack

TOLD = "told to stop"


@dataclass(kw_only=True, slots=True)
class RunningJob:
    """A job with selected documents. `others` are in it as well, and were not selected. `answer`: what became of it."""

    job_id: str
    workflow_id: str
    selected: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    answer: str = ""


def cancel_waiting(stack: Stack, rows: Iterable[Item], reason: str, progress: Callable[[], None]) -> int:
    """End documents that wait; those that have changed since are left out. Returns how many ended."""
    ledger = stack.ledger()
    done = 0
    for row in rows:
        if row["status"] == Status.PENDING and "bound_to" not in row:
            done += ledger.cancel(row, reason)
        progress()
    return done


def running_jobs(stack: Stack, rows: Iterable[Item]) -> list[RunningJob]:
    """The jobs that are active with any of the rows, and whose files are in them."""
    selected = {DocumentKey(row["object"], row["version"]) for row in rows if row["status"] in RUNNING}
    found = []
    for workflow in stack.ledger().snapshot([]).workflows:
        keys = list(workflow.attempt.documents)
        if workflow.phase is Phase.RUNNING and workflow.job_id and selected.intersection(keys):
            own = [each.object for each in keys if each in selected]
            others = [each.object for each in keys if each not in selected]
            found.append(
                RunningJob(job_id=workflow.job_id, workflow_id=workflow.workflow_id, selected=own, others=others)
            )
    return found


def cancel_job(platform: PlatformClient, job: RunningJob) -> bool:
    """Ask the platform to stop a job. What became of its files is in the ledger as soon as the job has ended."""
    try:
        platform.cancel(job.job_id)
    except (Misconfigured, Throttled, NotSent) as error:
        job.answer = f"not stopped: {error}"
        return False
    except PlatformError as error:
        job.answer = f"perhaps not stopped: {error}"
        return False
    job.answer = TOLD
    return True
