import json
from typing import Any

import pytest

from tests.conftest import load_event
from workflow_trigger.adapters.s3_events import ParsedEvent


def parsed_of(name: str) -> ParsedEvent:
    event = load_event(name)
    if name.startswith("sqs"):
        parsed_all = [ParsedEvent.of(record["body"]) for record in event["Records"]]
        return ParsedEvent(
            versions=[version for parsed in parsed_all for version in parsed.versions],
            skipped=[reason for parsed in parsed_all for reason in parsed.skipped],
            unreadable=[reason for parsed in parsed_all for reason in parsed.unreadable],
        )
    return ParsedEvent.of(event)


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("s3-put", ["minutes/sample.pdf"]),
        ("s3-post", ["form/sample.pdf"]),
        ("s3-copy", ["copy/sample.pdf"]),
        ("s3-multipart-upload", ["large/sample.pdf"]),
        ("s3-key-space", ["annual report 2026.pdf"]),
        ("s3-key-plus", ["c++ guide.pdf"]),
        ("s3-key-percent", ["100% sure%25.pdf"]),
        ("s3-key-unicode", ["Übersicht/報告書 📄.pdf"]),
        ("s3-key-hostile", ['quote" and\r\nBreak: 1 ../../etc/\u202efdp.pdf']),
        ("s3-versioned", ["versioned/sample.pdf"]),
        ("s3-missing-size", ["no-size.pdf"]),
        ("s3-several-records", ["several/one.pdf", "several/two.pdf", "several/three.pdf"]),
        ("s3-one-bad-record", ["good/before.pdf", "good/after.pdf"]),
        ("eventbridge-put", ["minutes/event bridge+plus%.pdf"]),
        ("eventbridge-versioned", ["versioned/bridge.pdf"]),
        ("sqs-s3", ["queue/sample.pdf"]),
        ("sqs-eventbridge", ["queue/bridge sample.pdf"]),
        ("sqs-sns-s3", ["queue/topic sample.pdf"]),
        ("sqs-sns-eventbridge", ["queue/topic bridge.pdf"]),
        ("sqs-several-messages", ["batch/one.pdf", "batch/two.pdf", "batch/three.pdf"]),
        ("sqs-duplicate", ["twice/sample.pdf", "twice/sample.pdf"]),
        ("sqs-one-bad-message", ["good/queue.pdf", "good/topic.pdf"]),
    ],
)
def test_key_is_decoded_as_its_envelope_needs(name: str, keys: list[str]) -> None:
    assert [version.key for version in parsed_of(name).versions] == keys


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("s3-test-event", "test event"),
        ("s3-removed", "not a creation"),
        ("eventbridge-deleted", "not a creation"),
        ("sqs-test-event", "test event"),
    ],
)
def test_what_needs_no_work_is_skipped_with_a_reason(name: str, reason: str) -> None:
    parsed = parsed_of(name)
    assert (parsed.versions, parsed.unreadable) == ([], [])
    assert reason in parsed.skipped[0]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("s3-missing-etag", "neither a version id nor an etag"),
        ("s3-missing-key", "has no key"),
        ("s3-wrong-types", "size is not a number"),
        ("s3-one-bad-record", "has no bucket"),
        ("sqs-one-bad-message", "not JSON"),
        ("not-an-event", "neither an S3 notification nor"),
    ],
)
def test_what_cannot_be_read_is_named(name: str, reason: str) -> None:
    assert reason in parsed_of(name).unreadable[0]


def test_every_shipped_event_is_accounted_for(event_file: Any) -> None:
    parsed = parsed_of(event_file.stem)
    assert parsed.versions or parsed.skipped or parsed.unreadable


def test_s3_record_gives_every_field() -> None:
    (version,) = parsed_of("s3-versioned").versions
    assert version.bucket == "example-uploads"
    assert version.version_id == "3HL4kqtJlcpXroDTDmJ+rmSpXd3dIbrHY"
    assert version.etag == "09e8a31852e1dfb9a780d0ccf1ab79b4"
    assert version.size_bytes == 2553
    assert version.sequencer
    assert version.uploaded_at == "2026-02-03T09:14:27.315Z"
    assert version.document_key == ("s3://example-uploads/versioned/sample.pdf", "3HL4kqtJlcpXroDTDmJ+rmSpXd3dIbrHY")


@pytest.mark.parametrize("version_id", [None, "", "null"])
def test_without_a_version_id_the_etag_is_the_version(version_id: str | None) -> None:
    event = load_event("s3-put")
    event["Records"][0]["s3"]["object"]["versionId"] = version_id
    (version,) = ParsedEvent.of(event).versions
    assert version.document_key.version == "09e8a31852e1dfb9a780d0ccf1ab79b4"


def test_key_that_ends_in_a_slash_but_has_bytes_is_an_object() -> None:
    event = load_event("s3-folder")
    event["Records"][0]["s3"]["object"]["size"] = 1
    assert [version.key for version in ParsedEvent.of(event).versions] == ["folder/"]


def test_envelopes_have_a_limit() -> None:
    body: Any = load_event("s3-put")
    for _ in range(10):
        body = {"Type": "Notification", "Message": json.dumps(body)}
    assert ParsedEvent.of(body).unreadable == ["too many envelopes"]


def test_key_of_1024_bytes_is_read_and_a_longer_one_is_named() -> None:
    event = load_event("eventbridge-put")
    event["detail"]["object"]["key"] = "é" * 512
    assert ParsedEvent.of(event).versions[0].key == "é" * 512
    event["detail"]["object"]["key"] = "é" * 513
    assert ParsedEvent.of(event).unreadable == ["the object key is longer than 1,024 bytes"]


@pytest.mark.parametrize("key", ["caf%E9.pdf", "%FF", "a%C3.pdf", "%", "a%2", "%zz.pdf", "100%.pdf"])
def test_key_that_cannot_be_decoded_is_unreadable(key: str) -> None:
    """Case 33: such a key is none that the bucket can have."""
    event = load_event("s3-put")
    event["Records"][0]["s3"]["object"]["key"] = key
    parsed = ParsedEvent.of(event)
    assert parsed.versions == []
    assert "cannot be decoded" in parsed.unreadable[0]


@pytest.mark.parametrize("depth", [2, 3_000])
def test_envelope_that_holds_no_text_is_unreadable_however_deep(depth: int) -> None:
    """SNS puts a text into its envelope; anything else is none of its, and must not end the invocation."""
    body = '{"Type": "Notification", "Message": ' * depth + "1" + "}" * depth
    parsed = ParsedEvent.of(body)
    assert (parsed.versions, len(parsed.unreadable)) == ([], 1)
