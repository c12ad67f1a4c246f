"""One MiniStack for all integration tests; harnesses with tables of their own; one deployed stack."""

import fcntl
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from local.fake_platform.app import serving
from local.fake_platform.state import Behaviour, PlatformState
from local.stack import TOOLS, Aws, Deployed, build, deploy, ministack
from tests.integration.harness import Harness
from tests.integration.in_process import ministack_in_process


@pytest.fixture(scope="session")
def aws() -> Iterator[Aws]:
    with ministack() as address:
        yield address


@pytest.fixture(scope="session")
def aws_in_process() -> Aws:
    return ministack_in_process()


@pytest.fixture
def harness(aws_in_process: Aws, tmp_path: Path) -> Iterator[Harness]:
    """The real use cases over the real adapters, with fresh tables, and time that the test moves."""
    with Harness.opened(aws_in_process, tmp_path) as opened:
        yield opened


class DeployedHarness:
    """The template as deployed, and the simulated platform that it calls."""

    def __init__(self, stack: Deployed, state: PlatformState, workflow_ids: list[str], url: str) -> None:
        self.stack = stack
        self.state = state
        self.workflow_ids = workflow_ids
        self.url = url


@pytest.fixture(scope="session")
def package(testrun_uid: str) -> Path:
    """The built template: built once, however many processes run the tests."""
    folder = TOOLS / "test-build"
    folder.parent.mkdir(exist_ok=True)
    with (TOOLS / "test-build.lock").open("a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.seek(0)
        if lock.read() == testrun_uid:
            return folder / "template.yaml"
        template = build(folder)
        lock.truncate(0)
        lock.write(testrun_uid)
        return template


@pytest.fixture(scope="session")
def deployed(aws: Aws, package: Path) -> Iterator[DeployedHarness]:
    workflow_ids = [str(uuid.uuid4()), str(uuid.uuid4())]
    with tempfile.TemporaryDirectory(prefix="platform-") as folder:
        state = PlatformState(Path(folder), Behaviour(default_job_seconds=1.0, scheduled_seconds=0.3))
        state.behaviour.job_seconds[workflow_ids[1]] = 8.0  # the slow one
        with serving(state) as url:
            parameters = {"WorkflowIds": ",".join(workflow_ids), "UnstructuredApiUrl": url, "PollSeconds": "1"}
            stack = deploy(package, aws, parameters)
            yield DeployedHarness(stack, state, workflow_ids, url)
