"""`make invoke EVENT=...`: the function as `sam build` made it, in the real Lambda runtime, without Docker."""

import contextlib
import hashlib
import json
import os
import platform as machine
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
import urllib3
from botocore.exceptions import ClientError

from local import child_process
from local.environment import load, running
from local.event import function_variables
from local.stack import REGION, ROOT, TOOLS, Aws, Deployed, LocalStackError, chosen_port, free_port
from workflow_trigger.adapters.s3_events import ParsedEvent
from workflow_trigger_cli.terminal import stderr

DOCUMENTS = ROOT / "events/documents"
_START_SECONDS = 30
_INVOKE_SECONDS = 900


class Runtime:
    """A built function under the Runtime Interface Emulator, which `sam local invoke` uses in its containers too."""

    def __init__(self, port: int, log: Path) -> None:
        self._url = f"http://127.0.0.1:{port}/2015-03-31/functions/function/invocations"
        self._log = log

    def invoke(self, event: Any) -> Any:
        """The function's answer; an error is answered as Lambda does, with errorType and errorMessage."""
        answer = urllib3.request(
            "POST", self._url, body=json.dumps(event).encode(), retries=False, timeout=_INVOKE_SECONDS
        )
        return json.loads(answer.data)

    def log(self) -> str:
        """What the function and the runtime have printed."""
        return self._log.read_text(errors="replace")


@contextlib.contextmanager
def runtime(package: Path, handler: str, variables: Mapping[str, str]) -> Iterator[Runtime]:
    """The real Lambda runtime around a package.

    Raises:
        LocalStackError: this machine has none, or it does not come up.
    """
    emulators = {"x86_64": "aws-lambda-rie-x86_64", "aarch64": "aws-lambda-rie-arm64"}
    name = emulators.get(machine.machine())
    if sys.platform != "linux" or name is None:
        raise LocalStackError("The Lambda runtime is there for Linux on x86_64 and arm64; use `sam local invoke`")
    found = next((TOOLS / "sam").glob(f"lib/python*/site-packages/samcli/local/rapid/{name}"))
    emulator = TOOLS / name  # the package ships it without the right to be run
    emulator.write_bytes(found.read_bytes())
    emulator.chmod(0o755)
    port, api_port = free_port(), free_port()
    log = TOOLS / f"runtime-{port}.log"
    environment = {
        **{name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ},
        **variables,
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_LAMBDA_FUNCTION_NAME": "on-upload",
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "256",
        "AWS_LAMBDA_FUNCTION_TIMEOUT": str(_INVOKE_SECONDS),
        "LAMBDA_TASK_ROOT": str(package),
        "PYTHONPATH": str(package),
        "PYTHONDONTWRITEBYTECODE": "1",  # in Lambda, the package cannot be written to
    }
    command = [
        str(emulator),
        "--runtime-interface-emulator-address",
        f"127.0.0.1:{port}",
        "--runtime-api-address",
        f"127.0.0.1:{api_port}",
        sys.executable,
        "-m",
        "awslambdaric",
        handler,
    ]
    with log.open("w") as output:
        process = child_process.start(command, cwd=package, env=environment, stdout=output, stderr=subprocess.STDOUT)
    try:
        _await_port(process, port, log)
        yield Runtime(port, log)
    finally:
        child_process.end(process)


def _await_port(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    until = time.monotonic() + _START_SECONDS
    while time.monotonic() < until and process.poll() is None:
        with contextlib.suppress(urllib3.exceptions.HTTPError):
            urllib3.request("GET", f"http://127.0.0.1:{port}/", retries=False, timeout=2)
            return
        time.sleep(0.05)
    raise LocalStackError(f"The Lambda runtime did not start:\n{log.read_text(errors='replace')[-1_000:]}")


def seed(aws: Aws, event: Any) -> None:
    """Put the shipped documents where an event of `events/` says that they are, so that there is something to send."""
    known = {hashlib.md5(path.read_bytes()).hexdigest(): path for path in DOCUMENTS.iterdir()}
    s3 = aws.client("s3")
    for version in _versions(event):
        document = known.get(version.etag or "")
        if document is None:
            continue
        with contextlib.suppress(s3.exceptions.BucketAlreadyOwnedByYou, s3.exceptions.BucketAlreadyExists):
            s3.create_bucket(Bucket=version.bucket)
        with contextlib.suppress(ClientError):
            if s3.head_object(Bucket=version.bucket, Key=version.key)["ETag"].strip('"') == version.etag:
                continue  # to put it again would be another upload
        s3.put_object(Bucket=version.bucket, Key=version.key, Body=document.read_bytes())


def _versions(event: Any) -> list[Any]:
    records = event.get("Records", []) if isinstance(event, dict) else []
    if any(isinstance(record, dict) and record.get("eventSource") == "aws:sqs" for record in records):
        return [version for record in records for version in ParsedEvent.of(record.get("body")).versions]
    return ParsedEvent.of(event).versions


def main(event: Annotated[Path, typer.Argument(help="A file with an event.")]) -> None:
    """Invoke on_upload with an event and print its answer."""
    try:
        content = json.loads(event.read_text())
    except (OSError, ValueError) as error:
        _fail(f"{event} cannot be read as JSON: {error}")
    try:
        with contextlib.ExitStack() as ends:
            stack = load()
            if stack is None:
                stack = ends.enter_context(running(stderr, port=chosen_port())).stack
            answer = _invoke(stack, content)
    except LocalStackError as error:
        _fail(str(error))
    typer.echo(json.dumps(answer, indent=2, ensure_ascii=False))
    if isinstance(answer, dict) and "errorType" in answer:
        raise typer.Exit(1)


def _invoke(stack: Deployed, event: Any) -> Any:
    seed(stack.aws, event)
    package = TOOLS / "build/OnUploadFunction"
    variables = function_variables(stack, "OnUploadFunction")
    with runtime(package, "workflow_trigger.handlers.on_upload", variables) as function:
        answer = function.invoke(event)
        time.sleep(0.2)  # its last lines
        for line in function.log().splitlines():
            if re.match(r"(START|END|REPORT|INIT_REPORT|\{)", line):
                stderr.print(line, markup=False, style="dim")
    return answer


def _fail(message: str) -> NoReturn:
    stderr.print(f"[bold red]make invoke:[/] {message}")
    raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
