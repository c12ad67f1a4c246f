import re
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflow_trigger.adapters.dynamodb.mapping import deserialize, item_from_record, record_from_item, serialize
from workflow_trigger.domain.clock import iso, parse_time
from workflow_trigger.domain.document import DocumentKey, is_later, upload_name
from workflow_trigger.domain.doubt import Doubt, DoubtKind
from workflow_trigger.domain.matching import mentions
from workflow_trigger.domain.model import (
    FINAL,
    RUNNING,
    TRANSITIONS,
    Attempt,
    EndedJob,
    Outcome,
    Phase,
    Poller,
    Status,
    Workflow,
    sources_of,
)

FIRST = datetime(1970, 1, 1)  # noqa: DTZ001  hypothesis adds the zone


@pytest.mark.parametrize(
    ("sequencer", "than", "later"),
    [
        ("0A", "09", True),
        ("09", "0A", False),
        ("0A", "0A", False),
        ("0A1", "0A", True),
        ("0A", "0A0", False),
        ("0a1", "0A0", True),
        (None, "0A", False),
        ("0A", None, False),
    ],
)
def test_sequencers_are_compared_padded_on_the_right(sequencer: str | None, than: str | None, later: bool) -> None:
    assert is_later(sequencer, than) is later


@pytest.mark.parametrize(
    ("key", "pattern"),
    [
        ("reports/Annual report 2026.pdf", r"Annual-report-2026-[0-9a-f]{16}\.pdf"),
        ("Übersicht.docx", r"Ubersicht-[0-9a-f]{16}\.docx"),
        ("報告書.pdf", r"document-[0-9a-f]{16}\.pdf"),
        ("archive.tar.gz", r"archive-tar-[0-9a-f]{16}\.gz"),
        ("no-extension", r"no-extension-[0-9a-f]{16}"),
        ("odd.p d f", r"odd-[0-9a-f]{16}"),
        ("x" * 240 + ".pdf", "x{40}-[0-9a-f]{16}\\.pdf"),
        ("../../etc/passwd", r"passwd-[0-9a-f]{16}"),
    ],
)
def test_upload_name_is_a_short_ascii_name_with_a_token(key: str, pattern: str) -> None:
    assert re.fullmatch(pattern, upload_name(DocumentKey(f"s3://bucket/{key}", "v1"), "attempt"))


@given(st.text(min_size=1, max_size=300), st.text(min_size=1, max_size=40))
def test_any_key_gives_a_name_that_is_fit_for_a_header(key: str, version: str) -> None:
    name = upload_name(DocumentKey(f"s3://bucket/{key}", version), "attempt")
    assert re.fullmatch(r"[A-Za-z0-9-]{1,57}(\.[A-Za-z0-9]{1,10})?", name)
    assert mentions([name], [name])


def test_versions_and_attempts_have_names_of_their_own() -> None:
    names = {upload_name(DocumentKey("s3://b/k", version), attempt) for version in "12" for attempt in "ab"}
    assert len(names) == 4
    assert not any(mentions([name], [other]) for name in names for other in names - {name})


def test_every_status_has_transitions_and_only_reopening_leaves_final() -> None:
    assert set(TRANSITIONS) == set(Status)
    for status in FINAL:
        assert TRANSITIONS[status] == {Status.PENDING}
    assert sources_of(Status.COMPLETED) == RUNNING


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-04-29T10:00:00Z", datetime(2026, 4, 29, 10, tzinfo=UTC)),
        ("2026-04-29T10:00:00.348884", datetime(2026, 4, 29, 10, 0, 0, 348884, tzinfo=UTC)),
        ("2026-04-29T12:00:00+02:00", datetime(2026, 4, 29, 10, tzinfo=UTC)),
        ("yesterday", None),
        (None, None),
    ],
)
def test_a_time_without_a_zone_is_utc(text: str | None, moment: datetime | None) -> None:
    assert parse_time(text) == moment


@given(st.lists(st.datetimes(min_value=FIRST, timezones=st.just(UTC)), min_size=2, max_size=2))
def test_times_sort_as_text(moments: list[datetime]) -> None:
    assert (iso(moments[0]) < iso(moments[1])) == (moments[0] < moments[1])


# -- items of the earlier release --------------------------------------------------------------------------------------

COMMITTED = {
    "workflow_id": "w",
    "phase": "committed",
    "revision": "r",
    "attempt_id": "a",
    "rows": [{"object": "s3://b/k", "version": "v"}],
    "baseline": ["j1", "j2"],
    "baseline_newest": "2026-01-01T00:00:00.000000Z",
    "started_at": "2026-01-01T00:10:00.000000Z",
    "committed_at": "2026-01-01T00:10:01.000000Z",
    "lease_ends_at": "2026-01-01T00:11:01.000000Z",
    "lost_rows": [{"object": "s3://b/lost", "version": "v"}],
    "not_before": "2026-01-01T00:20:00.000000Z",
    "accepted_count": 7,
    "setbacks": 2,
    "refusals": 1,
    "last_error": {"type": "OutcomeUnknown", "message": "HTTP 500", "at": "2026"},
}


def test_committed_workflow_of_the_earlier_release_is_an_unsettled_attempt() -> None:
    workflow = record_from_item(COMMITTED)
    assert isinstance(workflow, Workflow)
    assert workflow.attempt.documents == {DocumentKey("s3://b/k", "v"): None}
    assert workflow.attempt.first_look_at == COMMITTED["baseline_newest"]
    assert workflow.attempt.settle_after == COMMITTED["lease_ends_at"]
    assert workflow.known_job_ids == ("j1", "j2")
    assert (workflow.paused_until, workflow.consecutive_failures) == (COMMITTED["not_before"], 2)
    assert (workflow.accepted_count, workflow.consecutive_refusals) == (7, 1)


def test_foreign_job_that_0_2_0_followed_leaves_the_workflow_idle() -> None:
    workflow = record_from_item({"workflow_id": "w", "phase": "running", "rows": [], "job_id": "foreign"})
    assert workflow == Workflow(workflow_id="w")


def test_idle_workflow_of_0_2_0_holds_nothing_of_its_last_attempt() -> None:
    workflow = record_from_item({**COMMITTED, "phase": "idle", "job_id": None})
    assert isinstance(workflow, Workflow)
    assert workflow.attempt == Attempt()


@pytest.mark.parametrize(
    "record",
    [
        Workflow(workflow_id="w"),
        Workflow(
            workflow_id="w",
            phase=Phase.RUNNING,
            revision="r",
            attempt=Attempt(
                id="a",
                documents={DocumentKey("s3://b/k", "v"): "k-0123456789abcdef.pdf"},
                started_at="2026",
                first_look_at="2026",
                rounds=2,
            ),
            job_id="j",
            job_status="SCHEDULED",
            doubts=(Doubt(DoubtKind.JOB_VANISHED, "2026", "2027"),),
            known_job_ids=("j0",),
            unanswered=("k-0123456789abcdef.pdf",),
            let_go_at="2026",
        ),
        EndedJob(
            job_id="j",
            workflow_id="w",
            attempt_id="a",
            documents={
                DocumentKey("s3://b/k", "v"): Outcome(
                    status=Status.FAILED, error={"type": "JobFailed", "message": "m"}
                ),
            },
            ended_at="2026",
            is_solo=False,
            retry_at="2026",
        ),
        Poller(owner="o", began_at="2026", lease_ends_at="2026", paused_until="2026"),
    ],
    ids=lambda record: type(record).__name__,
)
def test_records_survive_the_way_to_their_items_and_back(record: Any) -> None:
    assert record_from_item(deserialize(serialize(item_from_record(record)))) == record


@given(
    st.recursive(
        st.text() | st.booleans() | st.integers(-(10**15), 10**15) | st.none(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(min_size=1), inner, max_size=3),
        max_leaves=10,
    )
)
def test_values_survive_the_way_to_dynamodb_and_back(value: Any) -> None:
    assert deserialize(serialize({"value": value})) == {"value": value}
