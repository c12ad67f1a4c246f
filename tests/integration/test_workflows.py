"""The commands that set a pool up, against a platform without any workflow in it."""

import io
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from local.fake_platform.app import serving
from local.fake_platform.state import Behaviour, PlatformState
from local.stack import ROOT
from workflow_trigger.domain.document import DocumentKey, upload_name

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
    found = re.fullmatch(r"sam build && sam deploy --parameter-overrides WorkflowIds=(\S+) (\S+)", line)
    assert found
    ids = found[1].split(",")
    assert found[2] == f"UnstructuredApiUrl={url}"  # for it is not the default
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
    found = json.loads(done.stdout)
    verdicts = [{name: each[name] for name in ("health", "says", "fix")} for each in found[:-1]]
    listed = json.loads(run(url, "list", "--json").stdout)
    assert [{name: each[name] for name in verdict} for each, verdict in zip(listed, verdicts, strict=True)] == verdicts
    says = [each["says"] for each in found]
    for text, part in zip(says, ("source", "schedule", "not active", "type basic", "unknown"), strict=True):
        assert part in text


def test_all_pages_of_a_long_list_are_shown(platform: tuple[PlatformState, str]) -> None:
    state, url = platform
    assert run(url, "create", "--name", "uploads", "--count", "45").returncode == 0
    done = run(url, "list")
    assert (done.returncode, done.stderr) == (0, "")
    assert [each for each in state.workflows if each not in done.stdout] == []
    assert len(json.loads(run(url, "list", "--json").stdout)) == 45


def test_check_tells_who_uses_a_workflow_as_far_as_jobs_tell(platform: tuple[PlatformState, str]) -> None:
    state, url = platform
    assert run(url, "create", "--name", "uploads", "--count", "4").returncode == 0
    none, own, foreign, hidden = state.workflows
    own_name = upload_name(DocumentKey("s3://bucket/a.pdf", "v"), "attempt")
    drawn = "6f0f2a4e-9d0b-4b6e-8f58-8f6f8ad0a1c7"
    for workflow, name in ((own, own_name), (foreign, own_name), (foreign, "theirs.pdf"), (hidden, drawn)):
        file = state.store(name, None, io.BytesIO(b"1"))
        file.file_id = name if name == drawn else file.file_id
        job = state.start(workflow, [file])
        assert job is not None
        job.stopped_at = 0.0
    done = run(url, "check", none, own, foreign, hidden, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [each["health"] for each in found] == ["ok", "ok", "unknown", "ok"]
    for each, says in zip(
        found,
        (
            "; no job yet",
            "; 1 job, none of somebody else",
            "; 1 of 2 jobs ran files of somebody else, the latest on ",
            "; 1 job, none of somebody else, 1 without the names of files",
        ),
        strict=True,
    ):
        assert says in each["says"]


def test_workflows_that_do_not_fit_by_their_ids_are_named_by_their_keys(platform: tuple[PlatformState, str]) -> None:
    state, url = platform
    done = run(url, "create", "--name", "uploads", "--count", "80")
    assert done.returncode == 0, done.stderr
    names = re.findall(r"WorkflowIds=(\S+)", done.stdout)[0].split(",")
    assert names == [f"uploads-{number}" for number in range(1, 81)]
    assert {state.behaviour.workflow_keys[name] for name in names} == set(state.workflows)


@pytest.mark.parametrize(
    ("key", "url", "code", "message"),
    [
        ("wrong", None, 3, "401"),
        ("", None, 2, "API key"),
        (KEY, "https://api.unstructuredapp.io/general/v0/general", 2, "Partition"),
        (KEY, "http://127.0.0.1:1", 3, "was not created: http://127.0.0.1:1/api/v1 cannot be reached"),
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


@pytest.fixture
def answering() -> Iterator[Callable[[int, Any], str]]:
    """A platform that answers every request with a status and a body; a body None breaks the connection off."""
    servers: list[ThreadingHTTPServer] = []

    def serve(status: int, body: Any) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if body is None:
                    return
                content = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                self.do_GET()

            def log_message(self, *_: Any) -> None: ...

        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (200, None, "Whether the workflow uploads was created is not known: No answer"),
        (502, {"detail": "bad gateway"}, "Whether the workflow uploads was created is not known: HTTP 502"),
        (200, {"id": "x; rm -rf / #", "name": "a"}, "Whether the workflow uploads was created is not known"),
        (200, {"id": "[/red]\x1b[2J\ud800", "name": "a"}, "Whether the workflow uploads was created is not known"),
        (200, "no workflow", "Whether the workflow uploads was created is not known"),
        (422, {"detail": "no such node"}, "The workflow uploads was not created: HTTP 422: no such node"),
    ],
)
def test_create_says_not_created_only_where_that_is_known(
    answering: Callable[[int, Any], str], status: int, body: Any, says: str
) -> None:
    done = run(answering(status, body), "create", "--name", "uploads")
    assert (done.returncode, done.stdout) == (3, "")
    assert says in done.stderr


@pytest.mark.parametrize("key", ["schlüssel€", "two words", "key\x00x"])
def test_key_that_cannot_be_one_is_refused_before_anything_is_sent(
    platform: tuple[PlatformState, str], key: str
) -> None:
    done = run(platform[1], "list", key=key)
    assert (done.returncode, done.stdout) == (2, "")
    assert "cannot be an API key" in done.stderr


@pytest.mark.parametrize("arguments", [("create", "--name", "a"), ("list",), ("check", "a")], ids=lambda each: each[0])
@pytest.mark.parametrize("status", [200, 400, 403, 500])
def test_key_that_the_platform_repeats_is_not_printed(
    answering: Callable[[int, Any], str], status: int, arguments: tuple[str, ...]
) -> None:
    done = run(answering(status, {"detail": f"the key {KEY} is not good", "id": KEY}), *arguments)
    assert KEY not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


WORKFLOW = {"id": "6f0f2a4e-9d0b-4b6e-8f58-8f6f8ad0a1c7", "name": "uploads", "status": "active"}


@pytest.mark.parametrize(
    ("body", "code", "says"),
    [
        ([WORKFLOW | {"schedule": "daily"}], 0, "has a schedule"),
        ([WORKFLOW | {"schedule": {"crontab_entries": []}}], 0, "without a source"),
        ([None, WORKFLOW], 0, "uploads, without a source"),
        ([WORKFLOW | {"schedule": None, "key": 5}], 0, "uploads, without a source"),
        ({"items": [WORKFLOW]}, 3, "did not answer with a list of workflows"),
        ([{"name": "without an id"}], 3, "did not answer with a workflow"),
    ],
)
def test_list_takes_answers_as_they_come(answering: Callable[[int, Any], str], body: Any, code: int, says: str) -> None:
    """The same page again, whichever is asked for: a deployment that does not page is listed once."""
    done = run(answering(200, body), "list")
    assert done.returncode == code
    assert (done.stdout if code == 0 else done.stderr).count(says) == 1
