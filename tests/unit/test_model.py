import re
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflow_trigger.clock import iso, parse_time
from workflow_trigger.items import workflow_from_item
from workflow_trigger.job import Baseline, Job
from workflow_trigger.model import FINAL, RUNNING, TRANSITIONS, Status, sources_of
from workflow_trigger.objects import RowKey, is_later, token_of, upload_name

FIRST = datetime(1970, 1, 1)  # noqa: DTZ001  hypothesis adds the zone


def job(job_id: str, created_at: str | None = None, status: str = "COMPLETED") -> Job:
    return Job(
        id=job_id,
        workflow_id="w",
        workflow_name=None,
        status=status,
        created_at=created_at,
        runtime=None,
        job_type=None,
        input_file_ids=None,
        output_node_files=None,
    )


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
    assert re.fullmatch(pattern, upload_name(RowKey(f"s3://bucket/{key}", "v1")))


@given(st.text(min_size=1, max_size=300), st.text(min_size=1, max_size=40))
def test_any_key_gives_a_name_that_is_fit_for_a_header(key: str, version: str) -> None:
    name = upload_name(RowKey(f"s3://bucket/{key}", version))
    assert re.fullmatch(r"[A-Za-z0-9-]{1,57}(\.[A-Za-z0-9]{1,10})?", name)
    assert token_of(RowKey(f"s3://bucket/{key}", version)) in name


def test_versions_of_one_key_have_different_tokens() -> None:
    assert token_of(RowKey("s3://b/k", "1")) != token_of(RowKey("s3://b/k", "2"))


def test_every_status_has_transitions_and_only_reopening_leaves_a_final_one() -> None:
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


def test_job_that_is_older_than_what_the_baseline_kept_is_not_new() -> None:
    jobs = [job(f"j{number:02}", f"2026-01-01T00:{number:02}:00Z") for number in range(40)]
    baseline = Baseline.of(jobs, limit=20)
    assert not any(baseline.is_new(each) for each in jobs)
    assert baseline.is_new(job("j99", "2026-01-01T01:00:00"))
    assert baseline.is_new(job("unknown age", None))


def test_baseline_keeps_an_active_job_however_old_it_is() -> None:
    jobs = [job("old", "2020-01-01T00:00:00Z", "IN_PROGRESS")]
    jobs += [job(f"j{number}", f"2026-01-01T00:{number:02}:00Z") for number in range(30)]
    assert "old" in Baseline.of(jobs, limit=5).ids


def test_lost_rows_of_an_item_of_the_earlier_release_are_known() -> None:
    item = {"workflow_id": "w", "rows": [{"object": "s3://b/k", "version": "v"}], "unsettled": True}
    assert workflow_from_item(item).lost_rows == (RowKey("s3://b/k", "v"),)
    assert workflow_from_item({**item, "unsettled": False}).lost_rows == ()
