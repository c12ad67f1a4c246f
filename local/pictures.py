"""`make pictures`: the pictures of the documentation, as the commands print them in a terminal of 120 columns."""

import io
import re
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType

from local.stack import ROOT
from workflow_trigger.domain.model import Status
from workflow_trigger_cli import advice, views
from workflow_trigger_cli.commands.find import Findings, Version
from workflow_trigger_cli.commands.status import StackState, WorkflowState

FOLDER = ROOT / "docs/pictures"
_COLUMNS = 120
_TEXT = re.compile(r'<text class="([^"]*)" x="([\d.]+)"([^>]*?) textLength="([\d.]+)"([^>]*)>((?:&#160;)+)')

_WORKFLOW: dict[str, Any] = {
    "route": "",
    "is_in_pool": True,
    "job_id": None,
    "job_status": None,
    "since": None,
    "not_before": None,
    "files": 0,
}
_WORKFLOW |= {"error": None, "meaning": None, "todo": None}

STATUS = StackState(
    stack="unstructured-workflow-trigger",
    region="eu-central-1",
    at="2026-11-23T15:35:31.000000Z",
    rows=dict.fromkeys(map(str, Status), 0) | {"PENDING": 21, "IN_PROGRESS": 10, "COMPLETED": 130, "FAILED": 1},
    oldest_waiting_seconds=119,
    routes={},
    pauses=(),
    workflows=[
        WorkflowState(
            **_WORKFLOW
            | {
                "workflow_id": "a62eee33-783c-4ec9-8d17-9aba481e30c8",
                "phase": "running",
                "files": 10,
                "job_id": "415bee9e-f689-48ae-baba-9d933ef0a5ee",
                "job_status": "IN_PROGRESS",
                "since": "2026-11-23T15:35:12.000000Z",
                "accepted_count": 141,
            }
        ),
        WorkflowState(
            **_WORKFLOW | {"workflow_id": "f0a1b2c3-4d5e-6f7a-8b9c-0d1e2f3a4b5c", "phase": "idle", "accepted_count": 21}
        ),
    ],
    unresolved=None,
    unregistered_events=0,
    dead_letters=0,
    attention=[],
)

_ROW = {
    "object": "s3://contracts-2026/in/scan of contract.pdf",
    "version": "9fW3kq0xUoV2bQ",
    "status": "COMPLETED",
    "size": 2_481_733,
    "uploaded_at": "2026-11-23T14:02:11.000Z",
    "updated_at": "2026-11-23T15:12:40.118034Z",
    "job_id": "415bee9e-f689-48ae-baba-9d933ef0a5ee",
    "job_status": "COMPLETED",
    "workflow_id": "a62eee33-783c-4ec9-8d17-9aba481e30c8",
    "workflow_name": "uploads-1",
    "results": [
        {"bucket": "results-2026", "key": "results/in/scan of contract.pdf/9fW3kq0xUoV2bQ/415bee9e/chunk.json"}
    ],
    "runs": [
        {
            "status": "FAILED",
            "job_id": "0c4c41f2-6f4e-4a3b-9f0b-0d1de4a1b7a2",
            "updated_at": "2026-11-23T14:03:20.551201Z",
            "error": {"type": "FileFailed", "message": "password protected"},
        }
    ],
}

FOUND = Findings(
    object=str(_ROW["object"]),
    versions=[Version(meaning=advice.OF_STATUS[Status.COMPLETED].meaning, todo="", row=_ROW)],
    in_bucket=True,
    meaning="",
    todo="",
)


def picture(name: str, typed: str, shown: RenderableType) -> str:
    """What a command prints, as SVG.

    Rich writes leading spaces into a text and stretches it to its length; renderers that drop such spaces would stretch
    what is left. So the spaces become a larger x.
    """
    console = Console(record=True, width=_COLUMNS, highlight=False, file=io.StringIO(), force_terminal=True)
    console.print(f"$ {typed}")
    console.print(shown)
    svg = console.export_svg(title=typed, unique_id=name)

    def moved(found: re.Match[str]) -> str:
        kind, x, between, length, rest, spaces = found.groups()
        count = spaces.count("&#160;")
        x, length = f"{float(x) + count * 12.2:.1f}", f"{max(float(length) - count * 12.2, 0):.1f}"
        return f'<text class="{kind}" x="{x}"{between} textLength="{length}"{rest}>'

    return "\n".join(line.rstrip() for line in _TEXT.sub(moved, svg).splitlines()) + "\n"


def pictures() -> dict[Path, str]:
    """Every picture that is made from what the commands print."""
    url = f"'{FOUND.object}'"
    return {
        FOLDER / "status-watch.svg": picture("status", "workflow-trigger status --watch", views.status_screen(STATUS)),
        FOLDER / "find.svg": picture("find", f"workflow-trigger find {url}", views.find_screen(FOUND)),
    }


if __name__ == "__main__":
    for path, svg in pictures().items():
        path.write_text(svg)
