"""The commands that look: their options, and how they end."""

import json
import sys
import time
from collections.abc import Iterator
from typing import Annotated, NoReturn

import typer
from botocore.exceptions import BotoCoreError, ClientError
from rich.live import Live

from workflow_trigger_cli import views
from workflow_trigger_cli.commands.doctor import Doctor
from workflow_trigger_cli.commands.find import find as find_object
from workflow_trigger_cli.commands.findings import Finding, Health
from workflow_trigger_cli.commands.fix import fix as fix_stack
from workflow_trigger_cli.commands.status import RowCounter, StackState, collect_status
from workflow_trigger_cli.errors import Exit
from workflow_trigger_cli.options import DEFAULT_STACK, Json, Name, Profile, Region, Yes
from workflow_trigger_cli.stack import Stack
from workflow_trigger_cli.terminal import ask, jsonable, print_json, show, stderr, stdout


def status(
    *,
    stack: Name = DEFAULT_STACK,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Refresh until Ctrl-C.")] = False,
    seconds: Annotated[float, typer.Option(min=0.5, help="Seconds between refreshes.")] = 2.0,
    count_all: Annotated[bool, typer.Option("--all", help="Count all documents of a large ledger.")] = False,
    region: Region = None,
    profile: Profile = None,
    as_json: Json = False,
) -> None:
    """Show documents by status, the longest wait, every workflow, and dead letters."""
    found = Stack.find(stack, region=region, profile=profile)
    counter = RowCounter(found, count_all=count_all)
    if watch:
        _watch(found, counter, seconds, as_json=as_json)
    state = collect_status(found, counter.count())
    show(state, views.status_screen(state), as_json=as_json)
    raise typer.Exit(Exit.ATTENTION if state.attention else Exit.OK)


def _watch(stack: Stack, counter: RowCounter, seconds: float, *, as_json: bool) -> NoReturn:
    """Refresh until it is interrupted."""
    try:
        if as_json:
            for state in _states(stack, counter, seconds):
                sys.stdout.write(json.dumps(jsonable(state), default=str) + "\n")
                sys.stdout.flush()
        with Live(console=stdout, auto_refresh=False, vertical_overflow="visible") as live:
            for state in _states(stack, counter, seconds):
                live.update(views.status_screen(state), refresh=True)
    except KeyboardInterrupt:
        pass
    raise typer.Exit(Exit.OK)


def _states(stack: Stack, counter: RowCounter, seconds: float) -> Iterator[StackState]:
    """States, one after the other. A query that fails is reported and tried again."""
    while True:
        try:
            yield collect_status(stack, counter.count())
        except (ClientError, BotoCoreError) as error:
            stderr.print(f"[yellow]{views.visible(error)}[/]")
        time.sleep(seconds)


def find(
    url: Annotated[str, typer.Argument(metavar="s3://BUCKET/KEY", help="The object.")],
    *,
    stack: Name = DEFAULT_STACK,
    region: Region = None,
    profile: Profile = None,
    as_json: Json = False,
) -> None:
    """Show every version of an object: its job, what happened, and what to do."""
    findings = find_object(Stack.find(stack, region=region, profile=profile), url)
    show(findings, views.find_screen(findings), as_json=as_json)
    raise typer.Exit(Exit.ATTENTION if findings.needs_attention else Exit.OK)


def doctor(
    *,
    stack: Name = DEFAULT_STACK,
    fix: Annotated[
        bool, typer.Option("--fix", help="Fix what needs no deployment: notifications and schedule.")
    ] = False,
    yes: Yes = False,
    region: Region = None,
    profile: Profile = None,
    as_json: Json = False,
) -> None:
    """Check every part between the bucket and the ledger, and name the command that fixes each problem."""
    found = Stack.find(stack, region=region, profile=profile)
    if fix:
        ask(f"Fix the notifications of {found['SourceBucket']}, the rule and the schedule?", yes=yes, as_json=as_json)
        for line in fix_stack(found):
            (stderr if as_json else stdout).print(f"[green]fixed[/] {views.visible(line)}")
    findings: list[Finding] = []
    for finding in Doctor(found).findings():
        findings.append(finding)
        if not as_json:
            stdout.print(views.finding_line(finding))
    if as_json:
        print_json(findings)
    has_failed = any(finding.health is Health.FAILED for finding in findings)
    raise typer.Exit(Exit.ATTENTION if has_failed else Exit.OK)
