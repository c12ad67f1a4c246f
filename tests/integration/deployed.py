"""What the tests of the deployed template do again and again: upload, wait, look at the rows."""

import time
from collections.abc import Callable
from typing import Any

from local.stack import Deployed
from workflow_trigger.domain.model import FINAL

_HANG_SECONDS = 300


def until(happened: Callable[[], Any], *, every: float = 0.5) -> None:
    """Wait for something; the limit only catches a hang."""
    limit = time.monotonic() + _HANG_SECONDS
    while not happened():
        assert time.monotonic() < limit, "it did not happen"
        time.sleep(every)


def rows_under(stack: Deployed, prefix: str) -> dict[str, dict[str, Any]]:
    return {row["key"]: row for row in stack.rows(prefix)}


def upload(stack: Deployed, keys: list[str]) -> dict[str, bytes]:
    contents = {key: f"content of {key}".encode() for key in keys}
    for key, content in contents.items():
        stack.aws.client("s3").put_object(Bucket=stack["SourceBucket"], Key=key, Body=content)
    return contents


def run_to_the_end(stack: Deployed, prefix: str, number: int) -> dict[str, dict[str, Any]]:
    """Until every document is final, and its event is published: nothing changes any more."""

    def at_rest() -> bool:
        rows = rows_under(stack, prefix)
        return len(rows) == number and all(row["status"] in FINAL and "queue" not in row for row in rows.values())

    until(lambda: len(rows_under(stack, prefix)) == number)
    stack.tick()
    until(at_rest)
    return rows_under(stack, prefix)


def url_of(stack: Deployed, key: str) -> str:
    return f"s3://{stack['SourceBucket']}/{key}"
