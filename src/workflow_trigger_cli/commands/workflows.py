"""`workflows`: create workflows that take files, list them, and check whether a pool can use them."""

import json
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from workflow_trigger.adapters.unstructured.api_key import ApiKey
from workflow_trigger.adapters.unstructured.client import PlatformClient
from workflow_trigger.adapters.unstructured.connections import Connections, ca_certificates
from workflow_trigger.domain.clock import Clock, Deadline
from workflow_trigger.domain.errors import OutcomeUnknown, PlatformError, SecretUnusable, Unavailable
from workflow_trigger.domain.job import Job
from workflow_trigger.domain.matching import any_has_token, ids_tell_whose
from workflow_trigger.settings import api_root
from workflow_trigger_cli.commands.findings import Finding, Health, checked
from workflow_trigger_cli.errors import CommandError, UsageError
from workflow_trigger_cli.platform_workflows import DEFAULT_NODES, WorkflowInformation, get
from workflow_trigger_cli.platform_workflows import create as create_workflow
from workflow_trigger_cli.stack import Stack

DEFAULT_URL = "https://platform.unstructuredapp.io"
_PATIENCE_SECONDS = 86_400.0  # a person can press Ctrl-C
NAMES_LIMIT = 2_600  # characters: Lambda's environment holds 4 KB, and the other settings need their share


def workspace_of(stack: Stack) -> PlatformClient:
    """The workspace of a stack's key, reached as its functions reach it.

    Raises:
        CommandError: the key, or the certificates to trust, cannot be read. UsageError: as `workspace`.
    """
    secrets = stack.client("secretsmanager")
    try:
        key = ApiKey(secrets, stack["ApiKeySecret"])
        key.value()
        trusted = ca_certificates(secrets, stack.parameters.get("CaBundleSecretArn", ""))
        _ = Connections("https:", lambda: trusted).kept  # they are read now, for it is the secret that is wrong
    except PlatformError as error:
        raise CommandError(str(error)) from error
    return workspace(stack.parameters["UnstructuredApiUrl"], key, trusted)


def workspace(url: str, key: ApiKey, trusted: str = "") -> PlatformClient:
    """The workspace of a key. `trusted`: certificates (PEM) of a private authority.

    Raises:
        UsageError: the address is none of the platform, or the certificates cannot be read.
    """
    try:
        root = api_root(url)
    except ValueError as error:
        raise UsageError(f"{url} {error}") from error
    connections, deadline = Connections(root, lambda: trusted), Deadline.in_seconds(Clock(), _PATIENCE_SECONDS)
    try:
        _ = connections.kept  # the certificates are read now
    except SecretUnusable as error:
        raise UsageError("The bundle of certificates cannot be read") from error
    return PlatformClient(api_url=root, api_key=key, connections=connections, deadline=deadline)


def deploy_line(created: Sequence[WorkflowInformation], url: str, stack: Stack | None) -> str:
    """What to type to deploy a stack with new workflows; a stack that is there keeps those that it has.

    By their ids, or by their keys, which are shorter, where so many ids do not fit into a function's environment.
    """
    there = stack.default_pool if stack else []
    pool = ",".join([*there, *(each.id for each in created)])
    if len(pool) > NAMES_LIMIT:
        pool = min(pool, ",".join([*there, *(each.key or each.id for each in created)]), key=len)
    where = f" --stack-name {stack.name} --region {stack.region}" if stack else ""
    more = f" UnstructuredApiUrl={shlex.quote(url)}" if stack is None and api_root(url) != DEFAULT_URL else ""
    return f"sam build && sam deploy{where} --parameter-overrides WorkflowIds={pool}{more}"


def create(platform: PlatformClient, name: str, count: int, template: Path | None) -> Iterator[WorkflowInformation]:
    """Create `count` workflows, called `name`, or `name-1` and so on.

    Raises:
        CommandError: the platform did not create one, or did not say whether it has; those that were yielded exist.
        UsageError: the template is not a list of nodes, or an object with `workflow_nodes`.
    """
    nodes = _nodes(template) if template else list(DEFAULT_NODES)
    for number in range(1, count + 1):
        called = name if count == 1 else f"{name}-{number}"
        try:
            yield create_workflow(platform, called, nodes)
        except (OutcomeUnknown, Unavailable) as error:
            fix = "Look for it with: workflow-trigger workflows list"
            raise CommandError(f"Whether the workflow {called} was created is not known: {error}. {fix}") from error
        except PlatformError as error:
            raise CommandError(f"The workflow {called} was not created: {error}") from error


def _nodes(template: Path) -> list[Any]:
    try:
        found = json.loads(template.read_text())
    except (OSError, ValueError) as error:
        raise UsageError(f"{template} cannot be read as JSON: {error}") from error
    nodes = found.get("workflow_nodes") if isinstance(found, dict) else found
    if not isinstance(nodes, list) or not nodes:
        raise UsageError(f"{template} must be a list of nodes, or an object with workflow_nodes")
    return nodes


def check(platform: PlatformClient, name: str) -> Finding:
    """Whether a workflow can be in a pool, and whether it is used by something else as far as its jobs tell.

    Raises:
        CommandError: the platform does not answer.
    """
    try:
        found = get(platform, name)
        if found is None:
            says = "unknown to the platform, or not visible with this key"
            return Finding(check=name, health=Health.FAILED, says=says, fix="workflow-trigger workflows list")
    except PlatformError as error:
        raise CommandError(str(error)) from error
    finding = checked(found)
    try:
        return finding if finding.health is Health.FAILED else _with_use(finding, platform.jobs(found.id))
    except PlatformError as error:
        return replace(finding, health=Health.UNKNOWN, says=f"{finding.says}; its jobs cannot be read: {error}")


def _with_use(finding: Finding, jobs: Iterator[Job]) -> Finding:
    """The same finding, with what the jobs of a workflow tell of who uses it."""
    total = hidden = 0
    foreign: list[str] = []
    for job in jobs:
        total += 1
        if not ids_tell_whose(job.file_names()):
            hidden += 1
        elif not any_has_token(job.file_names()):
            foreign.append(job.created_at or "")
    if foreign:
        latest = max(foreign)
        says = f"{len(foreign):,} of {total:,} jobs ran files of somebody else{latest and f', the latest on {latest}'}"
        return replace(finding, health=Health.UNKNOWN, says=f"{finding.says}; {says}")
    unclear = f", {hidden:,} without the names of files" if hidden else ""
    says = f"{total:,} job{'s' if total > 1 else ''}, none of somebody else{unclear}" if total else "no job yet"
    return replace(finding, says=f"{finding.says}; {says}")
