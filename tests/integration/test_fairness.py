"""No document and no workflow holds the others up: an end for each, a way around what is broken, few calls for many."""

import json
import threading
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest
from botocore.exceptions import ClientError
from urllib3.util import connection

from local.fake_platform.state import Fault
from tests.integration.deployed import until
from tests.integration.fault_injection import PassThrough
from tests.integration.harness import Harness
from tests.integration.test_upload import Context, s3_event
from workflow_trigger import handlers
from workflow_trigger.adapters.unstructured.client import PlatformClient
from workflow_trigger.domain.errors import LedgerUnavailable
from workflow_trigger.domain.model import Phase
from workflow_trigger.domain.retry import COUNTED_FAILURES_LIMIT
from workflow_trigger.services.context import Counts


@pytest.mark.parametrize("count", [10, 20, 50])
@pytest.mark.parametrize("together", [True, False])
def test_refused_documents_do_not_hold_up_a_good_one(harness: Harness, count: int, together: bool) -> None:
    """Case 6: N files answered 400, alone and in batches; a good one 60 s later."""
    harness.state.faults.append(Fault("run", "status", status=400, document="bad", times=100_000))
    if not together:
        harness.configure(max_files_per_run=1)
    bad = [harness.upload(f"bad-{number}.pdf", b"b%d" % number) for number in range(count)]
    harness.deliver(*bad)
    for _ in range(6):
        harness.tick(after_seconds=10)
    good = harness.upload("good.pdf", b"g")
    harness.deliver(good)
    seconds = 0
    while harness.status(good) != "COMPLETED":
        harness.tick(after_seconds=10)
        seconds += 10
        assert seconds <= 60, "jobs take 20 s"
    harness.settle(minutes=60)
    assert {harness.status(each) for each in bad} == {"REJECTED"}
    assert harness.accepted(good) == 1


def test_document_that_breaks_every_request_ends_after_five_failures(harness: Harness) -> None:
    """Case 7, with another upload every half hour."""

    class BreaksOff(PassThrough):
        def around[T](self, name: str, call: Any) -> T:  # type: ignore[type-var]
            if name == "platform POST run" and harness.status(poison) == "SUBMITTING":
                raise OSError("reset")
            answer: T = call()
            return answer

    poison = harness.upload("poison.pdf", b"p")
    harness.hook = BreaksOff()
    harness.deliver(poison)
    for hour in range(8):
        other = harness.upload(f"{hour}.pdf", b"o%d" % hour)
        harness.deliver(other)
        harness.settle(minutes=60, until=lambda other=other: harness.status(other) == "COMPLETED")  # type: ignore[misc]
        for _ in range(20):
            harness.tick(after_seconds=60)
    row = harness.row(poison)
    assert (row["status"], row["error"]["type"]) == ("REJECTED", "NotSent")
    assert int(row["strikes"]) == COUNTED_FAILURES_LIMIT


def test_workflow_that_answers_500_to_every_run_is_worked_around_and_shown(harness: Harness) -> None:
    """Case 8, for a quarter of a day."""
    sick, well = harness.grow_pool(2)
    harness.state.faults.append(Fault("run", "status", status=500, times=100_000, workflow_id=sick))
    documents = []
    for number in range(60):
        documents.append(harness.upload(f"{number}.pdf", b"%d" % number))
        harness.deliver(documents[-1])
        for _ in range(6):
            harness.tick(after_seconds=60)
    harness.settle(minutes=30)
    assert {harness.status(each) for each in documents} == {"COMPLETED"}
    assert {harness.accepted(each) for each in documents} == {1}
    assert {job.workflow_id for job in harness.state.jobs.values()} == {well}
    wasted = harness.state.shown["run status"]
    assert wasted <= 693 / 4, "0.2.0 wasted 693 posts in a day"
    broken = next(each for each in harness.workflows() if each.workflow_id == sick)
    assert broken.consecutive_failures >= 3
    assert harness.counts["Held"] > 0


@pytest.mark.parametrize(("list_status", "minutes"), [(200, 6), (404, 6), (500, 25)])
def test_documents_of_a_deleted_workflow_go_to_the_others(harness: Harness, list_status: int, minutes: int) -> None:
    """Case 9: deleted after one lost answer. A list that fails may come back, and is waited for."""
    deleted, other = harness.grow_pool(2)
    document = harness.upload("a.pdf", b"a")
    harness.state.faults.append(Fault("run", "drop"))
    harness.deliver(document)
    harness.state.behaviour.known_workflows = [other]
    if list_status != 200:
        harness.state.faults.append(Fault("jobs", "status", status=list_status, times=10**6, workflow_id=deleted))
    assert harness.settle(minutes=30) <= minutes
    assert harness.status(document) == "COMPLETED"
    assert {job.workflow_id for job in harness.state.jobs.values()} == {other} != {deleted}


def test_conflict_is_busy(harness: Harness) -> None:
    """Case 11."""
    document = harness.upload("a.pdf", b"a")
    harness.state.faults.append(
        Fault("run", "status", status=409, body='{"detail": "There is a running job in progress."}')
    )
    harness.deliver(document)
    row = harness.row(document)
    assert (row["status"], int(row["failures"]), harness.counts["Held"]) == ("PENDING", 0, 0)
    harness.tick(after_seconds=15)
    assert harness.status(document) == "SCHEDULED"


@pytest.mark.parametrize("accepted", [True, False])
def test_unsettled_batch_of_a_workflow_that_leaves_the_pool_ends_once(harness: Harness, accepted: bool) -> None:
    """Case 14."""
    document = harness.upload("a.pdf", b"a")
    harness.state.faults.append(Fault("run", "drop-after" if accepted else "drop"))
    harness.deliver(document)
    harness.configure(workflow_ids=("00000000-0000-4000-8000-000000000000",))
    harness.settle()
    assert (harness.status(document), harness.accepted(document)) == ("COMPLETED", 1)


@pytest.mark.parametrize("leaves_pool", [True, False])
def test_job_of_somebody_else_that_never_ends_holds_no_unsettled_batch(harness: Harness, leaves_pool: bool) -> None:
    """It names its files, so it is not the one whose answer was lost."""
    document = harness.upload("a.pdf", b"a")
    harness.state.faults.append(Fault("run", "drop"))
    harness.deliver(document)
    harness.foreign_job(seconds=86_400)
    if leaves_pool:
        harness.configure(workflow_ids=("00000000-0000-4000-8000-000000000000",))
    else:
        harness.grow_pool(2)
    assert harness.settle() <= 20
    assert (harness.status(document), harness.accepted(document)) == ("COMPLETED", 1)


def test_batch_of_a_workflow_out_of_the_pool_stays_while_it_may_run(harness: Harness) -> None:
    """The list shows an active job and hides whose it is: to let go would run the batch twice."""
    harness.state.behaviour.list_shows_files = harness.state.behaviour.has_file_status = False
    harness.state.behaviour.default_job_seconds = 600
    harness.foreign_job(seconds=5)  # a second nameless one, just before: nothing can be inferred
    harness.clock.sleep(10)
    document = harness.upload("a.pdf", b"a")
    harness.state.faults.append(Fault("run", "drop-after"))
    harness.deliver(document)
    harness.configure(workflow_ids=("00000000-0000-4000-8000-000000000000",))
    for _ in range(8):
        harness.tick(after_seconds=60)
    assert harness.status(document) == "SUBMITTING"
    assert harness.accepted(document) == 1


def test_retry_after_holds_for_every_query_of_the_key(harness: Harness) -> None:
    """Case 15: every question 429 with Retry-After 600."""
    ids = harness.grow_pool(3)
    harness.configure(max_files_per_run=1)
    documents = [harness.upload(f"{number}.pdf", b"%d" % number) for number in range(3)]
    harness.deliver(*documents)
    assert len(harness.state.jobs) == len(ids)
    questions = ("job", "jobs", "details")
    faults = [Fault(call, "status", status=429, headers={"Retry-After": "600"}, times=1_000) for call in questions]
    harness.state.faults += faults
    harness.state.requests.clear()
    began = harness.clock.now()
    while (harness.clock.now() - began).total_seconds() < 1_170:
        harness.tick(window_seconds=50)
        harness.throttle.until = None  # the next minute's run is another container
        harness.clock.sleep(10)
    assert sum(harness.state.requests[call] for call in questions) <= 2 * 4  # four threads may ask at once
    for fault in faults:
        fault.times = 0
    harness.settle(minutes=30)
    assert {harness.status(each) for each in documents} == {"COMPLETED"}


def test_workflows_that_become_free_together_take_about_a_transaction_each(harness: Harness) -> None:
    """Case 20."""
    harness.grow_pool(32)
    harness.configure(max_files_per_run=2)
    documents = [harness.upload(f"{number}.pdf", b"%d" % number) for number in range(64)]
    harness.deliver(*documents, submit=False)
    calls: Counter[str] = Counter()
    lock = threading.Lock()

    class Counting(PassThrough):
        def around[T](self, name: str, call: Any) -> T:  # type: ignore[type-var]
            with lock:
                calls[name] += 1
            answer: T = call()
            return answer

    harness.hook = Counting()
    harness.tick()
    assert len(harness.state.jobs) == 32
    assert calls["dynamodb transact_write_items"] == 2 * 32  # a claim and a record for each
    assert calls["dynamodb query"] <= 10  # three more every tenth minute
    harness.hook = PassThrough()
    harness.settle()
    assert {harness.accepted(each) for each in documents} == {1}


def test_every_one_of_many_workflows_is_asked_every_poll(harness: Harness) -> None:
    """Case 21: forty running jobs."""
    harness.grow_pool(40)
    harness.configure(max_files_per_run=1)
    harness.state.behaviour.default_job_seconds = 600
    harness.deliver(*[harness.upload(f"{number}.pdf", b"%d" % number) for number in range(40)])
    harness.tick(after_seconds=10)
    harness.state.requests.clear()
    harness.tick(after_seconds=10, window_seconds=49)
    assert harness.state.requests["job"] == 40 * 5


def test_events_that_are_refused_hold_nothing_and_come_later(harness: Harness) -> None:
    """Case 24: PutEvents denied."""

    class Denied(PassThrough):
        def around[T](self, name: str, call: Any) -> T:  # type: ignore[type-var]
            if name == "events put_events":
                raise ClientError({"Error": {"Code": "AccessDeniedException", "Message": ""}}, "PutEvents")
            answer: T = call()
            return answer

    harness.hook = Denied()
    first = harness.upload("1.pdf", b"1")
    harness.deliver(first)
    harness.settle()
    assert harness.row(first)["queue"] == "events"
    assert harness.counts["PublishErrors"] > 0
    assert harness.workflow().phase is Phase.IDLE
    put: list[Any] = []

    class Seen(PassThrough):
        def around[T](self, name: str, call: Any) -> T:  # type: ignore[type-var]
            put.extend([name] if name == "events put_events" else [])
            answer: T = call()
            return answer

    harness.hook = Seen()
    harness.tick(after_seconds=60)
    assert put == ["events put_events"]
    assert "queue" not in harness.row(first)
    harness.tick(after_seconds=60)
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


@pytest.mark.parametrize(("bucket", "prefix"), [(None, "in/"), ("another-bucket", "")])
def test_document_outside_of_what_may_be_read_now_is_rejected(
    harness: Harness, bucket: str | None, prefix: str
) -> None:
    """Case 44: the prefix was narrowed, or the bucket is another one, while documents waited."""
    outside, inside = harness.upload("out/a.pdf", b"a"), harness.upload("in/b.pdf", b"b")
    harness.deliver(outside, inside, submit=False)
    harness.configure(source_bucket=bucket or harness.bucket, key_prefix=prefix)

    class DeniedOutside(PassThrough):
        def around[T](self, name: str, call: Any) -> T:  # type: ignore[type-var]
            if name == "s3 get_object" and harness.status(outside) == "SUBMITTING":
                raise ClientError({"Error": {"Code": "AccessDenied", "Message": ""}}, "GetObject")
            answer: T = call()
            return answer

    harness.configure(max_files_per_run=1)
    harness.hook = DeniedOutside()
    harness.settle()
    row = harness.row(outside)
    assert (row["status"], row["error"]["type"], harness.counts["Held"]) == ("REJECTED", "OutsidePrefix", 0)
    assert f"s3://{bucket or harness.bucket}/{prefix}," in row["error"]["message"]
    assert harness.status(inside) == "COMPLETED"


def test_run_leaves_to_a_young_poller_and_takes_over_from_an_old_one(harness: Harness) -> None:
    harness.deliver(harness.upload("a.pdf", b"a"))
    asked: list[int] = []

    class AnotherRun(PassThrough):
        """The next run of the schedule comes while this one asks about the job."""

        def __init__(self, after_seconds: float) -> None:
            self.after_seconds: float | None = after_seconds

        def around[T](self, name: str, call: Any) -> T:  # type: ignore[type-var]
            if (
                name.startswith("platform GET ") and len(name) > 40 and self.after_seconds is not None
            ):  # a job, by its id
                harness.clock.sleep(self.after_seconds)
                self.after_seconds = None
                before = harness.state.requests["job"]
                harness.tick()
                asked.append(harness.state.requests["job"] - before)
            answer: T = call()
            return answer

    for seconds in (1, 50):
        harness.hook = AnotherRun(seconds)
        harness.tick()
    assert asked == [0, 1]


def test_upload_that_is_submitted_wakes_the_poller_unless_it_is_awake(harness: Harness, monkeypatch: Any) -> None:
    monkeypatch.setattr(handlers, "context_of", lambda _invocation: harness.context())
    handlers.on_upload(s3_event(harness.upload("a.pdf", b"a")), Context())
    assert harness.woken == 1
    handlers.on_upload(s3_event(harness.upload("b.pdf", b"b")), Context())
    assert harness.woken == 1, "nothing was submitted: the workflow is at work"


def test_counts_are_told_when_the_ledger_does_not_answer(harness: Harness, monkeypatch: Any, capsys: Any) -> None:
    context = harness.context()

    def no_answer(*_: object) -> None:
        raise LedgerUnavailable("no answer")

    monkeypatch.setattr(handlers, "context_of", lambda _invocation: context)
    monkeypatch.setattr(handlers, "gauges", no_answer)
    context.counts.add("LateAcceptance")
    with pytest.raises(LedgerUnavailable):
        handlers.on_schedule({}, Context())
    assert '"LateAcceptance":[1.0]' in capsys.readouterr().out


@pytest.mark.parametrize("times", [1, 2])
def test_refusal_of_one_workflow_is_not_confirmed_by_a_429_of_another(harness: Harness, times: int) -> None:
    sick, well = harness.grow_pool(2)
    harness.configure(max_files_per_run=1)
    harness.state.faults.append(Fault("run", "status", status=400, times=100_000, workflow_id=sick))
    later: dict[str, Any] = {"status": 429, "headers": {"Retry-After": "20"}, "workflow_id": well, "times": times}
    harness.state.faults += [Fault("run", "status", document=f"good{each}-", **later) for each in range(4)]
    harness.state.behaviour.job_seconds[well] = 25
    good = [harness.upload(f"good{each}.pdf", b"good %d" % each) for each in range(4)]
    for number in range(40):
        if number % 10 == 9:
            harness.deliver(good[number // 10], submit=False)
        harness.deliver(harness.upload(f"{number}.pdf", b"%d" % number), submit=False)
    for _ in range(40):
        harness.tick(after_seconds=5, window_seconds=55)
    assert {harness.status(each) for each in good} == {"COMPLETED"}


def test_refused_documents_do_not_hide_those_behind_them(harness: Harness) -> None:
    """One workflow has a long job; the other has refused a hundred documents, which it gets again much later."""
    harness.grow_pool(2)
    harness.state.faults.append(Fault("run", "status", status=400, times=100_000, document="bad"))
    harness.deliver(harness.upload("long.pdf", b"long"))
    next(iter(harness.state.jobs.values())).seconds = 7_200
    harness.deliver(*(harness.upload(f"bad-{each}.pdf", b"bad %d" % each) for each in range(100)))
    for _ in range(3):
        harness.tick(after_seconds=5, window_seconds=55)
    good = [harness.upload(f"good-{each}.pdf", b"good %d" % each) for each in range(20)]
    harness.deliver(*good)
    for _ in range(6):
        harness.tick(after_seconds=5, window_seconds=55)
    assert {harness.status(each) for each in good} == {"COMPLETED"}


def test_lists_that_hang_hold_no_free_workflow(harness: Harness) -> None:
    """Four answers were lost, as many as there are threads for streams."""
    harness.grow_pool(5)
    harness.configure(max_files_per_run=1)
    harness.state.faults.append(Fault("run", "drop", times=4))
    harness.deliver(*(harness.upload(f"{each}.pdf", b"%d" % each) for each in range(4)))
    free = harness.upload("free.pdf", b"free")
    harness.deliver(free, submit=False)
    with harness.run_that_hangs("jobs"):
        until(lambda: harness.status(free) != "PENDING", every=0.1)
    assert harness.accepted(free) == 1


def test_names_of_a_foreign_job_are_not_asked_for_again_and_again(harness: Harness) -> None:
    """Nor does it count against the workflow that they are not told."""
    harness.state.behaviour.list_shows_files = False
    document = harness.upload("a.pdf", b"a")
    harness.state.faults.append(Fault("run", "drop", times=3))
    harness.deliver(document)
    while harness.workflow().phase is not Phase.IDLE:
        harness.tick(after_seconds=30)
    assert harness.workflow().unanswered
    before = harness.workflow().consecutive_failures
    harness.foreign_job(seconds=1e6)
    bodies = (json.dumps({"detail": f"request {each}"}) for each in range(3))
    harness.state.faults = [Fault("file-status", "status", status=503, body=each) for each in bodies]
    harness.clock.sleep(900)
    asked = harness.state.requests["file-status"]
    for _ in range(10):
        harness.tick(window_seconds=50, after_seconds=5)
    assert 0 < harness.state.requests["file-status"] - asked <= 5
    assert harness.workflow().consecutive_failures <= before


@pytest.mark.parametrize("jobs", [1, 25])
def test_workflow_of_foreign_jobs_is_looked_at_every_poll_seconds(harness: Harness, jobs: int) -> None:
    """The queue has something for it all the time; each look takes two questions. More jobs than are remembered."""
    job = harness.state.jobs[harness.foreign_job(seconds=1e6)]
    harness.state.jobs |= {each.id: each for each in (replace(job, id=str(uuid.uuid4())) for _ in range(jobs - 1))}
    harness.deliver(harness.upload("a.pdf", b"a"), submit=False)
    asked = harness.state.requests["jobs"]
    harness.tick(window_seconds=50, after_seconds=10)
    assert 5 * 2 <= harness.state.requests["jobs"] - asked <= 7 * 2


def test_busy_answer_costs_no_minute_and_is_not_repeated_every_second(harness: Harness) -> None:
    document = harness.upload("a.pdf", b"a")
    harness.deliver(document, submit=False)
    harness.state.faults.append(
        Fault("run", "status", status=202, body='{"detail": "There is a running job"}', times=2)
    )
    harness.configure(poll_seconds=1)
    began = harness.clock.epoch_seconds()
    harness.tick(window_seconds=50)
    assert harness.accepted(document) == 1
    assert 20 <= next(iter(harness.state.jobs.values())).created - began < 40


@pytest.mark.parametrize("failing", ["dynamodb scan", "dynamodb put_item"])
def test_one_call_that_fails_ends_no_polling(harness: Harness, failing: str) -> None:
    harness.state.behaviour.default_job_seconds = 60
    document = harness.upload("a.pdf", b"a")
    harness.deliver(document)

    class SecondFails(PassThrough):
        calls = 0

        def around[T](self, name: str, call: Callable[[], T]) -> T:
            self.calls += name == failing
            if name == failing and self.calls == 2:
                raise ClientError({"Error": {"Code": "AccessDenied", "Message": ""}}, "Scan")
            return call()

    harness.hook = SecondFails()
    with pytest.raises(ExceptionGroup):
        harness.tick(window_seconds=110)
    assert harness.status(document) == "COMPLETED"


def test_dead_addresses_of_the_host_cost_no_attempt_its_lease(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three of the host's four do not answer, and other runs look while the sender tries them."""
    connect, is_run, run = connection.create_connection, threading.local(), PlatformClient.run

    def create_connection(address: Any, timeout: float, *args: Any, **kwargs: Any) -> Any:
        for _ in range(3 if getattr(is_run, "value", False) else 0):
            is_run.value = False
            harness.clock.sleep(timeout)
            ticking = threading.Thread(target=harness.tick)
            ticking.start()
            ticking.join()
        return connect(address, timeout, *args, **kwargs)

    def flagged(client: PlatformClient, *args: Any) -> Any:
        is_run.value = True
        return run(client, *args)

    document = harness.upload("a.pdf", b"a")
    with monkeypatch.context() as patched:
        patched.setattr(connection, "create_connection", create_connection)
        patched.setattr(PlatformClient, "run", flagged)
        harness.deliver(document)
    assert harness.accepted(document) == 1


@pytest.mark.parametrize("is_heard", [False, True], ids=["before the commit", "after the commit"])
def test_job_that_an_upload_begins_while_a_run_polls_is_followed_at_once(
    harness: Harness, monkeypatch: pytest.MonkeyPatch, is_heard: bool
) -> None:
    """The run that polls has seen its workflow at work already, with no job yet."""
    harness.state.behaviour.default_job_seconds = 4
    sends, may_go_on, run, sleep = threading.Event(), threading.Event(), PlatformClient.run, harness.clock.sleep

    def held(client: PlatformClient, *args: Any) -> Any:
        job = run(client, *args) if is_heard else None
        sends.set()
        may_go_on.wait()
        return job or run(client, *args)

    document = harness.upload("a.pdf", b"a")
    upload = threading.Thread(target=harness.deliver, args=[document])

    def sleeps(seconds: float) -> None:
        sleep(seconds)
        if seconds:
            may_go_on.set()
            upload.join()

    with monkeypatch.context() as patched:
        patched.setattr(PlatformClient, "run", held)
        upload.start()
        sends.wait()
        patched.setattr(harness.clock, "sleep", sleeps)
        began_at = harness.clock.now()
        harness.tick(window_seconds=110)
    ended_at = datetime.fromisoformat(harness.row(document)["updated_at"])
    assert (harness.status(document), (ended_at - began_at).total_seconds() < 25) == ("COMPLETED", True)
