"""`workflows`: create workflows that take files, list them, and check whether a pool can use them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from workflow_trigger.adapters.unstructured.connections import Connections
from workflow_trigger.adapters.unstructured.workflows import DEFAULT_NODES, WorkflowInformation, Workflows
from workflow_trigger.domain.errors import PlatformError
from workflow_trigger.settings import api_root
from workflow_trigger_cli.commands.findings import Finding, Health, checked
from workflow_trigger_cli.errors import CommandError, UsageError


def workspace(url: str, key: str) -> Workflows:
    """The workspace of a key.

    Raises:
        UsageError: the address is none of the platform.
    """
    try:
        root = api_root(url)
    except ValueError as error:
        raise UsageError(f"{url} {error}") from error
    return Workflows(api_url=root, key=key, pool=Connections(root).kept)


def create(workflows: Workflows, name: str, count: int, template: Path | None) -> Iterator[WorkflowInformation]:
    """Create `count` workflows, called `name`, or `name-1` and so on.

    Raises:
        CommandError: the platform did not create one; those that were yielded exist.
        UsageError: the template is not a list of nodes, or an object with `workflow_nodes`.
    """
    nodes = _nodes(template) if template else list(DEFAULT_NODES)
    for number in range(1, count + 1):
        try:
            yield workflows.create(name if count == 1 else f"{name}-{number}", nodes)
        except PlatformError as error:
            raise CommandError(f"Workflow {number} of {count} was not created: {error}") from error


def _nodes(template: Path) -> list[Any]:
    try:
        found = json.loads(template.read_text())
    except (OSError, ValueError) as error:
        raise UsageError(f"{template} cannot be read as JSON: {error}") from error
    nodes = found.get("workflow_nodes") if isinstance(found, dict) else found
    if not isinstance(nodes, list) or not nodes:
        raise UsageError(f"{template} must be a list of nodes, or an object with workflow_nodes")
    return nodes


def check(workflows: Workflows, names: list[str]) -> Iterator[Finding]:
    """Whether each workflow can be in a pool.

    Raises:
        CommandError: the platform does not answer.
    """
    for name in names:
        try:
            found = workflows.get(name)
        except PlatformError as error:
            raise CommandError(str(error)) from error
        if found is None:
            says = "unknown to the platform, or not visible with this key"
            yield Finding(check=name, health=Health.FAILED, says=says, fix="workflow-trigger workflows list")
        else:
            yield checked(found)
