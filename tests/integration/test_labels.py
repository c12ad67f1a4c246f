"""What an uploader says of a document, its metadata and its tags, arrives where its outputs are used."""

import json
from email.header import decode_header, make_header
from typing import Any

import pytest

from tests.integration.fault_injection import Denied, PassThrough
from tests.integration.harness import Harness
from workflow_trigger.domain.document import LABELS_LIMIT_BYTES

METADATA = {"tenant": "acme", "case-id": "4711", "note": "=?utf-8?b?TcO8bGxlcg==?="}


@pytest.fixture
def results(harness: Harness) -> Harness:
    harness.s3.create_bucket(Bucket=f"results-{harness.bucket}")
    harness.configure(results_bucket=f"results-{harness.bucket}")
    return harness


@pytest.mark.parametrize("reads_tags", [False, True])
def test_metadata_and_tags_reach_row_event_and_results(
    results: Harness, monkeypatch: pytest.MonkeyPatch, reads_tags: bool
) -> None:
    results.configure(reads_tags=reads_tags)
    published: list[Any] = []
    put_events = results.events.put_events

    def put(**arguments: Any) -> Any:
        published.extend(json.loads(entry["Detail"]) for entry in arguments["Entries"])
        return put_events(**arguments)

    monkeypatch.setattr(results.events, "put_events", put)
    labelled = results.upload("a.pdf", b"a", Metadata=METADATA, Tagging="department=legal&cost%20centre=7")
    plain = results.upload("b.pdf", b"b")
    results.deliver(labelled, plain)
    results.settle()
    row = results.row(labelled)
    tags = {"department": "legal", "cost centre": "7"} if reads_tags else None
    assert row["metadata"] == {**METADATA, "note": "Müller"}
    assert row.get("tags") == tags
    (event,) = (detail for detail in published if detail["key"] == "a.pdf")
    assert (event["metadata"], event.get("tags")) == (row["metadata"], tags)
    for entry in row["results"]:
        headers = results.s3.head_object(Bucket=entry["bucket"], Key=entry["key"])["Metadata"]
        stored = {name: str(make_header(decode_header(value))) for name, value in headers.items()}
        assert stored["job-id"] == row["job_id"]
        assert row["metadata"].items() <= stored.items()
        assert (stored.get("tag-department"), stored.get("tag-cost%20centre")) == ((tags and "legal"), (tags and "7"))
    assert not {"metadata", "tags"} & set(results.row(plain))
    stored = results.s3.head_object(
        Bucket=results.settings.results_bucket, Key=results.row(plain)["results"][0]["key"]
    )["Metadata"]
    assert "tenant" not in stored


def test_another_upload_of_the_same_bytes_has_labels_of_its_own(results: Harness) -> None:
    first = results.upload("a.pdf", b"a", Metadata={"tenant": "acme"})
    results.deliver(first)
    results.settle()
    again = results.upload("a.pdf", b"a")
    assert again.document_key == first.document_key
    results.deliver(again)
    results.settle()
    assert results.accepted(again) == 2
    assert "metadata" not in results.row(again)


def test_tags_that_cannot_be_read_keep_the_document_waiting(results: Harness) -> None:
    results.configure(reads_tags=True)
    results.hook = Denied("s3 get_object_tagging")
    document = results.upload("a.pdf", b"a")
    results.deliver(document)
    row = results.row(document)
    assert (row["status"], row["error"]["type"]) == ("PENDING", "ObjectDenied")
    assert "tags of s3://" in row["error"]["message"]
    results.hook = PassThrough()
    results.settle()
    assert results.status(document) == "COMPLETED"
    assert results.accepted(document) == 1


def test_labels_are_bounded_in_the_row(results: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that speaks S3's language may allow more than S3 does."""
    document = results.upload("a.pdf", b"a")
    get_object = results.s3.get_object
    large = {"first": "1", "large": "x" * LABELS_LIMIT_BYTES, "last": "3"}
    monkeypatch.setattr(results.s3, "get_object", lambda **more: {**get_object(**more), "Metadata": large})
    results.deliver(document)
    results.settle()
    assert results.row(document)["metadata"] == {"first": "1", "last": "3"}
