"""No document and no workflow holds the others up: an end for each, a way around what is broken, few calls for many."""

import threading
from collections import Counter
from typing import Any

import pytest
from botocore.exceptions import ClientError

from local.fake_platform.state import Fault
from tests.integration.fault_injection import Direct
from tests.integration.harness import World
from tests.integration.test_upload import Context, s3_event
from workflow_trigger import handlers
from workflow_trigger.domain.model import Phase
from workflow_trigger.domain.retry import COUNTED_FAILURES_LIMIT
from workflow_trigger.services.context import Counts


@pytest.mark.parametrize("count", [10, 20, 50])
@pytest.mark.parametrize("together", [True, False])
def test_refused_documents_do_not_hold_up_a_good_one(world: World, count: int, together: bool) -> None:
    """Case 6: N files answered 400, alone and in batches; a good one 60 s later."""
    world.state.faults.append(Fault("run", "status", status=400, document="bad", times=100_000))
    if not together:
        world.configure(max_files_per_run=1)
    bad = [world.upload(f"bad-{number}.pdf", b"b%d" % number) for number in range(count)]
    world.deliver(*bad)
    for _ in range(6):
        world.tick(after_seconds=10)
    good = world.upload("good.pdf", b"g")
    world.deliver(good)
    seconds = 0
    while world.status(good) != "COMPLETED":
        world.tick(after_seconds=10)
        seconds += 10
        assert seconds <= 60, "jobs take 20 s"
    world.settle(minutes=60)
    assert {world.status(each) for each in bad} == {"REJECTED"}
    assert world.accepted(good) == 1


def test_document_whose_request_always_breaks_off_ends_after_five_counted_failures(world: World) -> None:
    """Case 7, with another upload every half hour."""

    class BreaksOff(Direct):
        def around[T](self, name: str, call: Any) -> T:  # type: ignore[type-var]
            if name == "platform POST run" and world.status(poison) == "SUBMITTING":
                raise OSError("reset")
            answer: T = call()
            return answer

    poison = world.upload("poison.pdf", b"p")
    world.hook = BreaksOff()
    world.deliver(poison)
    for hour in range(8):
        other = world.upload(f"{hour}.pdf", b"o%d" % hour)
        world.deliver(other)
        world.settle(minutes=60, until=lambda other=other: world.status(other) == "COMPLETED")  # type: ignore[misc]
        for _ in range(20):
            world.tick(after_seconds=60)
    row = world.row(poison)
    assert (row["status"], row["error"]["type"]) == ("REJECTED", "NotSent")
    assert int(row["strikes"]) == COUNTED_FAILURES_LIMIT


def test_workflow_that_answers_500_to_every_run_is_worked_around_and_shown(world: World) -> None:
    """Case 8, for a quarter of a day."""
    sick, well = world.grow_pool(2)
    world.state.faults.append(Fault("run", "status", status=500, times=100_000, workflow_id=sick))
    documents = []
    for number in range(60):
        documents.append(world.upload(f"{number}.pdf", b"%d" % number))
        world.deliver(documents[-1])
        for _ in range(6):
            world.tick(after_seconds=60)
    world.settle(minutes=30)
    assert {world.status(each) for each in documents} == {"COMPLETED"}
    assert {world.accepted(each) for each in documents} == {1}
    assert {job.workflow_id for job in world.state.jobs.values()} == {well}
    wasted = world.state.shown["run status"]
    assert wasted <= 693 / 4, "0.2.0 wasted 693 posts in a day"
    broken = next(each for each in world.workflows() if each.workflow_id == sick)
    assert broken.consecutive_failures >= 3
    assert world.counts["Held"] > 0


def test_documents_of_a_deleted_workflow_go_to_the_others(world: World) -> None:
    """Case 9: deleted after one lost answer."""
    deleted, other = world.grow_pool(2)
    document = world.upload("a.pdf", b"a")
    world.state.faults.append(Fault("run", "drop"))
    world.deliver(document)
    world.state.behaviour.known_workflows = [other]
    assert world.settle(minutes=30) <= 6
    assert world.status(document) == "COMPLETED"
    assert {job.workflow_id for job in world.state.jobs.values()} == {other} != {deleted}


def test_conflict_is_busy(world: World) -> None:
    """Case 11."""
    document = world.upload("a.pdf", b"a")
    world.state.faults.append(
        Fault("run", "status", status=409, body='{"detail": "There is a running job in progress."}')
    )
    world.deliver(document)
    row = world.row(document)
    assert (row["status"], int(row["failures"]), world.counts["Held"]) == ("PENDING", 0, 0)
    world.tick(after_seconds=15)
    assert world.status(document) == "SCHEDULED"


@pytest.mark.parametrize("accepted", [True, False])
def test_unsettled_batch_of_a_workflow_that_leaves_the_pool_ends_once(world: World, accepted: bool) -> None:
    """Case 14."""
    document = world.upload("a.pdf", b"a")
    world.state.faults.append(Fault("run", "drop-after" if accepted else "drop"))
    world.deliver(document)
    world.configure(workflow_ids=("00000000-0000-4000-8000-000000000000",))
    world.settle()
    assert (world.status(document), world.accepted(document)) == ("COMPLETED", 1)


def test_pause_that_the_platform_asks_for_holds_for_every_question_of_the_key(world: World) -> None:
    """Case 15: every question 429 with Retry-After 600."""
    ids = world.grow_pool(3)
    world.configure(max_files_per_run=1)
    documents = [world.upload(f"{number}.pdf", b"%d" % number) for number in range(3)]
    world.deliver(*documents)
    assert len(world.state.jobs) == len(ids)
    questions = ("job", "jobs", "details")
    faults = [Fault(call, "status", status=429, headers={"Retry-After": "600"}, times=1_000) for call in questions]
    world.state.faults += faults
    world.state.requests.clear()
    began = world.clock.now()
    while (world.clock.now() - began).total_seconds() < 1_170:
        world.tick(window_seconds=50)
        world.throttle.until = None  # the next minute's run is another container
        world.clock.sleep(10)
    assert sum(world.state.requests[call] for call in questions) <= 2 * 4  # four threads may ask at once
    for fault in faults:
        fault.times = 0
    world.settle(minutes=30)
    assert {world.status(each) for each in documents} == {"COMPLETED"}


def test_workflows_that_become_free_together_take_about_a_transaction_each(world: World) -> None:
    """Case 20."""
    world.grow_pool(32)
    world.configure(max_files_per_run=2)
    documents = [world.upload(f"{number}.pdf", b"%d" % number) for number in range(64)]
    world.deliver(*documents, submit=False)
    calls: Counter[str] = Counter()
    lock = threading.Lock()

    class Counting(Direct):
        def around[T](self, name: str, call: Any) -> T:  # type: ignore[type-var]
            with lock:
                calls[name] += 1
            answer: T = call()
            return answer

    world.hook = Counting()
    world.tick()
    assert len(world.state.jobs) == 32
    assert calls["dynamodb transact_write_items"] == 2 * 32  # a claim and a record for each
    assert calls["dynamodb query"] <= 10  # three more every tenth minute
    world.hook = Direct()
    world.settle()
    assert {world.accepted(each) for each in documents} == {1}


def test_every_one_of_many_workflows_is_asked_every_poll(world: World) -> None:
    """Case 21: forty running jobs."""
    world.grow_pool(40)
    world.configure(max_files_per_run=1)
    world.state.behaviour.default_job_seconds = 600
    world.deliver(*[world.upload(f"{number}.pdf", b"%d" % number) for number in range(40)])
    world.tick(after_seconds=10)
    world.state.requests.clear()
    world.tick(after_seconds=10, window_seconds=49)
    assert world.state.requests["job"] == 40 * 5


def test_events_that_are_refused_hold_nothing_and_come_later(world: World) -> None:
    """Case 24: PutEvents denied."""

    class Denied(Direct):
        def around[T](self, name: str, call: Any) -> T:  # type: ignore[type-var]
            if name == "events put_events":
                raise ClientError({"Error": {"Code": "AccessDeniedException", "Message": ""}}, "PutEvents")
            answer: T = call()
            return answer

    world.hook = Denied()
    first = world.upload("1.pdf", b"1")
    world.deliver(first)
    world.settle()
    assert world.row(first)["queue"] == "events"
    assert world.counts["PublishErrors"] > 0
    assert world.workflow().phase is Phase.IDLE
    put: list[Any] = []

    class Seen(Direct):
        def around[T](self, name: str, call: Any) -> T:  # type: ignore[type-var]
            put.extend([name] if name == "events put_events" else [])
            answer: T = call()
            return answer

    world.hook = Seen()
    world.tick(after_seconds=60)
    assert put == ["events put_events"]
    assert "queue" not in world.row(first)
    world.tick(after_seconds=60)
    assert len(put) == 1


def test_threads_that_count_lose_nothing() -> None:
    """Case 25."""
    counts = Counts()

    def count() -> None:
        for _ in range(1_000):
            counts.add("Accepted")
            counts.add("Registered", value=2)

    threads = [threading.Thread(target=count) for _ in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts.taken() == {"Accepted": 32_000, "Registered": 64_000}
    assert counts.taken() == {}


def test_document_outside_of_a_narrowed_prefix_is_rejected_with_the_reason(world: World) -> None:
    """Case 44."""
    outside, inside = world.upload("out/a.pdf", b"a"), world.upload("in/b.pdf", b"b")
    world.deliver(outside, inside, submit=False)
    world.configure(source_bucket=world.bucket, key_prefix="in/")

    class DeniedOutside(Direct):
        def around[T](self, name: str, call: Any) -> T:  # type: ignore[type-var]
            if name == "s3 get_object" and world.status(outside) == "SUBMITTING":
                raise ClientError({"Error": {"Code": "AccessDenied", "Message": ""}}, "GetObject")
            answer: T = call()
            return answer

    world.configure(max_files_per_run=1)
    world.hook = DeniedOutside()
    world.settle()
    row = world.row(outside)
    assert (row["status"], row["error"]["type"], world.counts["Held"]) == ("REJECTED", "OutsidePrefix", 0)
    assert "KeyPrefix in/" in row["error"]["message"]
    assert world.status(inside) == "COMPLETED"


def test_run_that_finds_another_one_polling_goes_and_takes_over_from_an_old_one(world: World) -> None:
    world.deliver(world.upload("a.pdf", b"a"))
    asked: list[int] = []

    class AnotherRun(Direct):
        """The next run of the schedule comes while this one asks about the job."""

        def __init__(self, after_seconds: float) -> None:
            self.after_seconds: float | None = after_seconds

        def around[T](self, name: str, call: Any) -> T:  # type: ignore[type-var]
            if (
                name.startswith("platform GET ") and len(name) > 40 and self.after_seconds is not None
            ):  # a job, by its id
                world.clock.sleep(self.after_seconds)
                self.after_seconds = None
                before = world.state.requests["job"]
                world.tick()
                asked.append(world.state.requests["job"] - before)
            answer: T = call()
            return answer

    for seconds in (1, 50):
        world.hook = AnotherRun(seconds)
        world.tick()
    assert asked == [0, 1]


def test_upload_that_is_submitted_wakes_the_poller_unless_it_is_awake(world: World, monkeypatch: Any) -> None:
    monkeypatch.setattr(handlers, "context_of", lambda _invocation: world.context())
    handlers.on_upload(s3_event(world.upload("a.pdf", b"a")), Context())
    assert world.woken == 1
    handlers.on_upload(s3_event(world.upload("b.pdf", b"b")), Context())
    assert world.woken == 1, "nothing was submitted: the workflow is at work"
