"""Who goes next: fresh uploads before a backfill, neither of them for ever; and only the newest version, if wanted."""

import uuid
from dataclasses import replace
from typing import Any
from unittest.mock import MagicMock

import pytest

from local.fake_platform.state import Fault
from tests.integration.harness import Harness
from workflow_trigger.adapters.s3_events import ParsedEvent
from workflow_trigger.domain.clock import iso
from workflow_trigger.domain.document import Lane, ObjectVersion, Route
from workflow_trigger.domain.model import ALL_ROUTES, Pause
from workflow_trigger.services import recover
from workflow_trigger.services.register import register


def bulk(harness: Harness, count: int) -> list[ObjectVersion]:
    """Documents of a backfill, waiting."""
    documents = [
        replace(harness.upload(f"old/{number}.pdf", str(number).encode()), sequencer=None, lane=Lane.BULK)
        for number in range(count)
    ]
    harness.deliver(*documents, submit=False)
    return documents


def lanes_of_jobs(harness: Harness) -> list[list[str]]:
    """The lanes of each job's files, in the order of the jobs."""
    rows = {row["upload_name"]: row for row in harness.rows() if "upload_name" in row}
    jobs = sorted(harness.state.jobs.values(), key=lambda job: job.created)
    return [
        ["bulk" if rows[file.filename]["key"].startswith("old/") else "fresh" for file in job.files] for job in jobs
    ]


def test_fresh_upload_goes_with_the_next_batch_during_a_backfill(harness: Harness) -> None:
    bulk(harness, 200)
    for number in range(8):
        harness.tick(after_seconds=60, window_seconds=20)  # the reader has many of the backfill in its hand by now
        harness.deliver(harness.upload(f"new/{number}.pdf", f"new {number}".encode()))
        before = len(harness.state.jobs)
        harness.settle(until=lambda before=before: len(harness.state.jobs) > before)  # type: ignore[misc]
        assert "fresh" in lanes_of_jobs(harness)[before], f"after {number}"


def test_neither_lane_starves_the_other(harness: Harness) -> None:
    """By lot: that a lane with one turn in four has none in 60 would happen once in 30 million runs."""
    harness.configure(max_files_per_run=4)
    fresh = [harness.upload(f"new/{number}.pdf", f"new {number}".encode()) for number in range(240)]
    harness.deliver(*fresh, submit=False)
    bulk(harness, 12)  # younger than all of them
    harness.settle(until=lambda: any("bulk" in lanes for lanes in lanes_of_jobs(harness)))
    shares = [lanes.count("bulk") for lanes in lanes_of_jobs(harness)]
    assert set(shares) - {0} == {3}, "nothing of a batch, or in its own turn three quarters"


@pytest.mark.parametrize("in_a_route", [False, True])
def test_documents_in_no_queue_do_not_wait_behind_uploads_for_ever(harness: Harness, *, in_a_route: bool) -> None:
    """As an earlier release left them, while there are always more uploads than a batch takes."""
    harness.configure(max_files_per_run=4)
    if in_a_route:
        route = Route("new/", harness.settings.workflow_ids)
        harness.configure(routes=(route,), workflow_ids=(str(uuid.uuid4()),))
    old = [harness.upload(f"new/old-{number}.pdf", f"old {number}".encode()) for number in range(2)]
    harness.deliver(*old, submit=False)
    for each in old:
        harness.rewrite(each, "REMOVE #queue, #queue_at")
    uploads = [harness.upload(f"new/{number}.pdf", f"new {number}".encode()) for number in range(400)]
    harness.deliver(*uploads, submit=False)
    for _ in range(40):  # by lot: that a lane with one turn in four has none in 80 would hardly ever happen
        if {harness.status(each) for each in old} != {"COMPLETED"}:
            harness.tick(after_seconds=5, window_seconds=55)
    assert {harness.status(each) for each in old} == {"COMPLETED"}
    assert "PENDING" in {harness.status(each) for each in uploads}
    assert {harness.accepted(each) for each in old} == {1}


@pytest.mark.parametrize(
    ("left", "queue"),
    [
        ("REMOVE #queue, #queue_at", "bulk"),  # as 0.2.0
        ("SET #queue = :queue", "fresh"),  # of a route that is gone
        ("REMOVE #queue_at", "fresh"),  # claimed by this release, and given back by 0.2.0 after a rollback
    ],
)
def test_documents_in_no_queue_are_given_one_once(harness: Harness, monkeypatch: Any, left: str, queue: str) -> None:
    """Also while nothing is begun; some in each run, the oldest first, and when there are none, no run searches."""
    monkeypatch.setattr("workflow_trigger.adapters.dynamodb.ledger._PAGE", 2)
    monkeypatch.setattr(recover, "_ENQUEUED", 2)
    search = MagicMock(wraps=recover.orphans)
    monkeypatch.setattr(recover, "orphans", search)
    old = [harness.upload(f"old/{number}.pdf", str(number).encode()) for number in range(5)]
    for each in old:
        harness.deliver(each, submit=False)
        harness.clock.sleep(1)
        harness.rewrite(each, left, **({"queue": "fresh/gone/"} if ":queue" in left else {}))
    harness.ledger().pause(Pause(route=ALL_ROUTES, reason="a test", since=iso(harness.clock.now())))
    for given in (2, 4, 5, 5, 5, 5):
        harness.tick(after_seconds=5, window_seconds=55)
        rows = [harness.row(each) for each in old]
        assert [row.get("queue") == queue and "queue_at" in row for row in rows] == [True] * given + [False] * (
            5 - given
        )
    assert [row["queue_at"] for row in rows] == sorted(row["eligible_at"] for row in rows)
    assert search.call_count == 4
    harness.tick(after_seconds=600)
    assert search.call_count == 5


def test_refused_backfill_does_not_keep_uploads_waiting(harness: Harness) -> None:
    """Nothing is accepted, so that nothing but chance may decide whose turn it is."""
    harness.state.faults.append(Fault("run", "status", status=400, times=10_000, document="bad"))
    old = [
        replace(harness.upload(f"old/bad-{number}.pdf", str(number).encode()), lane=Lane.BULK) for number in range(60)
    ]
    harness.deliver(*old, submit=False)
    document = harness.upload("new.pdf", b"new")
    harness.deliver(document, submit=False)
    minutes = harness.settle(until=lambda: harness.status(document) == "COMPLETED", minutes=30)
    assert minutes <= 20


def test_final_rows_that_were_left_in_a_queue_hide_nothing(harness: Harness) -> None:
    """As after a rollback to 0.2.0, which knows no queues, and another update."""
    left = [harness.upload(f"left/{number:03}.pdf", str(number).encode()) for number in range(200)]
    harness.deliver(*left, submit=False)
    now = iso(harness.clock.now())
    for each in left:
        harness.end_as_0_2_0(each, now)
    document = harness.upload("new.pdf", b"new")
    harness.deliver(document, submit=False)
    harness.settle(until=lambda: harness.status(document) == "COMPLETED", minutes=10)


@pytest.mark.parametrize("status", [429, 401])
def test_an_upload_that_was_not_accepted_goes_back_to_its_lane(harness: Harness, status: int) -> None:
    bulk(harness, 3)
    document = harness.upload("new.pdf", b"new")
    harness.state.faults.append(Fault("run", "status", status=status))
    harness.deliver(document)
    row = harness.row(document)
    assert (row["status"], row["queue"], row["queue_at"]) == ("PENDING", "fresh", row["eligible_at"])
    harness.settle()
    assert harness.accepted(document) == 1
    assert {row["status"] for row in harness.rows()} == {"COMPLETED"}


@pytest.mark.parametrize("lane", [Lane.BULK, Lane.FRESH])
def test_retried_document_waits_in_the_lane_that_was_asked_for(harness: Harness, lane: Lane) -> None:
    document = harness.upload("a.pdf", b"a")
    harness.deliver(document)
    harness.settle()
    assert harness.ledger().reopen(harness.row(document), lane)
    uploads = [each.key for each in harness.ledger().ready_in(Lane.FRESH, "", 10)]
    assert uploads == ([document.document_key] if lane is Lane.FRESH else [])
    harness.settle()
    assert harness.accepted(document) == 2


def test_rows_that_wait_since_an_earlier_release_go_on_in_their_order(harness: Harness) -> None:
    documents = [harness.upload(f"{number:02}.pdf", str(number).encode()) for number in range(30)]
    harness.deliver(*documents, submit=False)
    for each in documents[:20]:  # as 0.2.0 has them
        harness.rewrite(each, "REMOVE #queue, #queue_at")
    harness.settle()
    assert all(harness.accepted(each) == 1 for each in documents)
    jobs = sorted(harness.state.jobs.values(), key=lambda job: job.created)
    order = [file.filename[:2] for job in jobs for file in job.files]
    assert [number for number in order if number < "20"] == [f"{number:02}" for number in range(20)]


# -- only the newest version -------------------------------------------------------------------------------------------


def versions(harness: Harness, *contents: str) -> list[ObjectVersion]:
    """Drafts of one object, each saved over the one before; a version for each, as a bucket with versions has them."""
    harness.s3.put_bucket_versioning(Bucket=harness.bucket, VersioningConfiguration={"Status": "Enabled"})
    return [harness.upload("draft.docx", content.encode()) for content in contents]


def arrive(harness: Harness, *documents: ObjectVersion) -> None:
    """Their events, one after the other, while no workflow is free."""
    for each in documents:
        event = ParsedEvent()
        event.versions.append(each)
        register(event, harness.context())


def statuses(harness: Harness, documents: list[ObjectVersion]) -> list[str]:
    return [harness.status(each) for each in documents]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_only_the_newest_of_the_versions_that_wait_runs(harness: Harness, order: tuple[int, ...]) -> None:
    harness.configure(only_latest_version=True)
    drafts = versions(harness, "one", "two", "three")
    arrive(harness, *(drafts[each] for each in order))
    assert statuses(harness, drafts) == ["SUPERSEDED", "SUPERSEDED", "PENDING"]
    assert harness.row(drafts[0])["error"]["type"] == "ObjectOverwritten"
    assert "queue" not in harness.row(drafts[0]), "its event is published"
    harness.settle()
    assert statuses(harness, drafts) == ["SUPERSEDED", "SUPERSEDED", "COMPLETED"]
    assert [harness.accepted(each) for each in drafts] == [0, 0, 1]


def test_any_number_of_versions_is_superseded_and_published(harness: Harness) -> None:
    """More than one transaction takes, of one batch."""
    drafts = [replace(each, batch="june") for each in versions(harness, *map(str, range(120)))]
    arrive(harness, *drafts[:-1])
    harness.configure(only_latest_version=True)
    arrive(harness, drafts[-1])
    assert statuses(harness, drafts) == ["SUPERSEDED"] * 119 + ["PENDING"]
    assert not any("queue" in harness.row(each) for each in drafts[:-1])
    batch = harness.ledger().batch("june")
    assert batch is not None
    assert (batch.registered, batch.finished) == (120, 119)


def test_without_the_parameter_every_version_runs(harness: Harness) -> None:
    drafts = versions(harness, "one", "two")
    arrive(harness, *drafts)
    harness.settle()
    assert [harness.accepted(each) for each in drafts] == [1, 1]


def test_version_that_runs_already_is_not_stopped(harness: Harness) -> None:
    harness.configure(only_latest_version=True)
    drafts = versions(harness, "one", "two", "three")
    harness.deliver(drafts[0])
    arrive(harness, drafts[1], drafts[2])
    assert statuses(harness, drafts) == ["SCHEDULED", "SUPERSEDED", "PENDING"]
    harness.settle()
    assert [harness.accepted(each) for each in drafts] == [1, 0, 1]


def test_version_that_comes_back_does_not_run_after_a_newer_one(harness: Harness) -> None:
    """It was busy elsewhere when the newer one came, and its answer was lost."""
    harness.configure(only_latest_version=True)
    harness.grow_pool(2)
    drafts = versions(harness, "one", "two")
    harness.state.faults.append(Fault("run", "drop", times=3))
    harness.deliver(drafts[0])
    assert harness.status(drafts[0]) == "SUBMITTING"
    (lost,) = [each for each in harness.workflows() if each.is_at_work]
    harness.state.faults = [Fault("run", "drop", times=9, workflow_id=lost.workflow_id)]
    harness.deliver(drafts[1])
    harness.settle()
    assert statuses(harness, drafts) == ["SUPERSEDED", "COMPLETED"]
    assert [harness.accepted(each) for each in drafts] == [0, 1]
    assert harness.counts["Superseded"] == 1


def test_newer_version_ends_older_ones_although_its_invocation_died(harness: Harness) -> None:
    harness.configure(only_latest_version=True, max_files_per_run=1)
    drafts = versions(harness, "one", "two")
    arrive(harness, replace(drafts[0], lane=Lane.BULK))
    harness.ledger().register(drafts[1])  # and then it died
    harness.tick()
    assert statuses(harness, drafts) == ["SUPERSEDED", "SCHEDULED"]
    harness.settle()
    assert [harness.accepted(each) for each in drafts] == [0, 1]


def test_order_of_the_events_is_what_makes_a_version_older(harness: Harness) -> None:
    """The older one is retried before the newer one's event has come, which was uploaded earlier."""
    harness.configure(only_latest_version=True)
    older, newer = versions(harness, "one", "two")
    uploaded_at = harness.context().iso_later()
    harness.clock.sleep(5)
    arrive(harness, older)
    assert harness.ledger().cancel(harness.row(older), "later")
    harness.clock.sleep(5)
    assert harness.ledger().reopen(harness.row(older))
    harness.clock.sleep(5)
    arrive(harness, replace(newer, uploaded_at=uploaded_at))
    assert statuses(harness, [older, newer]) == ["PENDING", "PENDING"], "an operator has asked for it since"


def test_old_version_that_an_operator_asked_for_is_not_ended(harness: Harness) -> None:
    harness.configure(only_latest_version=True)
    drafts = versions(harness, "one", "two")
    arrive(harness, *drafts)
    harness.settle()
    assert statuses(harness, drafts) == ["SUPERSEDED", "COMPLETED"]
    assert harness.ledger().reopen(harness.row(drafts[0]))
    arrive(harness, drafts[0])
    assert harness.status(drafts[0]) == "PENDING"
    harness.clock.sleep(1)
    arrive(harness, harness.upload("draft.docx", b"three"))
    assert harness.status(drafts[0]) == "SUPERSEDED", "this one was uploaded after the operator had asked"


@pytest.mark.parametrize(
    ("newer", "why"),
    [
        ({"size_bytes": 0}, "a newer version that is skipped says nothing"),
        ({"sequencer": None, "lane": Lane.BULK}, "nothing tells the order of what a backfill found"),
        ({"key": "another.docx"}, "another object"),
    ],
)
def test_version_waits_on_unless_a_newer_one_replaces_it(harness: Harness, newer: dict[str, Any], why: str) -> None:
    harness.configure(only_latest_version=True)
    drafts = versions(harness, "one", "two")
    arrive(harness, drafts[0], replace(drafts[1], **newer))
    assert harness.status(drafts[0]) == "PENDING", why


def test_small_batches_keep_the_order_of_an_earlier_release(harness: Harness) -> None:
    """More than a page of the index, of which each look takes a part."""
    harness.configure(max_files_per_run=4, poll_seconds=2)
    harness.state.behaviour.default_job_seconds, harness.state.behaviour.scheduled_seconds = 3, 1
    documents = [harness.upload(f"{number:03}.pdf", str(number).encode()) for number in range(300)]
    harness.deliver(*documents, submit=False)
    for each in documents:
        harness.rewrite(each, "REMOVE #queue, #queue_at")
    for _ in range(3):
        harness.tick(after_seconds=5, window_seconds=55)
    jobs = sorted(harness.state.jobs.values(), key=lambda job: job.created)
    order = [file.filename[:3] for job in jobs for file in job.files]
    assert len(order) > 60
    assert order == sorted(order)
