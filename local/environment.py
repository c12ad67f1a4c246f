"""The whole product on this machine: MiniStack, the platform (simulated, or the real one), the template deployed."""

import contextlib
import json
import os
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from local.fake_platform.app import serving
from local.fake_platform.state import Behaviour, PlatformState
from local.stack import TOOLS, Aws, Deployed, LocalStackError, build, deploy, ministack

STATE_FILE = TOOLS / "stack.json"
_REAL = ("UNSTRUCTURED_API_URL", "UNSTRUCTURED_API_KEY", "UNSTRUCTURED_WORKFLOW_ID")


@dataclass(frozen=True, slots=True)
class PlatformAddress:
    """Where documents are sent. `state` is what the simulated platform knows; None: it is the real one."""

    url: str
    api_key: str
    workflow_id: str
    state: PlatformState | None


@dataclass(frozen=True, slots=True)
class Running:
    """A deployed stack and its platform."""

    stack: Deployed
    platform: PlatformAddress


@contextlib.contextmanager
def platform(job_seconds: float) -> Iterator[PlatformAddress]:
    """The real platform when the environment names it, else a simulated one.

    Raises:
        LocalStackError: the environment names it by halves.
    """
    given = {name: os.environ.get(name, "").strip() for name in _REAL}
    if all(given.values()):
        url, key, workflow_id = given.values()
        yield PlatformAddress(url, key, workflow_id, None)
        return
    if any(given.values()):
        missing = ", ".join(name for name, value in given.items() if not value)
        raise LocalStackError(f"To use the real platform set {missing} too; to use the simulated one unset the others")
    with tempfile.TemporaryDirectory(prefix="platform-") as folder:
        state = PlatformState(Path(folder), Behaviour(default_job_seconds=job_seconds))
        with serving(state) as url:
            yield PlatformAddress(url, state.behaviour.api_key, str(uuid.uuid4()), state)


@contextlib.contextmanager
def running(console: Console, *, port: int | None, job_seconds: float = 3.0) -> Iterator[Running]:
    """Start everything, deploy the template as it is, set the key; end everything afterwards."""
    with contextlib.ExitStack() as ends:
        address = ends.enter_context(platform(job_seconds))
        kind = "simulated platform" if address.state else "platform"
        console.print(f"[bold]1[/] {kind} at {address.url}")
        aws = ends.enter_context(ministack(port=port))
        console.print(f"[bold]2[/] MiniStack (S3, SQS, Lambda, DynamoDB, ...) at {aws.endpoint}")
        with console.status("sam build"):
            template = build(TOOLS / "build")
        console.print("[bold]3[/] sam build: the package of the functions")
        with console.status("sam deploy"):
            stack = deploy(
                template,
                aws,
                {"WorkflowIds": address.workflow_id, "UnstructuredApiUrl": address.url, "PollSeconds": "2"},
            )
        stack.set_key(address.api_key)
        console.print(f"[bold]4[/] sam deploy: stack {stack.name}, bucket {stack['SourceBucket']}, key set")
        yield Running(stack, address)


def save(run: Running) -> None:
    """Write down where the stack is, for `make event` and `make invoke`."""
    content = {"endpoint": run.stack.aws.endpoint, "name": run.stack.name, "outputs": dict(run.stack.outputs)}
    STATE_FILE.write_text(json.dumps(content, indent=2))


def load() -> Deployed | None:
    """The stack that `make up` keeps, if it is there."""
    with contextlib.suppress(OSError, ValueError):
        content = json.loads(STATE_FILE.read_text())
        aws = Aws(content["endpoint"])
        aws.client("cloudformation").describe_stacks(StackName=content["name"])
        return Deployed(content["name"], aws, content["outputs"])
    return None
