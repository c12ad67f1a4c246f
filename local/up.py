"""`make up`: the local stack in the foreground, and how to talk to it."""

import signal
import time

import typer

from local.environment import STATE_FILE, Running, running, save
from local.stack import CREDENTIALS, LocalStackError, chosen_port
from workflow_trigger_cli.terminal import stderr, stdout

_DEFAULT_PORT = 4566


def main() -> None:
    """Keep the local stack until it is interrupted."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # leaves nothing behind, as Ctrl-C
    try:
        with running(stdout, port=chosen_port() or _DEFAULT_PORT) as run:
            save(run)
            _explain(run)
            while True:
                time.sleep(3600)
    except LocalStackError as error:
        stderr.print(f"[bold red]make up:[/] {error}")
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        stdout.print("\nEnded.")
    finally:
        STATE_FILE.unlink(missing_ok=True)


def _explain(run: Running) -> None:
    stack = run.stack
    exports = " ".join(f"{name}={value}" for name, value in {**CREDENTIALS, **stack.aws.environment}.items())
    stdout.print("\nIn another terminal:")
    stdout.print(f"  export {exports}", markup=False)
    stdout.print(f"  {stack['UploadCommand'].replace('FILE', 'events/documents/sample.pdf')}", markup=False)
    stdout.print(
        f"  PYTHONPATH=src:. .venv/bin/python -m workflow_trigger_cli status --stack {stack.name}", markup=False
    )
    stdout.print(f"  aws dynamodb scan --table-name {stack['LedgerTable']}", markup=False)
    stdout.print("  make invoke EVENT=events/s3-put.json", markup=False)
    stdout.print("  make event KEY=sample.pdf", markup=False)
    if run.platform.state is not None:
        stdout.print(f"  curl {run.platform.url}/_simulation/jobs", markup=False)
    stdout.print("\nThe schedule runs every minute. Ctrl-C ends everything.")


if __name__ == "__main__":
    typer.run(main)
