"""The vendor's workflows, for people who set a pool up: create, list, describe. The functions do not use it.

Source: https://docs.unstructured.io/api-reference/workflow/workflows
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import urllib3
from urllib3.exceptions import HTTPError

from workflow_trigger.adapters.unstructured.connections import described
from workflow_trigger.adapters.unstructured.responses import error_for_status, error_message, parsed
from workflow_trigger.domain.errors import NotFound, OutcomeUnknown, PlatformError, Unavailable, truncate

_TIMEOUT = urllib3.Timeout(connect=10, read=60)
DEFAULT_NODES = ({"name": "Partitioner", "type": "partition", "subtype": "vlm", "settings": {}},)


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkflowInformation:
    """A workflow as far as it matters to a pool. `kind` is '' where the platform does not say."""

    id: str
    name: str
    key: str | None
    has_source: bool
    has_destination: bool
    kind: str
    is_scheduled: bool
    is_active: bool


class Workflows:
    """The workflows of one workspace."""

    def __init__(self, *, api_url: str, key: str, pool: urllib3.PoolManager) -> None:
        self._root = f"{api_url}/api/v1"
        self._headers = {"unstructured-api-key": key, "Accept": "application/json"}
        self._pool = pool

    def create(self, name: str, nodes: list[Any]) -> WorkflowInformation:
        """Create a workflow that takes files: custom, without a source, a destination and a schedule.

        Raises:
            PlatformError: it was not created; OutcomeUnknown: it may have been.
        """
        body = json.dumps({"name": name, "workflow_type": "custom", "workflow_nodes": nodes})
        return information_from(self._ask("POST", "/workflows/", body))

    def listed(self) -> list[WorkflowInformation]:
        """All workflows of the workspace."""
        answer = self._ask("GET", "/workflows/")
        return [information_from(each) for each in answer] if isinstance(answer, list) else []

    def get(self, workflow: str) -> WorkflowInformation | None:
        """A workflow by its id or key; None where there is none."""
        try:
            return information_from(self._ask("GET", f"/workflows/{quote(workflow, safe='')}"))
        except NotFound:
            return None

    def cancel_job(self, job_id: str) -> None:
        """Ask for a job to be stopped.

        Raises:
            Misconfigured: the platform refuses. PlatformError: it did not say.
        """
        self._ask("POST", f"/jobs/{quote(job_id, safe='')}/cancel")

    def _ask(self, method: str, path: str, body: str | None = None) -> Any:
        headers = self._headers | ({"Content-Type": "application/json"} if body else {})
        more: Any = {"redirect": False, "retries": False, "timeout": _TIMEOUT}
        try:
            response = self._pool.request(method, self._root + path, body=body, headers=headers, **more)
        except (HTTPError, OSError) as error:
            kind: type[PlatformError] = OutcomeUnknown if body else Unavailable
            raise kind(f"No answer from {self._root + path}: {described(error)}") from error
        if not 200 <= response.status < 300:
            unclear = Unavailable(f"HTTP {response.status}: {error_message(response.data)}")
            raise error_for_status(response.status, response.headers, response.data) or unclear
        try:
            return parsed(response.data)
        except ValueError as failed:
            raise Unavailable(f"{self._root + path} did not answer with JSON") from failed


def information_from(answer: Any) -> WorkflowInformation:
    """A workflow, as the platform describes it.

    Raises:
        Unavailable: it is none.
    """
    if not isinstance(answer, Mapping) or not isinstance(answer.get("id"), str):
        raise Unavailable("The platform did not answer with a workflow")
    return WorkflowInformation(
        id=answer["id"],
        name=truncate(str(answer.get("name") or "")),
        key=answer.get("key"),
        has_source=bool(answer.get("sources")),
        has_destination=bool(answer.get("destinations")),
        kind=str(answer.get("workflow_type") or ""),
        is_scheduled=bool((answer.get("schedule") or {}).get("crontab_entries")),
        is_active=answer.get("status", "active") == "active",
    )
