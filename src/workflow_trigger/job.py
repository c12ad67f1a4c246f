"""The platform's job, as far as its answers tell, and the jobs that were there before."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Self

from workflow_trigger.clock import iso, parse_time
from workflow_trigger.objects import RowKey, token_of

JOB_ACTIVE = frozenset({"SCHEDULED", "IN_PROGRESS"})
JOB_ENDED = frozenset({"COMPLETED", "STOPPED", "FAILED"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """The vendor's JobInformation. The two lists are None where the answer left them out."""

    id: str
    workflow_id: str | None
    workflow_name: str | None
    status: str
    created_at: str | None  # with a zone, always
    runtime: str | None
    job_type: str | None
    input_file_ids: tuple[str, ...] | None
    output_node_files: tuple[Mapping[str, Any], ...] | None

    @property
    def is_active(self) -> bool:
        """Whether the job says that it holds its workflow. Of a status that is not known, a busy answer would tell."""
        return self.status in JOB_ACTIVE

    def created(self) -> datetime | None:
        """`created_at` as a time; a value without a zone is UTC."""
        return parse_time(self.created_at)

    def of_file(self, key: RowKey) -> Self:
        """The same job with the list entries of one file, where ids show whose they are."""
        token = token_of(key)
        ids, nodes = self.input_file_ids, self.output_node_files
        if ids is not None and any(token in file_id for file_id in ids):
            ids = tuple(file_id for file_id in ids if token in file_id)
        if nodes is not None and any(token in str(node.get("file_id")) for node in nodes):
            nodes = tuple(node for node in nodes if token in str(node.get("file_id")))
        return replace(self, input_file_ids=ids, output_node_files=nodes)


@dataclass(frozen=True, kw_only=True, slots=True)
class Details:
    """How the processing of a job really went."""

    processing_status: str
    message: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class FailedFile:
    """A file of a job that failed, under a name that resembles the one that was sent."""

    document: str
    error: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Baseline:
    """The jobs that were there before an attempt: the newest ids, and how far back they reach (None: to the first).

    `newest` is when the youngest of them was created. All times are the platform's own.
    """

    ids: frozenset[str] = frozenset()
    reaches_back_to: str | None = None
    newest: str | None = None

    @classmethod
    def of(cls, jobs: list[Job], limit: int = 20) -> Self:
        """The newest `limit` of the listed jobs, and all that are active."""
        by_age = sorted(jobs, key=lambda job: iso(job.created() or datetime.max.replace(tzinfo=UTC)), reverse=True)
        kept = by_age[:limit]
        oldest = kept[-1].created() if len(by_age) > limit else None
        active = {job.id for job in by_age if job.is_active}
        created = [moment for job in kept if (moment := job.created())]
        return cls(
            ids=frozenset(job.id for job in kept) | active,
            reaches_back_to=iso(oldest) if oldest else None,
            newest=iso(max(created)) if created else None,
        )

    def is_new(self, job: Job) -> bool:
        """Whether the job was not there before."""
        if job.id in self.ids:
            return False
        created, limit = job.created(), parse_time(self.reaches_back_to)
        return created is None or limit is None or created >= limit
