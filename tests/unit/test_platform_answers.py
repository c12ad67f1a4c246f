"""Answers are read with distrust: statuses by what they mean, bodies by their shape."""

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from workflow_trigger.adapters.unstructured.responses import (
    details_from,
    error_for_status,
    file_status_from,
    job_from,
    retry_after_seconds,
)
from workflow_trigger.adapters.unstructured.streams import array_entries, whole_json
from workflow_trigger.domain import errors
from workflow_trigger.domain.job import FailedFile, JobState


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (301, errors.Misconfigured),
        (307, errors.Misconfigured),
        (400, errors.Refused),
        (401, errors.KeyRejected),
        (402, errors.Misconfigured),
        (403, errors.Misconfigured),
        (404, errors.NotFound),
        (405, errors.Misconfigured),
        (409, errors.Misconfigured),
        (410, errors.Misconfigured),
        (413, errors.Refused),
        (415, errors.Refused),
        (418, errors.Misconfigured),
        (422, errors.Refused),
        (429, errors.Throttled),
    ],
)
def test_status_tells_what_happened(status: int, kind: type[Exception]) -> None:
    assert type(error_for_status(status, {}, b"")) is kind


@pytest.mark.parametrize("status", [200, 202, 408, 499, 500, 502, 503, 504])
def test_these_statuses_alone_tell_nothing(status: int) -> None:
    assert error_for_status(status, {}, b"") is None


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b'{"detail": "Not Found"}', "HTTP 413: Not Found"),
        (
            b'{"detail": [{"loc": ["body", "input_files", 0], "msg": "bad", "type": "x"}]}',
            "HTTP 413: body.input_files.0: bad",
        ),
        (b"<html>Too large</html>", "HTTP 413: <html>Too large</html>"),
        (b"", "HTTP 413: no reason given"),
        (b"\xff\xfe", "HTTP 413: \ufffd\ufffd"),
        (json.dumps({"detail": "x" * 9_999}).encode(), "HTTP 413: " + "x" * 256),
    ],
)
def test_reason_is_short_and_for_people(body: bytes, text: str) -> None:
    assert str(error_for_status(413, {}, body)) == text


@pytest.mark.parametrize(
    ("header", "body", "seconds"),
    [
        ("7", b"", 7),
        ("0", b"", 1),
        ("100000", b"", 900),
        (None, b'{"retry_after": 12.5}', 12.5),
        (None, b'{"retry_after": "soon"}', 30),
        (None, b"[]", 30),
        ("nonsense", b"", 30),
        ("nan", b"", 30),
    ],
)
def test_retry_after_is_read_from_header_or_body(header: str | None, body: bytes, seconds: float) -> None:
    assert retry_after_seconds({"Retry-After": header} if header else {}, body) == seconds


def test_retry_after_may_be_a_date() -> None:
    moment = datetime.now(UTC) + timedelta(seconds=120)
    assert 110 < retry_after_seconds({"Retry-After": format_datetime(moment, usegmt=True)}, b"") <= 120


@pytest.mark.parametrize("begins", [b"", b"\xef\xbb\xbf", b"\xef\xbb\xbf\r\n "])
def test_list_may_begin_with_a_byte_order_mark(begins: bytes) -> None:
    whole = begins + b'[{"id": "a"}, {"id": "b"}]'
    for chunks in ([whole], [bytes([each]) for each in whole]):
        assert [each["id"] for each in array_entries(chunks)] == ["a", "b"]


@pytest.mark.parametrize(
    ("succeeded", "failed"), [("SUCCESS", "FAILURE"), ("success", "failure"), ("Success", "Failure")]
)
def test_status_of_a_file_is_read_in_any_case(succeeded: str, failed: str) -> None:
    told = file_status_from(
        {"files": [{"document": "a", "status": succeeded}, {"document": "b", "status": failed, "error": "no"}]}
    )
    assert told.succeeded == ("a",)
    assert told.failed == (FailedFile(document="b", error="no"),)


@pytest.mark.parametrize("answer", [None, [], "x", {}, {"id": None}, {"id": 7}, {"id": ""}, {"id": "x" * 300}])
def test_without_an_id_there_is_no_job(answer: Any) -> None:
    assert job_from(answer) is None


def test_a_job_is_read_field_by_field() -> None:
    job = job_from(
        {
            "id": "j",
            "status": 17,
            "created_at": "2025-01-01T00:00:00.348884",
            "runtime": "PT0S",
            "input_file_ids": ["a", 7, "b"],
            "output_node_files": [{"node_id": "n", "file_id": "a", "size": 3}, "junk"],
        }
    )
    assert job is not None
    assert (job.status, job.state) == ("UNKNOWN", JobState.UNKNOWN)
    assert job.created_at == "2025-01-01T00:00:00.348884Z"
    assert job.input_file_ids == ("a", "b")
    assert job.output_node_files == ({"node_id": "n", "file_id": "a"},)
    assert job.workflow_name is None


def test_summary_of_zeros_is_no_summary() -> None:
    """Each number has the default 0 in the contract, and no job is without a file."""
    zeros = {"total_docs": 0, "total_docs_succeeded": 0, "total_docs_failed": 0}
    details = details_from({"processing_status": "FAILED", "summary": zeros})
    assert details is not None
    assert (details.succeeded, details.failed) == (None, None)


def test_output_has_the_fields_of_the_contract_and_no_others() -> None:
    node = {"node_id": "n", "file_id": "f", "node_type": "partition", "missing": "x", "since": "y", "bucket": "b"}
    job = job_from({"id": "j", "output_node_files": [node]})
    assert job is not None
    assert job.output_node_files == ({"node_id": "n", "node_type": "partition", "file_id": "f"},)


@pytest.mark.parametrize("status", ["completed", "Completed", "COMPLETED"])
def test_status_is_read_in_any_case(status: str) -> None:
    job = job_from({"id": "j", "status": status})
    assert job is not None
    assert job.state is JobState.COMPLETED


@pytest.mark.parametrize("piece_bytes", [1, 2, 7, 1_000])
@pytest.mark.parametrize(
    ("body", "is_output"),
    [
        (b"[]", True),
        (b"{}", True),
        (b' \n[{"type": "Title", "text": "a long enough one"}] \n', True),
        (b'\xef\xbb\xbf[{"type": "Title"}]', True),
        (b'{"elements": [], "detail": "none"}', True),
        (b"", False),
        (b" \n", False),
        (b"[", False),
        (b"null", False),
        (b'{"detail": "not ready"}', False),
        (b'{ "error" : {"code": "not ready", "message": "wait for some more seconds"}}', False),
        (b'\n{"message": "no"}', False),
        (b"upstream connect error or disconnect/reset before headers", False),
        (b'[{"type": "Title"}, {"ty', False),
        (b"<html><body>[]</body></html>", False),
    ],
)
def test_output_is_told_from_an_error_in_however_many_pieces_it_comes(
    piece_bytes: int, body: bytes, is_output: bool
) -> None:
    pieces = (body[start : start + piece_bytes] for start in range(0, len(body), piece_bytes))
    if is_output:
        assert b"".join(whole_json(pieces)) == body.lstrip(b"\xef\xbb\xbf \n")
    else:
        with pytest.raises(errors.Unavailable):
            list(whole_json(pieces))
