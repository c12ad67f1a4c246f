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

from workflow_trigger.domain.model import Status
from workflow_trigger_cli import views
from workflow_trigger_cli.commands.backfill import Backfill, Tally
from workflow_trigger_cli.commands.doctor import Doctor, Finding, Health
from workflow_trigger_cli.commands.find import find as find_object
from workflow_trigger_cli.commands.fix import fix as fix_stack
from workflow_trigger_cli.commands.redrive import redrive as redrive_letters
from workflow_trigger_cli.commands.retry import UNSUCCESSFUL, Choice, chosen, counted, moment_before_now, reopen
from workflow_trigger_cli.commands.status import RowCounter, StackState, look, messages_in
from workflow_trigger_cli.errors import Exit, OpsError
from workflow_trigger_cli.stack import Stack
from workflow_trigger_cli.terminal import (
    ask,
    beside,
    columns,
    interruptible,
    jsonable,
    print_json,
    progress,
    screen,
    show,
)

DEFAULT_STACK = "unstructured-workflow-trigger"

app = typer.Typer(
    name="workflow-trigger",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="See and steer a deployed workflow trigger.",
    epilog="Exit codes: 0 all is well · 1 something needs you · 2 typed wrongly · 3 not possible · 130 interrupted",
)

_Name = Annotated[str, typer.Option("--stack", envvar="WORKFLOW_TRIGGER_STACK", help="Name of the stack.")]
_Region = Annotated[str | None, typer.Option(help="Region of the stack; else AWS's own configuration says.")]
_Profile = Annotated[str | None, typer.Option(help="Profile of the credentials; else as AWS is configured.")]
_Json = Annotated[bool, typer.Option("--json", help="For programs: JSON on standard output.")]
_Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def main() -> None:
    """Run the command that was typed; what AWS says no to becomes a message that names what to mend."""
    try:
        app()
    except OpsError as error:
        _fail(str(error), error.exit)
    except (ClientError, BotoCoreError) as error:
        _fail(f"AWS: {error}", Exit.FAILED)


def _fail(message: str, code: Exit) -> NoReturn:
    beside.print(f"[bold red]workflow-trigger:[/] {views.visible(message)}")
    sys.exit(code)


# -- looking -----------------------------------------------------------------------------------------------------------


@app.command()
def status(
    *,
    stack: _Name = DEFAULT_STACK,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on until Ctrl-C.")] = False,
    seconds: Annotated[float, typer.Option(min=0.5, help="Seconds between two looks.")] = 2.0,
    count_all: Annotated[bool, typer.Option("--all", help="Count the final rows of a large ledger, too.")] = False,
    region: _Region = None,
    profile: _Profile = None,
    as_json: _Json = False,
) -> None:
    """Rows by status, the longest wait, the workflows with their phase and last error, dead letters."""
    found = Stack.find(stack, region=region, profile=profile)
    counter = RowCounter(found, count_all=count_all)
    if watch:
        _watch(found, counter, seconds, as_json=as_json)
    state = look(found, counter.counted())
    show(state, views.status_screen(state), as_json=as_json)
    raise typer.Exit(Exit.ATTENTION if state.attention else Exit.WELL)


def _watch(stack: Stack, counter: RowCounter, seconds: float, *, as_json: bool) -> NoReturn:
    """Until it is interrupted, which is its ordinary end."""
    try:
        if as_json:
            for state in _looks(stack, counter, seconds):
                sys.stdout.write(json.dumps(jsonable(state), default=str) + "\n")
                sys.stdout.flush()
        with Live(console=screen, auto_refresh=False, vertical_overflow="visible") as live:
            for state in _looks(stack, counter, seconds):
                live.update(views.status_screen(state), refresh=True)
    except KeyboardInterrupt:
        pass
    raise typer.Exit(Exit.WELL)


def _looks(stack: Stack, counter: RowCounter, seconds: float) -> Iterator[StackState]:
    """One look after the other; one that fails is told of, and made again."""
    while True:
        try:
            yield look(stack, counter.counted())
        except (ClientError, BotoCoreError) as error:
            beside.print(f"[yellow]{views.visible(error)}[/]")
        time.sleep(seconds)


@app.command()
def find(
    url: Annotated[str, typer.Argument(metavar="s3://BUCKET/KEY", help="The object, its key as it is.")],
    *,
    stack: _Name = DEFAULT_STACK,
    region: _Region = None,
    profile: _Profile = None,
    as_json: _Json = False,
) -> None:
    """What became of an object: every version, its job, what happened, and what to do."""
    findings = find_object(Stack.find(stack, region=region, profile=profile), url)
    show(findings, views.find_screen(findings), as_json=as_json)
    raise typer.Exit(Exit.ATTENTION if findings.needs_attention else Exit.WELL)


@app.command()
def doctor(
    *,
    stack: _Name = DEFAULT_STACK,
    fix: Annotated[bool, typer.Option("--fix", help="Mend what needs no deployment: notifications, schedule.")] = False,
    yes: _Yes = False,
    region: _Region = None,
    profile: _Profile = None,
    as_json: _Json = False,
) -> None:
    """Check every part between the bucket and the ledger; name the command that mends what is wrong."""
    found = Stack.find(stack, region=region, profile=profile)
    if fix:
        ask(f"Mend the notifications of {found['SourceBucket']}, the rule and the schedule?", yes=yes, as_json=as_json)
        for line in fix_stack(found):
            (beside if as_json else screen).print(f"[green]mended[/] {views.visible(line)}")
    findings: list[Finding] = []
    for finding in Doctor(found).findings():
        findings.append(finding)
        if not as_json:
            screen.print(views.finding_line(finding))
    if as_json:
        print_json(findings)
    is_ill = any(finding.health is Health.ILL for finding in findings)
    raise typer.Exit(Exit.ATTENTION if is_ill else Exit.WELL)


# -- steering ----------------------------------------------------------------------------------------------------------


@app.command()
def backfill(
    url: Annotated[str, typer.Argument(metavar="s3://BUCKET/PREFIX", help="Where the objects are.")],
    *,
    stack: _Name = DEFAULT_STACK,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count only.")] = False,
    all_versions: Annotated[bool, typer.Option("--all-versions", help="Old versions, too.")] = False,
    even_forgotten: Annotated[
        bool, typer.Option("--even-forgotten", help="Objects, too, whose rows the ledger may have forgotten.")
    ] = False,
    yes: _Yes = False,
    region: _Region = None,
    profile: _Profile = None,
    as_json: _Json = False,
) -> None:
    """Register objects that are there already, through the queue; what the ledger knows is left alone.

    Counts first, and asks. Interrupted, it is simply typed again. With --dry-run it ends with 1 where objects are new.
    """
    found = Stack.find(stack, region=region, profile=profile)
    work = Backfill(found, url, all_versions=all_versions, even_forgotten=even_forgotten)
    with interruptible("Nothing is lost: type the same command again."):
        planned = None
        if dry_run or not yes:
            with progress("counting", None) as bar:
                planned = work.run(send=False, progress=bar)
            beside.print(views.tally_line(planned))
            if dry_run or not planned.new:
                _print_tally(planned, sent=False, as_json=as_json)
                raise typer.Exit(Exit.ATTENTION if planned.new else Exit.WELL)
            ask(f"Register {planned.new:,} objects?", yes=yes, as_json=as_json)
        with progress("registering", planned.listed if planned else None) as bar:
            done = work.run(send=True, progress=bar)
    beside.print(views.tally_line(done))
    _print_tally(done, sent=True, as_json=as_json)


def _print_tally(tally: Tally, *, sent: bool, as_json: bool) -> None:
    if as_json:
        print_json({**dataclasses.asdict(tally), "sent": tally.new if sent else 0})
    elif sent:
        screen.print(f"{tally.new:,} are on their way through the queue; `workflow-trigger status --watch` shows them.")


@app.command()
def retry(
    *,
    stack: _Name = DEFAULT_STACK,
    state: Annotated[
        list[Status] | None,
        typer.Option("--state", metavar="STATE", help=f"May be repeated. Default: {', '.join(UNSUCCESSFUL)}."),
    ] = None,
    error: Annotated[
        list[str] | None, typer.Option("--error", help="With this type of error (error.type); may be repeated.")
    ] = None,
    prefix: Annotated[str | None, typer.Option(metavar="s3://BUCKET/PREFIX", help="Below this.")] = None,
    object_url: Annotated[str | None, typer.Option("--object", metavar="s3://BUCKET/KEY", help="This one.")] = None,
    version: Annotated[
        str | None, typer.Option(metavar="VERSION", help="This version of it, as find shows it.")
    ] = None,
    older_than: Annotated[str | None, typer.Option(metavar="AGE", help="Ended so long ago: 90s, 30m, 2h, 7d.")] = None,
    newer_than: Annotated[str | None, typer.Option(metavar="AGE", help="Ended since then.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count only.")] = False,
    yes: _Yes = False,
    region: _Region = None,
    profile: _Profile = None,
    as_json: _Json = False,
) -> None:
    """Run final rows again: shows how many, and asks. The runs that they had stay in their history."""
    choice = Choice(
        statuses=tuple(state or UNSUCCESSFUL),
        error_types=tuple(error or ()),
        prefix=prefix,
        object=object_url,
        version=version,
        ended_before=moment_before_now(older_than or "0s"),
        ended_after=moment_before_now(newer_than) if newer_than else None,
    )
    found = Stack.find(stack, region=region, profile=profile)
    with interruptible("The others are as they were: type the same command again."):
        counts = counted(chosen(found, choice))
        for (name, kind), number in sorted(counts.items()):
            beside.print(f"{number:>8,}  {name:<10} {views.visible(kind)}")
        total = counts.total()
        beside.print(f"{total:>8,}  in all")
        reopened = 0
        if total and not dry_run:
            ask(f"Run {total:,} again?", yes=yes, as_json=as_json)
            with Progress(*columns(total), console=beside, transient=True) as progress:
                task = progress.add_task("reopening", total=total)
                reopened = reopen(found, chosen(found, choice), lambda: progress.advance(task))
    if as_json:
        print_json({"chosen": total, "reopened": reopened, "by": [[*key, n] for key, n in sorted(counts.items())]})
    elif reopened:
        screen.print(f"{reopened:,} are back in the queue; they go within a minute, as workflows are free.")


@app.command()
def redrive(
    *,
    stack: _Name = DEFAULT_STACK,
    even_unreadable: Annotated[
        bool, typer.Option("--even-unreadable", help="Those too that cannot be read by this version.")
    ] = False,
    yes: _Yes = False,
    region: _Region = None,
    profile: _Profile = None,
    as_json: _Json = False,
) -> None:
    """Put dead letters back into the upload queue. What cannot be read stays, and is shown with the reason."""
    found = Stack.find(stack, region=region, profile=profile)
    total = messages_in(found, "DeadLetterQueueUrl")
    beside.print(f"{total:,} dead letters")
    if total:
        ask(f"Put {total:,} back into the upload queue?", yes=yes, as_json=as_json)
    with (
        interruptible("Nothing is lost: type the same command again."),
        Progress(*columns(total), console=beside, transient=True) as progress,
    ):
        task = progress.add_task("moving", total=total)
        done = redrive_letters(found, even_unreadable=even_unreadable, progress=lambda: progress.advance(task))
    for letter in done.kept:
        beside.print(f"[yellow]stays[/] {letter.message_id}: {views.visible('; '.join(letter.unreadable))}")
    if as_json:
        print_json(done)
    else:
        screen.print(f"{done.moved:,} went back, {len(done.kept):,} stay")
    raise typer.Exit(Exit.ATTENTION if done.kept else Exit.WELL)
