"""`workflow-trigger`: its commands, and what an error becomes."""

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Annotated, NoReturn

import typer
from botocore.exceptions import BotoCoreError, ClientError

from workflow_trigger import __version__
from workflow_trigger.domain.errors import LedgerUnavailable
from workflow_trigger_cli import looking, steering, terminal, views
from workflow_trigger_cli.errors import CommandError, Exit
from workflow_trigger_cli.terminal import stderr
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
_LOOK: tuple[Callable[..., None], ...] = (
    *(looking.status, looking.find, looking.doctor, looking.report, looking.wait, looking.fetch),
)
_STEER: tuple[Callable[..., None], ...] = (
    *(steering.backfill, steering.retry, steering.cancel, steering.pause, steering.resume),
    *(steering.redrive, steering.forget),
)
for _command in _LOOK:
    app.command(rich_help_panel="Look")(_command)
for _command in _STEER:
    app.command(rich_help_panel="Steer")(_command)
app.add_typer(workflows_app, name="workflows", rich_help_panel="Set up")


def _show_version(is_wanted: bool) -> None:  # noqa: FBT001  as typer calls it
    if is_wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    del version  # shown by its callback


def main() -> NoReturn:
    """Run a command. Errors of AWS become one message on standard error."""
    code: int | str | None = Exit.OK
    try:
        app()
    except CommandError as error:
        code = _tell(str(error), error.exit)
    except (ClientError, BotoCoreError, LedgerUnavailable) as error:
        code = _tell(f"AWS: {error}", Exit.FAILED)
    except SystemExit as ended:
        code = ended.code
        if code == Exit.INTERRUPTED and not terminal.has_told_of_interruption:
            stderr.print("Interrupted.")
    _leave(code)


def _tell(message: str, code: Exit) -> Exit:
    stderr.print(f"[bold red]workflow-trigger:[/] {views.visible(message)}")
    return code


def _leave(code: int | str | None) -> NoReturn:
    """End without waiting for threads: one may be waiting for an answer that never comes."""
    with suppress(OSError):  # who read the output has gone
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))
