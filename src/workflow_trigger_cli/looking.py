"""The commands that look: their options, and how they end."""

import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from botocore.exceptions import BotoCoreError, ClientError
from rich.live import Live
from rich.progress import Progress

from workflow_trigger_cli import views
from workflow_trigger_cli.commands.batches import collect_batch, follow, named
from workflow_trigger_cli.commands.batches import fetch as fetch_results
from workflow_trigger_cli.commands.doctor import Doctor
from workflow_trigger_cli.commands.find import find as find_object
from workflow_trigger_cli.commands.findings import Finding, Health
from workflow_trigger_cli.commands.fix import fix as fix_stack
from workflow_trigger_cli.commands.report import By
from workflow_trigger_cli.commands.report import as_csv as csv_of
from workflow_trigger_cli.commands.report import collect as collect_report
from workflow_trigger_cli.commands.report import rows as report_rows
from workflow_trigger_cli.commands.selection import age_seconds, moment_before_now
from workflow_trigger_cli.commands.status import RowCounter, StackState, collect_status
from workflow_trigger_cli.errors import Exit, UsageError
from workflow_trigger_cli.options import DEFAULT_STACK, Batch, Json, Name, Profile, Region, Yes
from workflow_trigger_cli.page import HOURS, page
from workflow_trigger_cli.stack import Stack
from workflow_trigger_cli.terminal import (
    ask,
    columns,
    counting,
    interruptible,
    jsonable,
    print_json,
    show,
    stderr,
    stdout,
    watched,
    working,
    write_text,
)


def status(
    *,
    stack: Name = DEFAULT_STACK,
    batch: Batch = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write one page for people without credentials, and a timeline.")
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Refresh until Ctrl-C.")] = False,
    seconds: Annotated[float, typer.Option(min=0.5, help="Seconds between refreshes.")] = 2.0,
    count_all: Annotated[bool, typer.Option("--all", help="Count all documents of a large ledger.")] = False,
    region: Region = None,
    profile: Profile = None,
    as_json: Json = False,
) -> None:
    """Show documents by status, the longest wait, every workflow, and dead letters. With --batch, one batch."""
    if watch and (html is not None or batch is not None):
        raise UsageError("--watch goes with neither --html nor --batch")
    found = Stack.find(stack, region=region, profile=profile)
    if batch is not None:
        with working("reading the ledger"):
            state = collect_batch(found, named(batch))
        show(state, views.batch_screen(state), as_json=as_json)
        raise typer.Exit(Exit.OK if state.is_well or state.finished < state.registered else Exit.ATTENTION)
    counter = RowCounter(found, count_all=count_all)
    if watch:
        _watch(found, counter, seconds, as_json=as_json)
    with working("counting the documents"):
        whole = collect_status(found, counter.count())
    if html is not None:
        with working("reading the ledger"):
            hours = collect_report(report_rows(found, moment_before_now(f"{HOURS}h")), By.HOUR)[:-1]
        write_text(html, page(whole, hours))
    show(whole, views.status_screen(whole), as_json=as_json)
    raise typer.Exit(Exit.ATTENTION if whole.attention else Exit.OK)


def _watch(stack: Stack, counter: RowCounter, seconds: float, *, as_json: bool) -> NoReturn:
    """Refresh until it is interrupted."""
    try:
        with working("counting the documents"):
            counter.count()
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
    fix: Annotated[bool, typer.Option("--fix", help="Fix notifications, rule, upload trigger, schedule.")] = False,
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


def report(
    *,
    since: Annotated[str, typer.Option(metavar="AGE", help="Documents that ended within this time: 12h, 7d.")] = "7d",
    by: Annotated[By, typer.Option(help="What makes a line; a prefix is a key's first folder.")] = By.DAY,
    price_per_page: Annotated[
        float | None, typer.Option(min=0, metavar="MONEY", help="Adds what the pages cost.")
    ] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    stack: Name = DEFAULT_STACK,
    region: Region = None,
    profile: Profile = None,
    as_json: Json = False,
) -> None:
    """Show what was processed: documents, bytes, pages, jobs, how they ended, how long they waited, what they cost.

    The whole ledger is read. A document counts in its last run.
    """
    found = Stack.find(stack, region=region, profile=profile)
    if as_csv and as_json:
        raise UsageError("--csv and --json do not go together")
    with interruptible("Nothing has changed."), counting("reading the ledger", None) as advance:
        groups = collect_report(watched(report_rows(found, moment_before_now(since)), advance), by)
    lines = [each.figures(price_per_page) for each in groups]
    if as_csv:
        sys.stdout.write(csv_of(lines))
    else:
        show(lines, views.report_screen(lines, by, stdout.width), as_json=as_json)


def wait(
    *,
    batch: Annotated[str, typer.Option(metavar="NAME", help="The batch.")],
    documents: Annotated[
        int | None, typer.Option(min=1, help="How many documents it has. Default: until no more come for a while.")
    ] = None,
    timeout: Annotated[str | None, typer.Option(metavar="AGE", help="Give up after so long: 90s, 30m, 2h, 7d.")] = None,
    stack: Name = DEFAULT_STACK,
    region: Region = None,
    profile: Profile = None,
    as_json: Json = False,
) -> None:
    """Wait until every document of a batch is final. Ends with 1 if one failed, stopped or was rejected."""
    found = Stack.find(stack, region=region, profile=profile)
    seconds = age_seconds(timeout) if timeout else None
    with (
        interruptible("Nothing has changed. Run the same command again."),
        Progress(*columns(documents), console=stderr, transient=True) as progress,
    ):
        task = progress.add_task(f"batch {views.visible(batch)}", total=documents)
        for each in follow(found, batch, documents, seconds):
            progress.update(task, completed=each.finished, total=max(documents or 0, each.registered) or None)
        state = collect_batch(found, named(batch))
    show(state, views.batch_screen(state), as_json=as_json)
    raise typer.Exit(Exit.OK if state.is_well else Exit.ATTENTION)


def fetch(
    *,
    batch: Annotated[str, typer.Option(metavar="NAME", help="The batch.")],
    to: Annotated[Path, typer.Option(metavar="FOLDER", help="Where the results go, under their documents' names.")],
    stack: Name = DEFAULT_STACK,
    region: Region = None,
    profile: Profile = None,
    as_json: Json = False,
) -> None:
    """Store the results of a batch as files. What is there already is left alone.

    Ends with 1 if a result is gone from the results bucket.
    """
    found = Stack.find(stack, region=region, profile=profile)
    counts = Counter(stored=0, there=0, gone=0)
    with (
        interruptible("What is stored stays. Run the same command again."),
        Progress(*columns(None), console=stderr, transient=True) as progress,
    ):
        task = progress.add_task("fetching", total=None)
        for each in fetch_results(found, batch, to):
            counts[each.state] += 1
            progress.advance(task)
            if each.state == "gone":
                progress.console.print(f"[yellow]gone from the results bucket[/]: {views.visible(each.path)}")
    if as_json:
        print_json({"folder": str(to), "already_there": counts.pop("there"), **counts})
    else:
        gone = f", {counts['gone']:,} are gone from the results bucket" if counts["gone"] else ""
        stdout.print(f"{counts['stored']:,} stored in {views.visible(to)}, {counts['there']:,} were there{gone}")
    raise typer.Exit(Exit.ATTENTION if counts["gone"] else Exit.OK)
