"""Any text from outside: nothing of it ends a header or a line, leaves its folder, or cannot be written down."""

import io
import json
import logging
import re
import unicodedata
from datetime import UTC, datetime
from email.parser import BytesHeaderParser
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflow_trigger import bootstrap
from workflow_trigger.adapters.dynamodb.mapping import document_from_item, present, serialize, update_attributes
from workflow_trigger.adapters.s3_events import ParsedEvent
from workflow_trigger.adapters.s3_results import metadata, result_key
from workflow_trigger.adapters.unstructured.multipart import Encoder, Part
from workflow_trigger.adapters.unstructured.responses import (
    error_for_status,
    error_message,
    job_from,
    retry_after_seconds,
)
from workflow_trigger.domain.clock import iso, parse_time
from workflow_trigger.domain.document import DocumentKey, ObjectVersion, batch_name, bounded_labels, upload_name
from workflow_trigger.domain.errors import REMOTE_TEXT_LIMIT, truncate
from workflow_trigger.domain.job import FileStatus, Job
from workflow_trigger.domain.matching import candidates, match, mentions
from workflow_trigger.domain.media_types import media_type
from workflow_trigger.domain.model import Attempt, Document, DocumentUpdate, Status


def is_fit(text: str) -> bool:
    """Whether a text stays on its line, in its direction, and can be stored everywhere."""
    turns = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    unfit = {"Cc", "Cs", "Cn", "Zl", "Zp"}
    return not any(unicodedata.category(each) in unfit or unicodedata.bidirectional(each) in turns for each in text)


FIRST = datetime(2000, 1, 1, tzinfo=UTC)

# Half of it what somebody would try, half of it anything that Python calls a letter, lone surrogates included.
PIECES = [
    '"',
    "'",
    "\r\n",
    "\n",
    "\x00",
    "../",
    "/..",
    "/",
    ".",
    "\u202e",
    "\u200f",
    "\u2028",
    "\x1b[2J",
    "\ud800",
    "--b",
    "%0d%0a",
]
LETTERS = st.sampled_from(PIECES) | st.characters(exclude_categories=())
TEXT = st.lists(LETTERS, max_size=60).map("".join)
LONG = st.builds(str.__mul__, TEXT | st.sampled_from("ä報📄"), st.integers(1, 1_100))
KEY = st.builds(DocumentKey, (TEXT | LONG).map("s3://bucket/{}".format), TEXT)
IN_UNICODE = (TEXT | LONG).map(lambda text: text.encode("utf-8", "ignore").decode())

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT | LONG,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=8,
)
FILES = st.lists(TEXT | LONG | JSON, max_size=5)
NODES = st.lists(
    st.dictionaries(st.sampled_from(["file_id", "node_id", "node_type", ""]) | TEXT, TEXT | JSON) | JSON, max_size=5
)
JOB = st.fixed_dictionaries(
    {"id": TEXT | JSON},
    optional={
        **dict.fromkeys(("workflow_id", "workflow_name", "status", "created_at", "runtime", "job_type"), TEXT | JSON),
        "input_file_ids": FILES | JSON,
        "output_node_files": NODES | JSON,
    },
)

TIMES = ["0001-01-01T00:00:00+05:00", "9999-12-31T23:59:59-05:00", "0001-01-01T00:00:00Z", "2026-01-01T00:00:00"]
TIMES += ["Mon, 01 Jan 2024 00:00:00 +99999999999999999999", "Mon, 01 Jan 2024 00:00:00 GMT"]
NUMBERS = ["0", "-5", "1e999", "nan", "9" * 400]


def head_of(filename: str, content_type: str) -> bytes:
    part = Part(filename=filename, content_type=content_type, length_bytes=0, chunks=list)
    return b"".join(Encoder([part], boundary="b").body_without_closing())


@given(KEY, TEXT | st.none())
def test_header_of_a_part_has_its_two_lines_whatever_key_and_type_are(key: DocumentKey, declared: str | None) -> None:
    name = upload_name(key, "attempt")
    first, _, rest = head_of(name, media_type(declared, key.object)).partition(b"\r\n")
    assert first == b"--b"
    assert rest.isascii()
    assert rest.count(b"\n") == rest.count(b"\r") == 3
    headers = BytesHeaderParser().parsebytes(rest)
    assert headers.keys() == ["Content-Disposition", "Content-Type"]
    assert headers.get_param("filename", header="Content-Disposition") == name
    assert headers["Content-Type"].count("/") == 1


@given(KEY)
def test_name_that_is_sent_is_short_and_carries_a_token(key: DocumentKey) -> None:
    name = upload_name(key, "attempt")
    assert len(name) <= 40 + 1 + 16 + 11
    assert mentions([name], [name])


@given(
    IN_UNICODE,
    IN_UNICODE,
    IN_UNICODE,
    st.dictionaries(st.sampled_from(["node_id", "node_type"]), IN_UNICODE),
    st.integers(400, 1024),
)
def test_results_stay_in_their_folder_under_a_key_that_can_be_shown(
    object_key: str, version: str, job_id: str, node: dict[str, str], limit_bytes: int
) -> None:
    path = result_key(DocumentKey(f"s3://bucket/{object_key}", version), job_id, node, limit_bytes)
    assert len(path.encode()) <= limit_bytes
    assert path.isprintable()
    assert not {".", ".."} & set(path.split("/"))
    assert path.endswith(".json")


LABELS = st.dictionaries(IN_UNICODE, IN_UNICODE, max_size=5).map(bounded_labels)


@given(
    st.fixed_dictionaries(dict.fromkeys(("job_id", "node_id", "node_type", "node_subtype", "file_id"), IN_UNICODE)),
    LABELS,
    LABELS,
)
def test_metadata_of_a_result_are_headers_that_s3_takes(
    entry: dict[str, str], labels: dict[str, str], tags: dict[str, str]
) -> None:
    source = ObjectVersion(
        bucket="b", key="k", version_id="v", etag=None, size_bytes=1, sequencer=None, uploaded_at=None
    )
    document = Document(source=source, status=Status.IN_PROGRESS, read_at="", metadata=labels, tags=tags)
    headers = metadata(entry, document)
    assert all(re.fullmatch(r"[A-Za-z0-9_.~%/-]+", name) for name in headers)
    assert sum(len(name) + len(value) for name, value in headers.items()) <= 2_048
    assert all(value.isascii() and value.isprintable() for value in headers.values())
    assert all(text.startswith(unquote(headers[name.replace("_", "-")])) for name, text in entry.items())


@given(TEXT | LONG)
def test_remote_text_is_short_on_one_line_and_can_be_shown(text: str) -> None:
    assert len(truncate(text)) <= REMOTE_TEXT_LIMIT
    assert is_fit(truncate(text))


@given(st.lists(JOB, max_size=4), st.sampled_from(TIMES) | TEXT, st.sampled_from(TIMES) | TEXT)
def test_any_list_of_jobs_can_be_searched(answers: list[Any], created_at: str, first_look_at: str) -> None:
    jobs = [job for each in answers if (job := job_from({**each, "created_at": created_at}))]
    sent = {DocumentKey("s3://b/k", "v"): "a-0123456789abcdef.pdf"}
    attempt = Attempt(id="a", documents=sent, started_at="", first_look_at=first_look_at)
    found = candidates(jobs, attempt, ())
    assert len(found) <= len(jobs)
    assert match(found, attempt, lambda _: FileStatus(), may_infer=False).job is None
    times = [moment for job in jobs if (moment := parse_time(job.created_at))]
    assert all(re.fullmatch(r"\d{4}-.{21}Z", iso(moment)) for moment in times)


@given(
    st.dictionaries(st.just("Retry-After"), st.sampled_from([*TIMES, *NUMBERS]) | TEXT),
    st.dictionaries(st.just("retry_after"), st.sampled_from([10**400, -1, float("nan")]) | JSON).map(json.dumps),
)
def test_wait_is_a_second_to_a_quarter_of_an_hour_whatever_is_asked_for(headers: dict[str, str], body: str) -> None:
    assert 1 <= retry_after_seconds(headers, body.encode()) <= 900


@given(st.integers(300, 499), JSON.map(json.dumps).map(str.encode) | st.binary(max_size=300))
def test_reason_of_a_refusal_can_be_shown_whatever_the_answer_is(status: int, content: bytes) -> None:
    assert is_fit(error_message(content))
    assert is_fit(str(error_for_status(status, {}, content)))


def attributes_of(job: Job) -> dict[str, Any]:
    key = DocumentKey("s3://bucket/key", "1")
    update = DocumentUpdate(key=key, to=Status.SCHEDULED, job=job)
    return present(update_attributes(update, attempt_id="a", workflow_id="w", now="2026"))


@given(JOB | JSON)
def test_any_job_can_be_written_down_or_is_none(answer: Any) -> None:
    job = job_from(json.loads(json.dumps(answer)))
    if job is None:
        return
    item = attributes_of(job)
    written = json.dumps(serialize(item), ensure_ascii=False)
    assert json.loads(written)
    assert len(written.encode()) < 100_000
    assert "" not in {name for node in item.get("output_node_files", []) for name in node}


def test_list_that_no_item_has_room_for_is_cut() -> None:
    nodes = [{"file_id": "x" * 1_000, "node_id": str(number)} for number in range(900)]
    job = job_from({"id": "1", "input_file_ids": ["x" * 1_000] * 900, "output_node_files": nodes})
    assert job is not None
    item = attributes_of(job)
    assert 30 < len(item["output_node_files"]) < 40
    assert item["output_node_files"][0] == nodes[0]
    assert 30 < len(item["input_file_ids"]) < 40


@given(IN_UNICODE, TEXT | LONG, JSON)
def test_event_names_nothing_that_the_ledger_could_not_hold(key: str, version: str, size: Any) -> None:
    s3_object = {"key": key, "version-id": version, "etag": version[:40], "size": size, "sequencer": version[:9]}
    event = {"source": "aws.s3", "detail-type": "Object Created"}
    parsed = ParsedEvent.of({**event, "detail": {"bucket": {"name": "bucket"}, "object": s3_object}})
    assert len(parsed.versions) + len(parsed.skipped) + len(parsed.unreadable) == 1
    for each in parsed.versions:
        assert len(each.document_key.object.encode()) <= 2_048
        assert 0 < len(each.document_key.version.encode()) <= 1_024
    assert all(text.isprintable() for text in parsed.skipped + parsed.unreadable)


@given(TEXT, TEXT)
def test_log_has_one_line_of_plain_letters_for_each_message(key: str, reason: str) -> None:
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(bootstrap.logger.registered_formatter)
    record = logging.LogRecord("x", logging.INFO, __file__, 1, "registered", None, None)
    record.__dict__.update(object_key=key, reason=reason)
    handler.emit(record)
    (line,) = written.getvalue().split("\n")[:-1]
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line)["object_key"] == key


@pytest.mark.parametrize("text", ["東京\u3000本社", "می\u200cخواهم", "10\u00a0000 €", "👨\u200d👩\u200d👧"])  # noqa: RUF001
def test_labels_of_any_language_arrive_as_they_are(text: str) -> None:
    assert bounded_labels({"name": text}) == {"name": text}
    assert batch_name(text) == text


def test_name_of_a_tag_makes_a_header_that_http_allows() -> None:
    row = {"object": "s3://b/a", "version": "v", "bucket": "b", "key": "a", "etag": "v"}
    given = {"status": "COMPLETED", "updated_at": "t", "tags": {"kubernetes.io/cluster (x)": "1"}}
    headers = metadata({}, document_from_item({**row, **given}))
    assert all(re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name) for name in headers), headers


def test_empty_lists_undo_nothing() -> None:
    """GET may leave both lists out, or give them empty; POST gave them."""
    job = job_from({"id": "j", "input_file_ids": [], "output_node_files": []})
    update = DocumentUpdate(key=DocumentKey("s3://b/a", "v"), to=Status.IN_PROGRESS, job=job)
    changes = update_attributes(update, attempt_id="a", workflow_id="w", now="2026")
    assert not {"input_file_ids", "output_node_files"} & set(changes)


def test_one_large_label_costs_no_small_one() -> None:
    tags = {f"tag-{number}": "語" * 256 for number in range(9)}
    kept = bounded_labels({"big": "x" * 5_000, **tags, "tenant": "acme"})
    assert list(kept) == [*list(tags)[:5], "tenant"]
