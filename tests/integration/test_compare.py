"""The bucket against the ledger: what was missed is counted, and nothing else is called missed."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from tests.integration.harness import Harness
from workflow_trigger.adapters.s3_listing import listed_versions
from workflow_trigger.domain.document import ObjectVersion
from workflow_trigger.domain.errors import ComparisonUnfinished
from workflow_trigger.services.compare import compare


def compared(harness: Harness, *, seconds: float = 900) -> int:
    listed = listed_versions(harness.s3, harness.bucket, harness.settings.key_prefix)
    return compare(harness.context(seconds=seconds), listed)


def put(harness: Harness, *keys: str, after_hours: float = 3) -> None:
    for key in keys:
        harness.s3.put_object(Bucket=harness.bucket, Key=key, Body=b"content of " + key.encode())
    harness.clock.sleep(after_hours * 3_600)


@pytest.mark.parametrize("versioning", [True, False])
def test_object_whose_event_never_came_is_counted(harness: Harness, versioning: bool) -> None:
    if versioning:
        harness.s3.put_bucket_versioning(Bucket=harness.bucket, VersioningConfiguration={"Status": "Enabled"})
    known = harness.upload("known.pdf", b"1")
    harness.deliver(known)
    put(harness, "a b+c.pdf", "ü.pdf")
    assert compared(harness) == 2
    assert (harness.counts["Missed"], harness.counts["Registered"]) == (2, 0)
    assert len(harness.rows()) == 1


def test_what_was_missed_runs_once_with_register(harness: Harness) -> None:
    harness.configure(registers_missed=True)
    put(harness, *(f"{number}.pdf" for number in range(130)))
    assert compared(harness) == 130
    assert compared(harness) == 0
    harness.settle()
    rows = harness.rows()
    assert ({row["status"] for row in rows}, len(rows)) == ({"COMPLETED"}, 130)
    assert len(harness.state.accepted()) == 130


def markers(harness: Harness) -> None:
    for key in ("folder/", "folder_$folder$", "empty.pdf"):
        harness.s3.put_object(Bucket=harness.bucket, Key=key, Body=b"")
    harness.clock.sleep(3 * 3_600)


def own_results(harness: Harness) -> None:
    harness.configure(results_bucket=harness.bucket, results_prefix="results/")
    put(harness, "results/a.pdf")


class Younger:
    """A ledger that is younger than what is in the bucket."""

    def __init__(self, harness: Harness) -> None:
        self._client, self._clock = harness.dynamodb, harness.clock

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def describe_table(self, **_: Any) -> Any:
        return {"Table": {"CreationDateTime": self._clock.now() - timedelta(minutes=1)}}


def before_the_stack(harness: Harness) -> None:
    put(harness, "a.pdf")
    harness.dynamodb = Younger(harness)


@pytest.mark.parametrize(
    ("changes", "prepare"),
    [
        ({}, lambda each: put(each, "young.pdf", after_hours=1)),  # its event may still be on its way
        ({"retention_days": 1}, lambda each: put(each, "old.pdf", after_hours=25)),  # its row may have expired
        ({"key_suffix": ".pdf"}, lambda each: put(each, "a.docx")),
        ({"key_prefix": "in/"}, lambda each: put(each, "out/a.pdf")),
        ({}, markers),
        ({}, own_results),
        ({}, before_the_stack),
    ],
)
def test_what_need_not_have_a_row_is_not_missed(
    harness: Harness, changes: dict[str, Any], prepare: Callable[[Harness], None]
) -> None:
    harness.configure(**changes)
    prepare(harness)
    assert compared(harness) == 0


def test_bucket_that_takes_too_long_is_an_error_that_says_where_it_stopped(harness: Harness) -> None:
    put(harness, "a.pdf")
    with pytest.raises(ComparisonUnfinished, match=r"a\.pdf.*backfill"):
        compared(harness, seconds=20)


def test_memory_does_not_depend_on_the_bucket(harness: Harness) -> None:
    """Objects are judged a hundred at a time, as they are listed."""
    asked: list[int] = []

    def listed() -> Any:
        for number in range(1_000):
            asked.append(number)
            yield ObjectVersion(
                bucket=harness.bucket,
                key=f"{number}.pdf",
                version_id=None,
                etag="e",
                size_bytes=1,
                sequencer=None,
                uploaded_at=harness.context().iso_later(-2 * 3_600 - 10),
            )

    harness.clock.sleep(4 * 3_600)
    context = harness.context()
    documents, held = context.ledger.documents, []
    context.ledger.documents = lambda keys: held.append((len(asked), len(keys))) or documents(keys)  # type: ignore[method-assign,func-returns-value]
    assert compare(context, listed()) == 1_000
    assert held == [(100 * each, 100) for each in range(1, 11)]
