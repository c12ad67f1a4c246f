"""Shared by all tests: the events of `events/`."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# Before anything imports boto3 or the handlers: nothing of the machine's own AWS settings reaches a test.
for _name in [
    name for name in os.environ if name.startswith(("AWS_", "UNSTRUCTURED_", "POWERTOOLS_", "WORKFLOW_TRIGGER_"))
]:
    del os.environ[_name]
os.environ |= {
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "POWERTOOLS_SERVICE_NAME": "tests",
}

# A shell that starts the tests in the background has interruptions ignored, and every command would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# An example that is slow on a busy machine is no failure.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

# One for each worker begins: those that wait longest, and two that need a processor the while. A worker that has few
# tests left is given its next file early, so small ones follow; then the longest again.
FIRST = (
    "test_least_privilege",
    "test_scale",
    "test_killed",
    "test_upgrade",
    "test_deployed",
    "test_steering",
    "test_batches",
    "test_operations",
    "test_faults",
    "test_late_acceptance",
    "test_memory",
    "test_compare",
    "test_labels",
    "test_second_round",
    "test_log_query",
    "test_contract",
    "test_fairness",
    "test_interrupted",
    "test_command_permissions",
    "test_existing_bucket",
    "test_crash_points",
    "test_workflows",
    "test_newcomer",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the files; within a file nothing changes."""
    order = {name: place for place, name in enumerate(FIRST)}
    items.sort(key=lambda item: order.get(item.path.stem, len(order)))


EVENTS = Path(__file__).resolve().parent.parent / "events"
EVENT_FILES = sorted(EVENTS.glob("*.json"))


def load_event(name: str) -> Any:
    """One of the shipped events."""
    return json.loads((EVENTS / f"{name}.json").read_text())


@pytest.fixture(params=EVENT_FILES, ids=lambda path: path.stem)
def event_file(request: pytest.FixtureRequest) -> Path:
    """Every shipped event in turn."""
    path: Path = request.param
    return path
