"""The terminal: results on standard output, for people or as JSON; questions and progress on standard error."""

import dataclasses
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer
from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from workflow_trigger_cli import views
from workflow_trigger_cli.errors import CommandError, Exit, UsageError

stdout = Console(emoji=False, highlight=False, soft_wrap=True)
stderr = Console(stderr=True, emoji=False, highlight=False, soft_wrap=True)
has_told_of_interruption = False


def show(result: Any, shown: RenderableType, *, as_json: bool) -> None:
    """Print a result for people or as JSON."""
    if as_json:
        print_json(result)
    else:
        stdout.print(shown)


def jsonable(result: Any) -> Any:
    """A result as JSON can hold it."""
    if isinstance(result, list):
        return [jsonable(each) for each in result]
    return dataclasses.asdict(result) if dataclasses.is_dataclass(result) else result  # type: ignore[arg-type]


def print_json(result: Any) -> None:
    """Print a result as JSON."""
    sys.stdout.write(json.dumps(jsonable(result), default=str, indent=2) + "\n")


def ask(question: str, *, yes: bool, as_json: bool) -> None:
    """Ask for confirmation, unless --yes was passed."""
    if yes:
        return
    if as_json or not sys.stdin.isatty():
        raise CommandError("Not a terminal; pass --yes to confirm.")
    try:
        goes_on = typer.confirm(question, err=True)
    except typer.Abort:
        raise typer.Exit(Exit.INTERRUPTED) from None
    if not goes_on:
        raise typer.Exit(Exit.OK)


def secret(what: str) -> str:
    """A secret, typed without an echo, or the first line of standard input where that is not a terminal.

    Raises:
        UsageError: there is none.
    """
    text: str = typer.prompt(what, hide_input=True, err=True) if sys.stdin.isatty() else sys.stdin.readline()
    if not text.strip():
        raise UsageError(f"{what}: type it, or pass it on standard input")
    return text.strip()


def columns(total: int | None) -> list[Any]:
    """The columns of a progress bar; with a total, the remaining time too."""
    always = [SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()]
    return [*always, TimeRemainingColumn()] if total else always


@contextmanager
def progress(what: str, total: int | None) -> Iterator[Any]:
    """A progress bar that is updated with tallies."""
    with Progress(*columns(total), console=stderr, transient=True) as progress:
        task = progress.add_task(what, total=total)
        yield lambda tally: progress.update(
            task, completed=tally.listed, description=f"{what}: {views.tally_line(tally)}"
        )


def write_text(path: Path, text: str) -> None:
    """Write a file as a whole, so that whoever reads it never sees a half.

    Raises:
        CommandError: it cannot be written.
    """
    unfinished = path.with_name(f"{path.name}.part")
    try:
        unfinished.write_text(text)
        unfinished.replace(path)
    except OSError as error:
        raise CommandError(f"{path} cannot be written: {error.strerror or error}") from error


def watched[T](items: Iterable[T], advance: Callable[[], None]) -> Iterator[T]:
    """The items, each of which advances a progress bar."""
    for each in items:
        advance()
        yield each


@contextmanager
def working(what: str) -> Iterator[None]:
    """Show at once what is read, where it may take longer than a moment; it can be interrupted."""
    with interruptible("Nothing has changed."), stderr.status(f"{what} …"):
        yield


@contextmanager
def counting(what: str, total: int | None) -> Iterator[Callable[[], None]]:
    """A progress bar that advances by one at a call."""
    with Progress(*columns(total), console=stderr, transient=True) as progress:
        task = progress.add_task(what, total=total)
        yield lambda: progress.advance(task)


@contextmanager
def interruptible(message: str) -> Iterator[None]:
    """On Ctrl-C, print a message and end with 130."""
    global has_told_of_interruption  # noqa: PLW0603  a process is interrupted once
    try:
        yield
    except KeyboardInterrupt:
        has_told_of_interruption = True
        stderr.print(f"Interrupted. {message}")
        raise typer.Exit(Exit.INTERRUPTED) from None
