"""`workflow-trigger`: the commands, their options, what they ask, and how they end."""

import dataclasses
import json
import sys
import time
from collections.abc import Iterator
from typing import Annotated, NoReturn

import typer
from botocore.exceptions import BotoCoreError, ClientError
from rich.live import Live
from rich.progress import Progress

from workflow_trigger.domain.document import Lane
from workflow_trigger.domain.model import Status
from workflow_trigger_cli import views
from workflow_trigger_cli.commands.backfill import Backfill, Tally
from workflow_trigger_cli.commands.doctor import Doctor
from workflow_trigger_cli.commands.find import find as find_object
from workflow_trigger_cli.commands.findings import Finding, Health
from workflow_trigger_cli.commands.fix import fix as fix_stack
from workflow_trigger_cli.commands.redrive import redrive as redrive_letters
from workflow_trigger_cli.commands.retry import UNSUCCESSFUL, Choice, count, moment_before_now, reopen, select
from workflow_trigger_cli.commands.status import RowCounter, StackState, collect_status, messages_in
from workflow_trigger_cli.errors import CommandError, Exit
from workflow_trigger_cli.options import DEFAULT_STACK, Json, LaneChoice, Name, Profile, Region, Yes
from workflow_trigger_cli.stack import Stack
from workflow_trigger_cli.terminal import (
    ask,
    columns,
    interruptible,
    jsonable,
    print_json,
    progress,
    show,
    stderr,
    stdout,
)
from workflow_trigger_cli.workflows_app import workflows_app

app = typer.Typer(
    name="workflow-trigger",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Watch and operate a deployed workflow trigger.",
    epilog="Exit codes: 0 ok · 1 something needs attention · 2 usage error · 3 failed · 130 interrupted",
)
app.add_typer(workflows_app, name="workflows")


def main() -> None:
    """Run a command. Errors of AWS become one message on standard error."""
    try:
        app()
    except CommandError as error:
        _fail(str(error), error.exit)
    except (ClientError, BotoCoreError) as error:
        _fail(f"AWS: {error}", Exit.FAILED)


def _fail(message: str, code: Exit) -> NoReturn:
    stderr.print(f"[bold red]workflow-trigger:[/] {views.visible(message)}")
    sys.exit(code)


# -- looking -----------------------------------------------------------------------------------------------------------


@app.command()
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


@app.command()
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


@app.command()
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


# -- steering ----------------------------------------------------------------------------------------------------------


@app.command()
def backfill(
    url: Annotated[str, typer.Argument(metavar="s3://BUCKET/PREFIX", help="The objects to register.")],
    *,
    stack: Name = DEFAULT_STACK,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count, and change nothing.")] = False,
    all_versions: Annotated[bool, typer.Option("--all-versions", help="Include old versions.")] = False,
    include_expired: Annotated[
        bool, typer.Option("--include-expired", help="Include objects whose rows may have expired.")
    ] = False,
    lane: LaneChoice = Lane.BULK,
    even_forgotten: Annotated[bool, typer.Option("--even-forgotten", hidden=True)] = False,
    yes: Yes = False,
    region: Region = None,
    profile: Profile = None,
    as_json: Json = False,
) -> None:
    """Register objects that are already in the bucket and not in the ledger.

    The command counts, then asks. You can interrupt it and run it again.
    With --dry-run it ends with 1 if objects are new.
    """
    found = Stack.find(stack, region=region, profile=profile)
    include_expired = include_expired or even_forgotten
    work = Backfill(found, url, all_versions=all_versions, include_expired=include_expired, lane=lane)
    with interruptible("Nothing is lost. Run the same command again."):
        planned = None
        if dry_run or not yes:
            with progress("counting", None) as bar:
                planned = work.run(send=False, progress=bar)
            stderr.print(views.tally_line(planned))
            if dry_run or not planned.new:
                _print_tally(planned, sent=False, as_json=as_json)
                raise typer.Exit(Exit.ATTENTION if planned.new else Exit.OK)
            ask(f"Register {planned.new:,} objects?", yes=yes, as_json=as_json)
        with progress("registering", planned.listed if planned else None) as bar:
            done = work.run(send=True, progress=bar)
    stderr.print(views.tally_line(done))
    _print_tally(done, sent=True, as_json=as_json)


def _print_tally(tally: Tally, *, sent: bool, as_json: bool) -> None:
    if as_json:
        print_json({**dataclasses.asdict(tally), "sent": tally.new if sent else 0})
    elif sent:
        stdout.print(f"{tally.new:,} sent to the upload queue. Follow them: workflow-trigger status --watch")


@app.command()
def retry(
    *,
    stack: Name = DEFAULT_STACK,
    statuses: Annotated[
        list[Status] | None,
        typer.Option("--status", metavar="STATUS", help=f"Repeatable. Default: {', '.join(UNSUCCESSFUL)}."),
    ] = None,
    state: Annotated[list[Status] | None, typer.Option("--state", hidden=True)] = None,
    error: Annotated[
        list[str] | None, typer.Option("--error", help="Only documents with this error.type. Repeatable.")
    ] = None,
    prefix: Annotated[
        str | None, typer.Option(metavar="s3://BUCKET/PREFIX", help="Only objects under this prefix.")
    ] = None,
    object_url: Annotated[
        str | None, typer.Option("--object", metavar="s3://BUCKET/KEY", help="Only this object.")
    ] = None,
    version: Annotated[str | None, typer.Option(metavar="VERSION", help="Only this version of --object.")] = None,
    older_than: Annotated[
        str | None, typer.Option(metavar="AGE", help="Ended at least this long ago: 90s, 30m, 2h, 7d.")
    ] = None,
    newer_than: Annotated[str | None, typer.Option(metavar="AGE", help="Ended within this time.")] = None,
    lane: LaneChoice = Lane.BULK,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count, and change nothing.")] = False,
    yes: Yes = False,
    region: Region = None,
    profile: Profile = None,
    as_json: Json = False,
) -> None:
    """Run documents again that have a final status.

    The command counts, then asks. Earlier runs stay in the history of each document.
    """
    choice = Choice(
        statuses=tuple([*(statuses or ()), *(state or ())] or UNSUCCESSFUL),
        error_types=tuple(error or ()),
        prefix=prefix,
        object=object_url,
        version=version,
        ended_before=moment_before_now(older_than or "0s"),
        ended_after=moment_before_now(newer_than) if newer_than else None,
    )
    found = Stack.find(stack, region=region, profile=profile)
    with interruptible("The others are unchanged. Run the same command again."):
        counts = count(select(found, choice))
        for (name, kind), number in sorted(counts.items()):
            stderr.print(f"{number:>8,}  {name:<10} {views.visible(kind)}")
        total = counts.total()
        stderr.print(f"{total:>8,}  total")
        reopened = 0
        if total and not dry_run:
            ask(f"Run {total:,} again?", yes=yes, as_json=as_json)
            with Progress(*columns(total), console=stderr, transient=True) as progress:
                task = progress.add_task("reopening", total=total)
                reopened = reopen(found, select(found, choice), lane, lambda: progress.advance(task))
    if as_json:
        print_json({"selected": total, "reopened": reopened, "by": [[*key, n] for key, n in sorted(counts.items())]})
    elif reopened:
        stdout.print(f"{reopened:,} are back in the queue. They run when a workflow is free.")


@app.command()
def redrive(
    *,
    stack: Name = DEFAULT_STACK,
    include_unreadable: Annotated[
        bool, typer.Option("--include-unreadable", help="Include messages that cannot be read.")
    ] = False,
    even_unreadable: Annotated[bool, typer.Option("--even-unreadable", hidden=True)] = False,
    yes: Yes = False,
    region: Region = None,
    profile: Profile = None,
    as_json: Json = False,
) -> None:
    """Move dead letters back to the upload queue. Unreadable ones stay, and are listed with the reason."""
    found = Stack.find(stack, region=region, profile=profile)
    total = messages_in(found, "DeadLetterQueueUrl")
    stderr.print(f"{total:,} dead letters")
    if total:
        ask(f"Move {total:,} back to the upload queue?", yes=yes, as_json=as_json)
    with (
        interruptible("Nothing is lost. Run the same command again."),
        Progress(*columns(total), console=stderr, transient=True) as progress,
    ):
        task = progress.add_task("moving", total=total)
        done = redrive_letters(
            found, include_unreadable=include_unreadable or even_unreadable, progress=lambda: progress.advance(task)
        )
    for message in done.kept:
        stderr.print(f"[yellow]kept[/] {message.message_id}: {views.visible('; '.join(message.unreadable))}")
    if as_json:
        print_json(done)
    else:
        stdout.print(f"{done.moved:,} moved, {len(done.kept):,} kept")
    raise typer.Exit(Exit.ATTENTION if done.kept else Exit.OK)
