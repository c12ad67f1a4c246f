"""The commands that change something: their options, what they ask, and how they end."""

import dataclasses
from collections import Counter
from typing import Annotated

import typer

from workflow_trigger.domain.document import Lane
from workflow_trigger.domain.model import Status
from workflow_trigger_cli import views
from workflow_trigger_cli.advice import typed
from workflow_trigger_cli.commands.backfill import Backfill, Tally
from workflow_trigger_cli.commands.batches import named
from workflow_trigger_cli.commands.cancel import TOLD, cancel_job, cancel_waiting, running_jobs
from workflow_trigger_cli.commands.forget import Forget, Forgotten
from workflow_trigger_cli.commands.pause import pause as pause_route
from workflow_trigger_cli.commands.pause import resume as resume_route
from workflow_trigger_cli.commands.redrive import redrive as redrive_letters
from workflow_trigger_cli.commands.retry import UNSUCCESSFUL, final, reopen
from workflow_trigger_cli.commands.selection import Choice, count, error_types, moment_before_now, select
from workflow_trigger_cli.commands.status import messages_in
from workflow_trigger_cli.commands.workflows import workspace_of
from workflow_trigger_cli.errors import Exit, UsageError
from workflow_trigger_cli.options import (
    DEFAULT_STACK,
    Batch,
    DryRun,
    Errors,
    Json,
    LaneChoice,
    Name,
    NewerThan,
    ObjectUrl,
    OlderThan,
    Prefix,
    Profile,
    Region,
    RouteName,
    VersionOf,
    Yes,
)
from workflow_trigger_cli.stack import Stack
from workflow_trigger_cli.terminal import ask, counting, interruptible, print_json, progress, stderr, stdout, working

_TEXT_LIMIT = 500


def backfill(
    url: Annotated[str, typer.Argument(metavar="s3://BUCKET/PREFIX", help="The objects to register.")],
    *,
    stack: Name = DEFAULT_STACK,
    dry_run: DryRun = False,
    all_versions: Annotated[bool, typer.Option("--all-versions", help="Include old versions.")] = False,
    include_expired: Annotated[
        bool, typer.Option("--include-expired", help="Include objects whose rows may have expired.")
    ] = False,
    batch: Annotated[
        str | None, typer.Option(metavar="NAME", help="Follow them under this name: status, wait and fetch --batch.")
    ] = None,
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
    work = Backfill(
        found,
        url,
        all_versions=all_versions,
        include_expired=include_expired,
        lane=lane,
        batch=named(batch) if batch else None,
    )
    with interruptible("Nothing is lost. Run the same command again."):
        planned = None
        if dry_run or not yes:
            with progress("counting", None) as bar:
                planned = work.run(send=False, progress=bar)
            stderr.print(views.tally_line(planned))
            if dry_run or not planned.new:
                _print_tally(planned, stack, url, sent=False, as_json=as_json)
                raise typer.Exit(Exit.ATTENTION if planned.new else Exit.OK)
            ask(f"Register {planned.new:,} objects?", yes=yes, as_json=as_json)
        with progress("registering", planned.listed if planned else None) as bar:
            done = work.run(send=True, progress=bar)
    stderr.print(views.tally_line(done))
    _print_tally(done, stack, url, sent=True, as_json=as_json)


def _print_tally(tally: Tally, stack: str, url: str, *, sent: bool, as_json: bool) -> None:
    if as_json:
        print_json({**dataclasses.asdict(tally), "sent": tally.new if sent else 0})
        return
    if sent:
        stdout.print(f"{tally.new:,} sent to the upload queue. Follow them: workflow-trigger status --watch")
    if tally.skipped_before:
        command = f"workflow-trigger retry --stack {stack} --status SKIPPED --prefix {typed(url)}"
        stdout.print(f"To run what was SKIPPED and is wanted now, in all its versions: {views.visible(command)}")


def retry(
    *,
    stack: Name = DEFAULT_STACK,
    statuses: Annotated[
        list[Status] | None,
        typer.Option("--status", metavar="STATUS", help=f"Repeatable. Default: {', '.join(UNSUCCESSFUL)}."),
    ] = None,
    state: Annotated[list[Status] | None, typer.Option("--state", hidden=True)] = None,
    error: Errors = None,
    prefix: Prefix = None,
    object_url: ObjectUrl = None,
    version: VersionOf = None,
    batch: Batch = None,
    older_than: OlderThan = None,
    newer_than: NewerThan = None,
    lane: LaneChoice = Lane.BULK,
    dry_run: DryRun = False,
    yes: Yes = False,
    region: Region = None,
    profile: Profile = None,
    as_json: Json = False,
) -> None:
    """Run documents again that have a final status.

    The command counts, then asks. Earlier runs stay in the history of each document.
    """
    choice = Choice(
        statuses=final([*(statuses or ()), *(state or ())]),
        error_types=error_types(error),
        prefix=prefix,
        object=object_url,
        version=version,
        batch=batch,
        before=moment_before_now(older_than or "0s"),
        after=moment_before_now(newer_than) if newer_than else "",
    )
    found = Stack.find(stack, region=region, profile=profile)
    with interruptible("What is done stays done; the rest is unchanged. Run the same command again."):
        counts = _counted(found, choice)
        total, reopened = counts.total(), 0
        if total and not dry_run:
            ask(f"Run {total:,} again?", yes=yes, as_json=as_json)
            with counting("reopening", total) as advance:
                reopened = reopen(found, select(found, choice), lane, advance)
    if as_json:
        print_json({"selected": total, "reopened": reopened, "by": [[*key, n] for key, n in sorted(counts.items())]})
    elif total and not dry_run:
        changed = f"; {total - reopened:,} had changed by then" if total > reopened else ""
        stdout.print(f"{reopened:,} put back into the queue{changed}. They run when a workflow is free.")


def _text(text: str, option: str) -> str:
    """What somebody writes for others to read.

    Raises:
        UsageError: nothing, too much, or what cannot be shown.
    """
    if not text.strip() or len(text) > _TEXT_LIMIT or not text.isprintable():
        raise UsageError(f"{option} is a text of at most {_TEXT_LIMIT} characters that can be shown")
    return text.strip()


def _counted(stack: Stack, choice: Choice) -> Counter[tuple[str, str]]:
    """Count what is selected, and show it."""
    with working("reading the ledger"):
        counts = count(select(stack, choice))
    for (name, kind), number in sorted(counts.items()):
        stderr.print(f"{number:>8,}  {name:<10} {views.visible(kind)}")
    stderr.print(f"{counts.total():>8,}  total")
    return counts


def cancel(
    *,
    stack: Name = DEFAULT_STACK,
    running: Annotated[
        bool,
        typer.Option("--running", help="Stop the jobs of documents that run, after showing whose files are in them."),
    ] = False,
    error: Errors = None,
    prefix: Prefix = None,
    object_url: ObjectUrl = None,
    version: VersionOf = None,
    batch: Batch = None,
    older_than: OlderThan = None,
    newer_than: NewerThan = None,
    reason: Annotated[str | None, typer.Option(help="Stands in each document's row; not with --running.")] = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    region: Region = None,
    profile: Profile = None,
    as_json: Json = False,
) -> None:
    """End documents that wait, or with --running stop the jobs of those that run.

    The command counts, then asks. A cancelled document is STOPPED; `retry` runs it again.
    """
    if running and reason is not None:
        raise UsageError("--reason does not go with --running: the platform says why a job was stopped")
    reason = "cancelled by an operator" if reason is None else _text(reason, "--reason")
    choice = Choice(
        statuses=(Status.SCHEDULED, Status.IN_PROGRESS) if running else (Status.PENDING,),
        error_types=error_types(error),
        prefix=prefix,
        object=object_url,
        version=version,
        batch=batch,
        before=moment_before_now(older_than or "0s"),
        after=moment_before_now(newer_than) if newer_than else "",
    )
    found = Stack.find(stack, region=region, profile=profile)
    with interruptible("What is done stays done; the rest is unchanged. Run the same command again."):
        if running:
            _cancel_running(found, choice, dry_run=dry_run, yes=yes, as_json=as_json)
            return
        total, done = _counted(found, choice).total(), 0
        if total and not dry_run:
            ask(f"Cancel {total:,} that wait?", yes=yes, as_json=as_json)
            with counting("cancelling", total) as advance:
                done = cancel_waiting(found, select(found, choice), reason, advance)
    if as_json:
        print_json({"selected": total, "cancelled": done})
    elif done or not dry_run:
        left = f"; {total - done:,} had begun by then" if total > done else ""
        stdout.print(f"{done:,} cancelled{left}")


def _cancel_running(stack: Stack, choice: Choice, *, dry_run: bool, yes: bool, as_json: bool) -> None:
    with working("reading the ledger"):
        jobs = running_jobs(stack, select(stack, choice))
    for job in jobs:
        stderr.print(f"[bold]job {views.visible(job.job_id)}[/]  workflow {job.workflow_id}")
        for name in job.selected:
            stderr.print(f"  {views.visible(name)}")
        for name in job.others:
            stderr.print(f"  {views.visible(name)}  [yellow]not selected, but in the same job[/]")
    files = sum(len(job.selected) + len(job.others) for job in jobs)
    stderr.print(f"{len(jobs):,} jobs with {files:,} documents")
    if jobs and not dry_run:
        ask(f"Stop {len(jobs):,} jobs with {files:,} documents?", yes=yes, as_json=as_json)
        platform = workspace_of(stack)
        for job in jobs:
            is_told = cancel_job(platform, job)
            stderr.print(
                f"{'[green]' if is_told else '[red]'}{views.visible(job.answer)}[/] {views.visible(job.job_id)}"
            )
    if as_json:
        print_json(jobs)
    has_failed = any(job.answer and job.answer != TOLD for job in jobs)
    raise typer.Exit(Exit.ATTENTION if has_failed else Exit.OK)


def pause(
    *,
    reason: Annotated[str, typer.Option(help="Why. `status` and `doctor` show it.")],
    stack: Name = DEFAULT_STACK,
    route: RouteName = None,
    region: Region = None,
    profile: Profile = None,
    as_json: Json = False,
) -> None:
    """Begin no jobs until `resume`. Uploads wait; jobs that run are followed to their end."""
    reason = _text(reason, "--reason")
    earlier = pause_route(Stack.find(stack, region=region, profile=profile), route, reason)
    if as_json:
        print_json({"paused": earlier is None, "earlier": dataclasses.asdict(earlier) if earlier else None})
    elif earlier:
        stdout.print(f"It has been paused since {earlier.since}, and stays so: {views.visible(earlier.reason)}")
    else:
        stdout.print("Paused. What is being sent now goes on; nothing else is begun.")


def resume(
    *,
    stack: Name = DEFAULT_STACK,
    route: RouteName = None,
    region: Region = None,
    profile: Profile = None,
    as_json: Json = False,
) -> None:
    """End a pause, or without --route every pause. What waits goes on within a minute."""
    ended, left = resume_route(Stack.find(stack, region=region, profile=profile), route)
    if as_json:
        print_json(
            {"ended": [dataclasses.asdict(each) for each in ended], "left": [dataclasses.asdict(each) for each in left]}
        )
    else:
        for each in ended:
            stdout.print(f"{views.route_name(each.route)} resumed; it was paused since {each.since}")
        for each in left:
            stdout.print(f"[yellow]{views.route_name(each.route)} still paused[/]: {views.visible(each.reason)}")
        if not ended and not left:
            stdout.print("Nothing was paused.")
    raise typer.Exit(Exit.ATTENTION if left else Exit.OK)


def forget(
    url: Annotated[str, typer.Argument(metavar="s3://BUCKET/KEY", help="The object.")],
    *,
    stack: Name = DEFAULT_STACK,
    version: VersionOf = None,
    with_object: Annotated[
        bool, typer.Option("--with-object", help="Delete the object, too: each of its versions, for good.")
    ] = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    region: Region = None,
    profile: Profile = None,
    as_json: Json = False,
) -> None:
    """Delete the results of an object, and what its rows hold beyond its name and its jobs.

    Only what is final can be forgotten. The rows stay, so that a late duplicate of an event runs nothing again.
    """
    work = Forget(Stack.find(stack, region=region, profile=profile), url, version, with_object=with_object)
    with working("looking for results"):
        planned = work.plan()

    def shown(what: Forgotten) -> str:
        objects = f", versions of the object: {what.objects:,}" if with_object else ""
        return f"rows: {what.rows:,}, results: {what.results:,}{objects}"

    done = None
    if not dry_run:
        ask(f"Forget {shown(planned)}? Nothing brings them back.", yes=yes, as_json=as_json)
        with interruptible("Some is deleted already. Run the same command again."):
            done = work.run()
    if as_json:
        print_json(done or planned)
    elif done is None:
        stdout.print(shown(planned))
    else:
        stdout.print(f"forgotten: {shown(done)}. The platform may keep copies of its own.")
        if done.changed:
            stderr.print(f"[yellow]{done.changed:,} rows have changed since. Run the same command again.[/]")
    raise typer.Exit(Exit.ATTENTION if done and done.changed else Exit.OK)


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
    hidden = messages_in(found, "DeadLetterQueueUrl", "ApproximateNumberOfMessagesNotVisible")
    stderr.print(f"{total:,} dead letters")
    if total:
        ask(f"Move {total:,} back to the upload queue?", yes=yes, as_json=as_json)
    with interruptible("Nothing is lost. Run the same command again."), counting("moving", total) as advance:
        done = redrive_letters(found, include_unreadable=include_unreadable or even_unreadable, progress=advance)
    for message in done.kept:
        stderr.print(f"[yellow]kept[/] {message.message_id}: {views.visible('; '.join(message.unreadable))}")
    if as_json:
        print_json(done)
    else:
        stdout.print(f"{done.moved:,} moved, {len(done.kept):,} kept")
    if hidden:
        stderr.print(f"[yellow]{hidden:,} could not be seen.[/] Run the same command again in ten minutes.")
    raise typer.Exit(Exit.ATTENTION if done.kept or hidden else Exit.OK)
