"""`workflows`: create workflows that take files, list them, and check whether a pool can use them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from workflow_trigger.adapters.unstructured.api_key import ApiKey
from workflow_trigger.adapters.unstructured.connections import Connections, ca_certificates
from workflow_trigger.adapters.unstructured.workflows import DEFAULT_NODES, WorkflowInformation, Workflows
from workflow_trigger.domain.errors import PlatformError, SecretUnusable
from workflow_trigger.settings import api_root
from workflow_trigger_cli.commands.findings import Finding, Health, checked
from workflow_trigger_cli.errors import CommandError, UsageError
from workflow_trigger_cli.stack import Stack


def workspace_of(stack: Stack) -> Workflows:
    """The workspace of a stack's key, reached as its functions reach it.

    Raises:
        CommandError: the key, or the certificates to trust, cannot be read. UsageError: as `workspace`.
    """
    secrets = stack.client("secretsmanager")
    try:
        key = ApiKey(secrets, stack["ApiKeySecret"]).value()
        trusted = ca_certificates(secrets, stack.parameters.get("CaBundleSecretArn", ""))()
    except PlatformError as error:
        raise CommandError(str(error)) from error
    return workspace(stack.parameters["UnstructuredApiUrl"], key, trusted)


def workspace(url: str, key: str, trusted: str = "") -> Workflows:
    """The workspace of a key. `trusted`: certificates (PEM) of a private authority.

    Raises:
        UsageError: the address is none of the platform, or the certificates cannot be read.
    """
    try:
        root = api_root(url)
    except ValueError as error:
        raise UsageError(f"{url} {error}") from error
    try:
        return Workflows(api_url=root, key=key, pool=Connections(root, lambda: trusted).kept)
    except SecretUnusable as error:
        raise UsageError("The bundle of certificates cannot be read") from error


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
