"""Reports: groups, percentiles, CSV, and the page for people without credentials."""

import csv
import io
import re
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local.pictures import STATUS
from workflow_trigger.adapters.unstructured.streams import PageCounter
from workflow_trigger.domain.clock import iso
from workflow_trigger.domain.model import Pause
from workflow_trigger_cli.commands.report import By, Group, as_csv, collect
from workflow_trigger_cli.page import HOURS, page

BEGAN = datetime(2026, 5, 5, 12, tzinfo=UTC)


def row(**changes: Any) -> dict[str, Any]:
    return {
        "object": "s3://b/in/a.pdf",
        "status": "COMPLETED",
        "size": 1_000,
        "pages": 3,
        "job_id": "j-1",
        "queued_at": iso(BEGAN),
        "created_at": "2026-05-05T12:00:10.5",
        "updated_at": iso(BEGAN + timedelta(minutes=1)),
        **changes,
    }


@pytest.mark.parametrize(
    ("by", "names"),
    [
        (By.DAY, ["2026-05-05", "2026-05-06", "total"]),
        (By.HOUR, ["2026-05-05T12", "2026-05-06T12", "total"]),
        (By.PREFIX, ["", "in/", "total"]),
        (By.ROUTE, ["", "legal/", "total"]),
        (By.BATCH, ["", "june", "total"]),
    ],
)
def test_rows_are_grouped_and_the_last_line_has_all(by: By, names: list[str]) -> None:
    another = row(object="s3://b/a.pdf", updated_at=iso(BEGAN + timedelta(days=1)), route="legal/", batch="june")
    groups = collect([row(), another, row(status="PENDING")], by)
    assert [each.name for each in groups] == names
    assert [each.documents for each in groups] == [1, 1, 2]


def test_figures_of_a_group() -> None:
    group = collect([row(), row(status="FAILED", job_id="j-2", pages=None), row(job_id="j-1")], By.DAY)[-1]
    figures = group.figures(0.01)
    shown = ("documents", "bytes", "pages", "jobs", "completed", "failed", "rejected", "cost")
    assert [figures[name] for name in shown] == [3, 3_000, 6, 2, 2, 1, 0, 0.06]
    assert figures["wait_p50_seconds"] == pytest.approx(10.5, rel=0.05)
    assert "cost" not in group.figures(None)


def test_group_without_a_wait_has_no_percentile() -> None:
    assert Group("none").wait_seconds(0.5) is None
    assert collect([row(created_at=None)], By.DAY)[-1].wait_seconds(0.95) is None


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=200), st.sampled_from([0.5, 0.95]))
def test_percentiles_are_true_to_five_percent(seconds: list[float], share: float) -> None:
    group = Group("all")
    for each in seconds:
        group.add(row(created_at=iso(BEGAN + timedelta(seconds=each))))
    exact = sorted(seconds)[max(-(-len(seconds) * int(share * 100) // 100), 1) - 1]
    assert group.wait_seconds(share) == pytest.approx(exact, rel=0.06, abs=0.2)


def test_csv_holds_no_formula_and_reads_back() -> None:
    lines = [each.figures(None) for each in collect([row(batch='=cmd("x"),1')], By.BATCH)]
    read = list(csv.DictReader(io.StringIO(as_csv(lines))))
    assert [each["group"] for each in read] == ['\'=cmd("x"),1', "total"]
    assert read[0]["documents"] == "1"


# -- pages -------------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 5_000), max_size=20), st.integers(1, 80))
def test_pages_are_counted_however_an_output_is_cut(pages: list[int], size: int) -> None:
    text = "[" + ",".join(f'{{"text": "x", "metadata": {{"page_number": {each}}}}}' for each in pages) + "]"
    chunks = [text.encode()[place : place + size] for place in range(0, len(text), size)]
    counter = PageCounter(chunks)
    assert b"".join(counter) == text.encode()
    assert counter.count == max(pages, default=0)


def test_page_number_inside_a_text_is_no_page() -> None:
    counter = PageCounter([rb'[{"text": "\"page_number\": 999", "metadata": {"page_number":7}}]'])
    list(counter)
    assert counter.count == 7


# -- the page ----------------------------------------------------------------------------------------------------------


class Elements(HTMLParser):
    """Which elements there are, and that each is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.attributes += attrs
        if tag not in {"meta", "br", "rect"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_page_needs_nothing_but_itself_and_escapes_what_it_shows() -> None:
    hostile = "<script>alert(1)</script>"
    state = STATUS
    state = type(state)(**{**{name: getattr(state, name) for name in state.__slots__}, "attention": [hostile]})
    state = type(state)(
        **{
            **{name: getattr(state, name) for name in state.__slots__},
            "pauses": (Pause(route="*", reason=hostile, since="2026-11-23T15:00:00Z"),),
        }
    )
    hours = collect([row(updated_at="2026-11-23T15:01:00.000000Z"), row(updated_at="2026-11-23T14:01:00Z")], By.HOUR)[
        :-1
    ]
    shown = page(state, hours)
    elements = Elements()
    elements.feed(shown)
    assert elements.open == []
    assert not elements.seen & {"script", "link", "img", "iframe"}
    assert not any(name in {"href", "src"} for name, _ in elements.attributes)
    assert shown.count("&lt;script&gt;") == 2
    assert len(re.findall(r"<g>", shown)) == HOURS
    assert "2 documents ended" in shown
