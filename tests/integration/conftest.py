"""One MiniStack for all integration tests; worlds with tables of their own; one deployed stack."""

import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from local.platform_state import Behaviour, PlatformState
from local.simulated_platform import serving
from local.stack import TOOLS, Aws, Deployed, build, deploy, ministack
from tests.integration.world import World


@pytest.fixture(scope="session")
def aws() -> Iterator[Aws]:
    with ministack() as address:
        yield address


@pytest.fixture
def world(aws: Aws, tmp_path: Path) -> Iterator[World]:
    """The real use cases over the real adapters, with fresh tables, and time that the test moves."""
    with World.opened(aws, tmp_path) as opened:
        yield opened


class DeployedWorld:
    """The template as deployed, and the simulated platform that it calls."""

    def __init__(self, stack: Deployed, state: PlatformState, workflow_ids: list[str], url: str) -> None:
        self.stack = stack
        self.state = state
        self.workflow_ids = workflow_ids
        self.url = url


@pytest.fixture(scope="session")
def package() -> Path:
    """The built template."""
    return build(TOOLS / "test-build")


@pytest.fixture(scope="session")
def deployed(aws: Aws, package: Path) -> Iterator[DeployedWorld]:
    workflow_ids = [str(uuid.uuid4()), str(uuid.uuid4())]
    with tempfile.TemporaryDirectory(prefix="platform-") as folder:
        state = PlatformState(Path(folder), Behaviour(default_job_seconds=1.0, scheduled_seconds=0.3))
        state.behaviour.job_seconds[workflow_ids[1]] = 8.0  # the slow one
        with serving(state) as url:
            parameters = {"WorkflowIds": ",".join(workflow_ids), "UnstructuredApiUrl": url, "PollSeconds": "1"}
            stack = deploy(package, aws, parameters)
            yield DeployedWorld(stack, state, workflow_ids, url)
