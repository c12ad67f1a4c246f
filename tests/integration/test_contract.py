"""The vendor's contract: our requests conform to it, and the simulated platform publishes the same."""

from pathlib import Path
from typing import Any

import yaml

from local.fake_platform.app import create_app
from local.fake_platform.state import PlatformState
from tests.integration.harness import Harness

CONTRACT = Path(__file__).resolve().parent.parent / "contract/run-workflow.yaml"
PATH = "/api/v1/workflows/{workflow_id}/run"


def normal(value: Any) -> Any:
    """One way to say "a file", which OpenAPI 3.1 has two of, and no matter in which order."""
    if isinstance(value, dict):
        if value == {"type": "string", "contentMediaType": "application/octet-stream"}:
            return {"type": "string", "format": "binary"}
        return {name: normal(inner) for name, inner in value.items()}
    return [normal(inner) for inner in value] if isinstance(value, list) else value


def test_simulated_platform_publishes_the_vendors_contract(tmp_path: Path) -> None:
    contract = yaml.safe_load(CONTRACT.read_text())
    ours = normal(create_app(PlatformState(tmp_path)).openapi())
    assert ours["paths"][PATH] == contract["paths"][PATH]
    for name in ("Body_run_workflow", "JobInformation", "JobStatus", "NodeFileMetadata", "WorkflowJobType"):
        assert ours["components"]["schemas"][name] == contract["components"]["schemas"][name], name


def test_request_is_one_complete_form_with_an_exact_length(harness: Harness) -> None:
    seen: list[dict[str, str]] = []
    start = harness.state.start

    def watched(*arguments: Any, **more: Any) -> Any:
        seen.append({file.filename: file.content_type or "" for file in arguments[1]})
        return start(*arguments, **more)

    harness.state.start = watched  # type: ignore[method-assign]
    documents = [
        harness.upload("a.pdf", b"a"),
        harness.upload("b", b"b"),
        harness.upload("c.bin", b"c", ContentType="text/html; charset=utf-8"),
    ]
    harness.deliver(*documents)
    names = [harness.row(document)["upload_name"] for document in documents]
    types = ["application/pdf", "application/octet-stream", "text/html"]
    assert seen == [dict(zip(names, types, strict=True))]
