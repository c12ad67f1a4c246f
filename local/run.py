"""`make run`: one document, from the upload to its row in the ledger, on this machine."""

import time
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.table import Table

from local.environment import Running, running
from local.stack import LocalStackError, chosen_port
from workflow_trigger.domain.model import FINAL, Status
from workflow_trigger_cli.terminal import stderr, stdout

_SAYS = {
    Status.PENDING: "registered in the ledger",
    Status.SUBMITTING: "being streamed from S3 to the run endpoint",
    Status.SCHEDULED: "submitted: the platform accepted it",
    Status.IN_PROGRESS: "running",
    Status.COMPLETED: "completed",
    Status.FAILED: "failed",
    Status.STOPPED: "stopped",
    Status.REJECTED: "rejected",
    Status.SUPERSEDED: "overwritten before it was read",
    Status.SKIPPED: "not wanted by the stack's parameters",
}
_WAIT_SECONDS = {True: 60, False: 3600}  # simulated or real
_LEADING = ("object", "version", "status", "error", "job_id", "workflow_id", "workflow_name", "created_at")


def main(file: Annotated[Path, typer.Argument(help="The document to upload.")]) -> None:
    """Upload one document and show what happens."""
    if not file.is_file():
        _fail(f"There is no file {file}; name one with FILE=")
    try:
        with running(stdout, port=chosen_port()) as run:
            row = _process(run, file)
            _show(row)
            _compare(run, file)
    except LocalStackError as error:
        _fail(str(error))
    except KeyboardInterrupt:
        _fail("Interrupted; everything has been ended")
    if row["status"] != Status.COMPLETED:
        raise typer.Exit(1)


def _fail(message: str) -> NoReturn:
    stderr.print(f"[bold red]make run:[/] {message}")
    raise typer.Exit(1)


def _process(run: Running, file: Path) -> dict[str, Any]:
    """Upload, then tell every change of the row until it is final."""
    bucket = run.stack["SourceBucket"]
    began = time.monotonic()
    run.stack.aws.client("s3").upload_file(str(file), bucket, file.name)
    stdout.print(f"[bold]5[/] upload of {file} ({file.stat().st_size:,} bytes) to s3://{bucket}/{file.name}")
    seen: str | None = None
    while time.monotonic() - began < _WAIT_SECONDS[run.platform.state is not None]:
        row = next(iter(run.stack.rows()), None)
        if row is not None and row["status"] != seen:
            if seen is None and row["status"] != Status.PENDING:
                _tell(began, Status.PENDING)  # it was, between two looks: a row begins with it
            seen = row["status"]
            _tell(began, Status(seen))
            if seen in FINAL:
                return row
        time.sleep(0.1)
    raise LocalStackError(f"The document was not processed in time; its last status is {seen or 'none'}")


def _tell(began: float, status: Status) -> None:
    stdout.print(f"  [dim]{time.monotonic() - began:5.1f} s[/]  [bold]{status:<12}[/] {_SAYS[status]}")


def _show(row: dict[str, Any]) -> None:
    table = Table(title="The ledger's row", title_justify="left", show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name in sorted(row, key=lambda name: (_LEADING.index(name) if name in _LEADING else 99, name)):
        table.add_row(name, _text(row[name]))
    stdout.print(table)


def _text(value: Any) -> str:
    match value:
        case list():
            return "\n".join(map(_text, value))
        case dict():
            return ", ".join(f"{name}: {_text(each)}" for name, each in sorted(value.items()))
    return str(value)


def _compare(run: Running, file: Path) -> None:
    state = run.platform.state
    if state is None:
        return
    received = [stored for job in state.jobs.values() for stored in job.files]
    same = len(received) == 1 and received[0].path.read_bytes() == file.read_bytes()
    stdout.print(f"The platform received the document {'once, byte for byte' if same else 'WRONGLY'}.")
    if not same:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
