"""Events as they are published: each is held to its schema, and remembered."""

import json
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

from local.stack import ROOT

FOLDER = ROOT / "docs/events"
KINDS = {
    "unstructured.job-status-changed": "job-status-changed.schema.json",
    "unstructured.batch-finished": "batch-finished.schema.json",
}


@cache
def schema(kind: str) -> dict[str, Any]:
    """The schema of a detail type."""
    loaded: dict[str, Any] = json.loads(Path(FOLDER, KINDS[kind]).read_text())
    return loaded


@cache
def _validator(kind: str) -> Draft202012Validator:
    Draft202012Validator.check_schema(schema(kind))
    return Draft202012Validator(schema(kind))


def check(kind: str, detail: dict[str, Any]) -> None:
    """The detail is valid, and every field of it is described."""
    _validator(kind).validate(detail)
    assert set(detail) <= set(schema(kind)["properties"]), f"not described: {set(detail)}"


class Published:
    """A client of EventBridge."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.exceptions, self.meta = client.exceptions, client.meta
        self.details: list[tuple[str, dict[str, Any]]] = []
        self.refuses = False

    def put_events(self, Entries: list[dict[str, Any]]) -> Any:  # noqa: N803  as boto3 calls it
        details = [(entry["DetailType"], json.loads(entry["Detail"])) for entry in Entries]
        for kind, detail in details:
            check(kind, detail)
        if self.refuses:
            return {"FailedEntryCount": len(Entries), "Entries": [{"ErrorCode": "ThrottlingException"}] * len(Entries)}
        answer = self._client.put_events(Entries=Entries)
        self.details += details
        return answer
