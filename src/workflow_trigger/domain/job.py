"""The platform's job, as far as its answers tell."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class JobState(StrEnum):
    """What an answer says of a job, or its details of the processing, whatever words the platform has for it."""

    SCHEDULED = "scheduled"
    RUNNING = "running"
    COMPLETED = "completed"
    PARTLY = "partly"  # ended, and some files failed
    STOPPED = "stopped"
    FAILED = "failed"
    UNKNOWN = "unknown"  # a word that we do not know

    @property
    def is_active(self) -> bool:
        """Whether the job holds its workflow. Of an unknown state, a busy answer would tell."""
        return self in {JobState.SCHEDULED, JobState.RUNNING}

    @property
    def has_ended(self) -> bool:
        """Whether it comes to no other end."""
        return not self.is_active and self is not JobState.UNKNOWN


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """The vendor's JobInformation. The two lists are None where the answer left them out."""

    id: str
    workflow_id: str | None = None
    workflow_name: str | None = None
    status: str = "UNKNOWN"  # the platform's word
    state: JobState = JobState.UNKNOWN
    created_at: str | None = None  # with a zone, always
    runtime: str | None = None
    job_type: str | None = None
    input_file_ids: tuple[str, ...] | None = None
    output_node_files: tuple[Mapping[str, Any], ...] | None = None

    def file_names(self) -> tuple[str, ...]:
        """Every id under which the answer mentions a file; empty where it hides them."""
        nodes = (str(node.get("file_id") or "") for node in self.output_node_files or ())
        return tuple(filter(None, (*(self.input_file_ids or ()), *nodes)))


@dataclass(frozen=True, kw_only=True, slots=True)
class Details:
    """How the processing of a job really went. The counts are None where the platform gives no summary."""

    status: str  # the platform's word
    state: JobState
    message: str | None = None
    succeeded: int | None = None
    failed: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class FailedFile:
    """A file of a job that failed, under a name that resembles the one that was sent."""

    document: str
    error: str


@dataclass(frozen=True, kw_only=True, slots=True)
class FileStatus:
    """What `/file-status` tells. Only where `is_complete` does a missing name mean anything."""

    documents: tuple[str, ...] = ()
    failed: tuple[FailedFile, ...] = ()
    succeeded: tuple[str, ...] = ()
    is_complete: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """The active jobs of a workflow, and the platform's time when it answered (ISO 8601, UTC)."""

    active: tuple[Job, ...]
    at: str


def has_ended(job: Job, details: Details) -> bool:
    """Whether the job and its details agree that it ended; of a status that is not known, the details decide."""
    return not job.state.is_active and details.state.has_ended
