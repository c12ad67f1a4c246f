"""The vendor's answers and requests, as its OpenAPI publishes them."""

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel


# As in the vendor's contract; a docstring would show in the published one.
class JobStatus(StrEnum):  # noqa: D101
    SCHEDULED = "SCHEDULED"
    IN_PROGRESS = "IN_PROGRESS"
    COMPLETED = "COMPLETED"
    STOPPED = "STOPPED"
    FAILED = "FAILED"


class WorkflowJobType(StrEnum):  # noqa: D101
    EPHEMERAL = "ephemeral"
    PERSISTENT = "persistent"
    SCHEDULED = "scheduled"
    TEMPLATE = "template"


class NodeFileMetadata(BaseModel):  # noqa: D101
    node_id: UUID
    file_id: str
    node_type: str
    node_subtype: str


class JobInformation(BaseModel):  # noqa: D101
    id: UUID
    workflow_id: UUID
    workflow_name: str
    status: JobStatus
    created_at: datetime
    runtime: timedelta | None = None
    input_file_ids: list[str] | None = None
    output_node_files: list[NodeFileMetadata] | None = None
    job_type: WorkflowJobType = WorkflowJobType.EPHEMERAL


class CreateWorkflow(BaseModel):
    """What creates a workflow."""

    name: str
    workflow_type: Literal["basic", "advanced", "platinum", "custom"]
    workflow_nodes: list[dict[str, Any]] | None = None
    source_id: str | None = None
    schedule: str | None = None
    key: str | None = None
