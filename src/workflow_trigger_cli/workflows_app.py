"""`workflow-trigger workflows`: the commands, their options, what they ask, and how they end."""

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from workflow_trigger.adapters.unstructured.api_key import key_in
from workflow_trigger.adapters.unstructured.client import PlatformClient
from workflow_trigger.domain.errors import PlatformError
from workflow_trigger_cli import views
from workflow_trigger_cli.commands import workflows
from workflow_trigger_cli.commands.findings import Health, checked
from workflow_trigger_cli.errors import CommandError, Exit, UsageError
from workflow_trigger_cli.options import CaBundle, Json, Profile, Region
from workflow_trigger_cli.platform_workflows import GivenKey, listed
from workflow_trigger_cli.stack import Stack
from workflow_trigger_cli.terminal import interruptible, print_json, secret, stderr, stdout, working

workflows_app = typer.Typer(no_args_is_help=True, help="Create, list and check workflows of the platform.")

Url = Annotated[str, typer.Option("--api-url", envvar="UNSTRUCTURED_API_URL", help="Address of the platform.")]
KeyStack = Annotated[
    str | None, typer.Option("--stack", help="Read the API key from this stack's secret. Default: ask for it.")
]


def _stack(name: str | None, region: str | None, profile: str | None) -> Stack | None:
    return Stack.find(name, region=region, profile=profile) if name is not None else None


def _workspace(url: str, ca_bundle: Path | None, stack: Stack | None) -> PlatformClient:
    """The workspace of a key, which never comes from an argument."""
    if stack is not None:
        return workflows.workspace_of(stack)
    try:
        trusted = ca_bundle.read_text() if ca_bundle else ""
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{ca_bundle} cannot be read: {error}") from error
    key = key_in(secret("API key"))
    if not key:
        raise UsageError("That cannot be an API key: it is one word of ASCII characters")
    return workflows.workspace(url, GivenKey(key), trusted)


@workflows_app.command("create")
def workflows_create(
    *,
    name: Annotated[str, typer.Option(help="Name of the workflow; with --count, followed by a number.")],
    count: Annotated[int, typer.Option(min=1, max=200, help="How many to create.")] = 1,
    template: Annotated[Path | None, typer.Option(metavar="FILE", help="JSON with the nodes of the workflow.")] = None,
    url: Url = workflows.DEFAULT_URL,
    ca_bundle: CaBundle = None,
    stack: KeyStack = None,
    region: Region = None,
    profile: Profile = None,
    as_json: Json = False,
) -> None:
    """Create workflows that take files, and print the command that deploys a stack with them."""
    if not name.strip():
        raise UsageError("--name is empty")
    created = []
    found = _stack(stack, region, profile)
    told = (
        "One more may have been created: workflow-trigger workflows list. Running it again creates all of them again."
    )
    try:
        with interruptible(told):
            for each in workflows.create(_workspace(url, ca_bundle, found), name, count, template):
                created.append(each)
                stderr.print(f"[green]created[/] {views.visible(each.name)}  {each.id}")
    finally:
        if as_json:
            print_json([dataclasses.asdict(each) for each in created])
        elif created:
            line = workflows.deploy_line(created, url, found)
            stdout.print(line, markup=False)
            if len(line) > workflows.NAMES_LIMIT + 200:
                stderr.print("[yellow]So many names may not fit into a function's environment of 4 KB.[/]")
            if ca_bundle and found is None:
                stderr.print(f"Put {views.visible(str(ca_bundle))} into a secret, and add CaBundleSecretArn=ARN to it.")


@workflows_app.command("list")
def workflows_list(
    *,
    url: Url = workflows.DEFAULT_URL,
    ca_bundle: CaBundle = None,
    stack: KeyStack = None,
    region: Region = None,
    profile: Profile = None,
    as_json: Json = False,
) -> None:
    """List the workflows of the workspace, and whether a pool can use them."""
    found = []
    try:
        for each in listed(_workspace(url, ca_bundle, _stack(stack, region, profile))):
            found.append(each)
            if not as_json:
                stdout.print(views.finding_line(checked(each)))
    except PlatformError as error:
        raise CommandError(str(error)) from error
    if as_json:
        print_json([dataclasses.asdict(each) | dataclasses.asdict(checked(each)) for each in found])


@workflows_app.command("check")
def workflows_check(
    names: Annotated[list[str], typer.Argument(metavar="ID...", help="Ids or keys of workflows.")],
    *,
    url: Url = workflows.DEFAULT_URL,
    ca_bundle: CaBundle = None,
    stack: KeyStack = None,
    region: Region = None,
    profile: Profile = None,
    as_json: Json = False,
) -> None:
    """Check whether workflows can be in a pool: no source, no schedule, active, used by nothing else."""
    workspace = _workspace(url, ca_bundle, _stack(stack, region, profile))
    findings = []
    for name in names:
        with working(f"reading the jobs of {views.visible(name)}"):
            findings.append(workflows.check(workspace, name))
        if not as_json:
            stdout.print(views.finding_line(findings[-1]))
    if as_json:
        print_json(findings)
    has_failed = any(each.health is Health.FAILED for each in findings)
    raise typer.Exit(Exit.ATTENTION if has_failed else Exit.OK)
