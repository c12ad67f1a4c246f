"""Shared by all tests: the events of `events/`."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

# Before anything imports the handlers: Powertools wants a name for the service, boto3 a region.
os.environ.setdefault("POWERTOOLS_SERVICE_NAME", "tests")
os.environ.setdefault("AWS_DEFAULT_REGION", "us-east-1")
os.environ.setdefault("AWS_ACCESS_KEY_ID", "test")
os.environ.setdefault("AWS_SECRET_ACCESS_KEY", "test")

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
