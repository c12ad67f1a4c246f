"""The next steps of rows, as the use cases share them; pure."""

from collections.abc import Sequence
from typing import Any

from workflow_trigger.items import job_attributes
from workflow_trigger.job import Job
from workflow_trigger.model import Move, Row, Status, Workflow
from workflow_trigger.objects import RowKey


def set_back_by_rows(workflow: Workflow, rows: Sequence[Row]) -> bool:
    """Whether the rows may have to do with an attempt that came to nothing: once is bad luck, unless one went alone."""
    return workflow.setbacks > 0 or (len(rows) == 1 and rows[0].failures > 0)


def fault(error: Exception) -> dict[str, str]:
    """An error as it is kept in the ledger."""
    return {"type": type(error).__name__, "message": str(error)[:256]}


def running_status(job: Job) -> Status:
    """The row's status while its job's end is not confirmed."""
    return Status.SCHEDULED if job.status == "SCHEDULED" else Status.IN_PROGRESS


def job_moves(job: Job, keys: Sequence[RowKey], to: Status, **more: Any) -> list[Move]:
    """Write a job into the rows of its files."""
    alone = len(keys) == 1
    return [Move(key=key, to=to, sets={**job_attributes(job, key, alone=alone), **more}) for key in keys]


def accepted_moves(job: Job, keys: Sequence[RowKey], *, inferred: bool) -> list[Move]:
    """The rows' files are in the job, by an answer or, `inferred`, by nothing better than a guess."""
    return job_moves(
        job, keys, running_status(job), error=None, bound_to=None, bound_since=None, inferred=inferred or None
    )
