"""The commands that set a pool up, against a platform without any workflow in it."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from local.fake_platform.app import serving
from local.fake_platform.state import Behaviour, PlatformState
from local.stack import ROOT

KEY = "a-key-that-nobody-sees"


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[tuple[PlatformState, str]]:
    state = PlatformState(tmp_path, Behaviour(api_key=KEY, known_workflows=[]))
    with serving(state) as url:
        yield state, url


def run(url: str, *arguments: str, key: str = KEY) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
    typed = [sys.executable, "-m", "workflow_trigger_cli", "workflows", *arguments, "--api-url", url]
    more = {"cwd": ROOT, "env": environment, "text": True, "capture_output": True, "timeout": 60}
    return subprocess.run(typed, input=f"{key}\n", check=False, **more)  # type: ignore[call-overload, no-any-return]


def test_created_workflows_take_files_and_the_deploy_line_names_them(platform: tuple[PlatformState, str]) -> None:
    state, url = platform
    done = run(url, "create", "--name", "uploads", "--count", "2")
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    found = re.fullmatch(r"sam build && sam deploy --parameter-overrides WorkflowIds=(\S+)", line)
    assert found
    ids = found[1].split(",")
    assert [state.workflows[each]["name"] for each in ids] == ["uploads-1", "uploads-2"]
    for each in ids:
        made = state.workflows[each]
        assert (made["workflow_type"], made["sources"], made["schedule"]) == ("custom", [], None)
        assert made["workflow_nodes"]
        assert state.knows(each)
    assert KEY not in done.stdout + done.stderr
    checked = run(url, "check", *ids)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    listed = json.loads(run(url, "list", "--json").stdout)
    assert [each["id"] for each in listed] == ids


def test_check_names_what_speaks_against_a_workflow(platform: tuple[PlatformState, str]) -> None:
    state, url = platform
    for name, wrong in (
        ("with-source", {"sources": ["s"]}),
        ("scheduled", {"schedule": {"crontab_entries": [{"cron_expression": "0 * * * *"}]}}),
        ("inactive", {"status": "inactive"}),
        ("old", {"workflow_type": "basic"}),
    ):
        usual: dict[str, Any] = {
            "sources": [],
            "destinations": [],
            "schedule": None,
            "workflow_type": "custom",
            "status": "active",
        }
        made = f"00000000-0000-0000-0000-{len(state.workflows):012}"
        state.workflows[made] = {"id": made, "name": name, **usual, **wrong}
    done = run(url, "check", *state.workflows, "no-such-workflow", "--json")
    assert done.returncode == 1
    says = [each["says"] for each in json.loads(done.stdout)]
    for text, part in zip(says, ("source", "schedule", "not active", "type basic", "unknown"), strict=True):
        assert part in text


@pytest.mark.parametrize(
    ("key", "url", "code", "message"),
    [
        ("wrong", None, 3, "401"),
        ("", None, 2, "API key"),
        (KEY, "https://api.unstructuredapp.io/general/v0/general", 2, "Partition"),
        (KEY, "http://127.0.0.1:1", 3, "No answer"),
    ],
)
def test_errors_name_what_to_fix(
    platform: tuple[PlatformState, str], key: str, url: str | None, code: int, message: str
) -> None:
    done = run(url or platform[1], "create", "--name", "uploads", key=key)
    assert (done.returncode, done.stdout) == (code, "")
    assert message in done.stderr
    assert platform[0].workflows == {}


def test_template_gives_the_nodes(platform: tuple[PlatformState, str], tmp_path: Path) -> None:
    state, url = platform
    template = tmp_path / "nodes.json"
    nodes = [{"name": "Partitioner", "type": "partition", "subtype": "auto", "settings": {"strategy": "auto"}}]
    template.write_text(json.dumps({"workflow_nodes": nodes}))
    assert run(url, "create", "--name", "uploads", "--template", str(template)).returncode == 0
    (made,) = state.workflows.values()
    assert (made["name"], made["workflow_nodes"]) == ("uploads", nodes)
    template.write_text("[]")
    refused = run(url, "create", "--name", "more", "--template", str(template))
    assert (refused.returncode, len(state.workflows)) == (2, 1)
