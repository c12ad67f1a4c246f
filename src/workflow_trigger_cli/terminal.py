"""The terminal: results on standard output, as a screen or as JSON; all else, questions too, beside them."""

import dataclasses
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from workflow_trigger_cli import views
from workflow_trigger_cli.errors import Exit, OpsError

screen = Console(highlight=False, soft_wrap=True)
beside = Console(stderr=True, highlight=False, soft_wrap=True)


def show(result: Any, shown: RenderableType, *, as_json: bool) -> None:
    """A result, as it was asked for."""
    if as_json:
        print_json(result)
    else:
        screen.print(shown)


def jsonable(result: Any) -> Any:
    """A result as JSON can hold it."""
    if isinstance(result, list):
        return [jsonable(each) for each in result]
    return dataclasses.asdict(result) if dataclasses.is_dataclass(result) else result  # type: ignore[arg-type]


def print_json(result: Any) -> None:
    """A result for programs."""
    sys.stdout.write(json.dumps(jsonable(result), default=str, indent=2) + "\n")


def ask(question: str, *, yes: bool, as_json: bool) -> None:
    """Go on only if somebody says so; a program says so with --yes."""
    if yes:
        return
    if as_json or not sys.stdin.isatty():
        raise OpsError("Nobody is there to be asked: --yes goes on without")
    try:
        goes_on = typer.confirm(question, err=True)
    except typer.Abort:
        raise typer.Exit(Exit.INTERRUPTED) from None
    if not goes_on:
        raise typer.Exit(Exit.WELL)


def columns(total: int | None) -> list[Any]:
    """What a bar shows; the time that is left, where it is known how much there is."""
    always = [SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()]
    return [*always, TimeRemainingColumn()] if total else always


@contextmanager
def progress(what: str, total: int | None) -> Iterator[Any]:
    """A bar that takes tallies."""
    with Progress(*columns(total), console=beside, transient=True) as progress:
        task = progress.add_task(what, total=total)
        yield lambda tally: progress.update(
            task, completed=tally.listed, description=f"{what}: {views.tally_line(tally)}"
        )


@contextmanager
def interruptible(message: str) -> Iterator[None]:
    """What may be interrupted, and what to tell who does."""
    try:
        yield
    except KeyboardInterrupt:
        beside.print(f"Interrupted. {message}")
        raise typer.Exit(Exit.INTERRUPTED) from None
