"""Requests accepted long after their answers were lost, behind a backlog and between other attempts."""

import io
import json
from collections import deque
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from local.platform_state import Fault, SimulatedJob
from local.simulated_platform import output_of
from tests.integration.hooks import Direct
from tests.integration.world import World
from workflow_trigger.clock import iso
from workflow_trigger.decisions import STRIKES
from workflow_trigger.items import serialize
from workflow_trigger.model import Phase
from workflow_trigger.objects import ObjectVersion
from workflow_trigger.platform_api import Platform


def show(world: World, how: str) -> None:
    """By what the platform tells the files of a job: `ids` in the list, `documents` of the job, or `nothing`."""
    world.state.behaviour.list_shows_files = how == "ids"
    world.state.behaviour.has_file_status = how == "documents"


def run_to_the_end(world: World) -> None:
    for _ in range(3_000):
        world.tick(after_seconds=10)
        if all(row["status"] in {"COMPLETED", "FAILED"} for row in world.rows()):
            return
    raise AssertionError("some rows never came to an end")


def assert_each_ran_once(world: World, documents: list[ObjectVersion]) -> None:
    assert {world.accepted(each) for each in documents} == {1}
    assert {world.status(each) for each in documents} == {"COMPLETED"}


class BetweenLookAndRequest(Direct):
    """Something happens once, when the attempt opens its objects."""

    def __init__(self, act: Callable[[], Any]) -> None:
        self._act: Callable[[], Any] | None = act

    def around[T](self, name: str, call: Callable[[], T]) -> T:
        if name == "s3 get_object" and self._act is not None:
            act, self._act = self._act, None
            act()
        return call()


def accept_late(world: World, *documents: ObjectVersion) -> SimulatedJob:
    files = [
        world.state.store(world.row(each)["upload_name"], None, io.BytesIO(world.versions[each.row_key]))
        for each in documents
    ]
    job = world.state.start(world.settings.workflow_ids[0], files, is_late=True)
    assert job is not None
    return job


def lose(world: World, *documents: ObjectVersion) -> None:
    """One attempt with these documents gets no answer, and is given up."""
    world.state.faults.append(Fault("run", "drop"))
    world.deliver(*documents)
    while world.workflow().phase is not Phase.IDLE:
        world.tick(after_seconds=5, seconds=100)
    assert {row["status"] for row in world.rows()} == {"PENDING"}


def change(world: World, document: ObjectVersion, **attribute: str) -> None:
    ((name, value),) = attribute.items()
    world.dynamodb.update_item(
        TableName=world.settings.ledger_table,
        Key=serialize(document.row_key._asdict()),
        UpdateExpression=f"SET {name} = :value",
        ExpressionAttributeValues=serialize({":value": value}),
    )


def wait_until_free(world: World) -> None:
    while not world.workflow().is_free(world.clock.now()):
        world.clock.sleep(0.3)


@pytest.mark.parametrize("answer", ["busy", "lost"])
@pytest.mark.parametrize("shown", ["ids", "documents", "nothing"])
def test_fresh_file_is_not_taken_into_the_job_of_lost_ones(world: World, shown: str, answer: str) -> None:
    show(world, shown)
    lost, fresh = [world.upload(f"{name}.pdf", name.encode()) for name in "ab"], world.upload("c.pdf", b"c")
    lose(world, *lost)
    wait_until_free(world)
    world.deliver(fresh, submit=False)
    if answer == "lost":
        world.state.faults.append(Fault("run", "drop"))
    world.deliver(hook=BetweenLookAndRequest(lambda: accept_late(world, *lost)))
    world.settle()
    assert_each_ran_once(world, [*lost, fresh])


@pytest.mark.parametrize("answer", ["busy", "lost"])
@pytest.mark.parametrize("shown", ["ids", "documents", "nothing"])
def test_part_of_the_lost_files_goes_again_while_all_are_accepted(world: World, shown: str, answer: str) -> None:
    show(world, shown)
    lost = [world.upload(f"{name}.pdf", name.encode()) for name in "ab"]
    lose(world, *lost)
    world.configure(max_files_per_run=1)
    wait_until_free(world)
    world.clock.sleep(20)
    if answer == "lost":
        world.state.faults.append(Fault("run", "drop"))
    world.deliver(hook=BetweenLookAndRequest(lambda: accept_late(world, *lost)))
    world.settle()
    if (shown, answer) == ("nothing", "lost"):
        # Whether the job has both files or one, nothing can tell: rather twice than never.
        assert [world.accepted(each) for each in lost] == [1, 2]
        assert {world.status(each) for each in lost} == {"COMPLETED"}
    else:
        assert_each_ran_once(world, lost)


@pytest.mark.parametrize("lost_again", ["drop", "drop-after"])
def test_job_that_may_be_of_either_of_two_lost_attempts_is_taken_for_neither(world: World, lost_again: str) -> None:
    show(world, "nothing")
    first, second = world.upload("a.pdf", b"a"), world.upload("b.pdf", b"b")
    lose(world, first)
    world.deliver(second, submit=False)
    wait_until_free(world)
    assert world.row(first)["eligible_at"] > world.row(second)["eligible_at"]
    world.state.faults.append(Fault("run", lost_again))
    world.deliver(hook=BetweenLookAndRequest(lambda: accept_late(world, first)) if lost_again == "drop" else Direct())
    world.settle()
    twice = first if lost_again == "drop" else second
    assert {each.key: world.accepted(each) for each in (first, second)} == {"a.pdf": 1, "b.pdf": 1} | {twice.key: 2}
    assert {world.status(each) for each in (first, second)} == {"COMPLETED"}


@pytest.mark.parametrize("when", ["before the look", "after it", "before it, and one is put off"])
@pytest.mark.parametrize("late", [0, 1])
def test_job_that_may_be_of_any_of_the_rows_that_wait_is_nobodys(world: World, late: int, when: str) -> None:
    show(world, "nothing")
    documents = [world.upload(f"{name}.pdf", name.encode()) for name in "ab"]
    lose(world, documents[0])
    world.deliver(documents[1], submit=False)  # before the first one's turn comes again
    wait_until_free(world)
    lose(world)
    assert all("bound_to" in world.row(each) for each in documents)
    wait_until_free(world)
    world.clock.sleep(20)
    if when == "before it, and one is put off":
        change(world, documents[0], eligible_at=iso(world.clock.now() + timedelta(minutes=15)))
    if when != "after it":
        accept_late(world, documents[late])
        world.clock.sleep(25)
    world.deliver(
        hook=BetweenLookAndRequest(lambda: accept_late(world, documents[late])) if when == "after it" else Direct()
    )
    world.settle()
    assert {world.status(each) for each in documents} == {"COMPLETED"}
    assert [world.accepted(each) for each in documents] == [2 - late, 1 + late]


def test_key_that_is_taken_away_while_documents_are_asked_for_proves_nothing(world: World) -> None:
    show(world, "documents")
    document, other = world.upload("a.pdf", b"a"), world.upload("b.pdf", b"b")
    lose(world, document)
    wait_until_free(world)
    accept_late(world, document)
    world.clock.sleep(25)

    class TakenAway(Direct):
        done = False

        def around[T](self, name: str, call: Callable[[], T]) -> T:
            if name == "platform GET file-status" and not self.done:
                self.done = True
                world.secrets.put_secret_value(SecretId=world.secret, SecretString="{}")
                world.state.behaviour.api_key = "another-key"
            return call()

    world.deliver(other, hook=TakenAway())
    assert (world.status(document), world.status(other)) == ("PENDING", "PENDING")
    world.secrets.put_secret_value(SecretId=world.secret, SecretString="another-key")
    world.settle()
    assert_each_ran_once(world, [document, other])
    assert "inferred" not in world.row(document)


@pytest.mark.parametrize("lost_elsewhere", [False, True])
@pytest.mark.parametrize("seconds", [0, 30])
def test_strangers_job_that_comes_before_a_fresh_file_is_not_taken_for_its_own(
    world: World, seconds: float, lost_elsewhere: bool
) -> None:
    show(world, "nothing")
    world.state.behaviour.default_job_seconds = seconds

    def strangers() -> None:
        files = [world.state.store("x.pdf", None, io.BytesIO(b"x"))]
        assert world.state.start(world.settings.workflow_ids[0], files, ours=False)

    document = world.upload("a.pdf", b"a")
    world.deliver(document, submit=False)
    if lost_elsewhere:
        change(world, document, bound_to="a workflow that has left the pool")
    world.state.faults.append(Fault("run", "status", status=202, body='{"detail": "There is a running job."}'))
    world.deliver(document, hook=BetweenLookAndRequest(strangers))
    assert world.status(document) == "PENDING"
    world.settle()
    assert_each_ran_once(world, [document])


def test_failure_of_a_file_that_ran_again_is_not_that_of_the_others(world: World) -> None:
    show(world, "ids")
    again, other = [world.upload(f"{name}.pdf", name.encode()) for name in "ab"]
    lose(world, again, other)
    world.configure(max_files_per_run=1)
    wait_until_free(world)
    world.deliver()
    assert (world.status(again), world.status(other)) == ("SCHEDULED", "PENDING")
    world.clock.sleep(25)
    job = accept_late(world, again, other)
    job.ending, job.failed = "COMPLETED_WITH_ERRORS", {world.row(again)["upload_name"]: "a broken page"}
    world.settle()
    assert (world.status(again), world.status(other)) == ("COMPLETED", "COMPLETED")
    assert world.accepted(other) == 1


def others_meanwhile(world: World, jobs: int) -> None:
    """So many jobs of somebody else, whose documents have to be asked for."""
    for number in range(jobs):
        files = [world.state.store(f"x{number}.pdf", None, io.BytesIO(b"x"))]
        world.state.start(world.settings.workflow_ids[0], files, ours=False)
        world.clock.sleep(3)
    wait_until_free(world)


@pytest.mark.parametrize("jobs", [10, 11, 12])
def test_job_whose_documents_were_not_asked_for_is_not_taken_for_one_that_hides_them(world: World, jobs: int) -> None:
    show(world, "documents")
    world.state.behaviour.default_job_seconds = 2
    document = world.upload("a.pdf", b"a")
    lose(world, document)
    others_meanwhile(world, jobs)
    world.settle()
    assert_each_ran_once(world, [document])


@pytest.mark.parametrize("job_seconds", [5, 600])
def test_doubt_that_comes_back_with_every_try_has_an_end(world: World, job_seconds: float) -> None:
    """No answer ever comes, and nothing tells whose a job is, while another row waits here that was lost before."""
    show(world, "nothing")
    world.state.behaviour.default_job_seconds = job_seconds
    before = world.upload("a.pdf", b"a")
    lose(world, before)
    change(world, before, eligible_at=iso(world.clock.now() + timedelta(days=1)))
    answered = world.upload("z.pdf", b"z")
    world.deliver(answered, submit=False)
    world.settle(until=lambda: world.status(answered) == "COMPLETED")
    documents = [world.upload(f"{name}.pdf", name.encode()) for name in "bc"]
    world.deliver(*documents, submit=False)
    world.state.faults.append(Fault("run", "drop-after", times=10_000))
    for _ in range(240):
        world.tick(after_seconds=60)
    assert {world.status(each) for each in documents} == {"COMPLETED"}
    assert all(world.row(each)["inferred"] and world.accepted(each) <= STRIKES + 1 for each in documents)


def test_late_job_is_found_among_many_while_few_questions_are_answered(world: World) -> None:
    """The vendor answers twelve questions a minute for the documents of jobs."""
    show(world, "documents")
    world.state.behaviour.default_job_seconds = 2
    document = world.upload("a.pdf", b"a")
    lose(world, document)
    others_meanwhile(world, 16)
    accept_late(world, document)
    world.clock.sleep(3)
    asked: deque[float] = deque()

    def limited(call: str) -> Fault | None:
        if call != "file-status":
            return None
        now = world.state.clock()
        while asked and now - asked[0] > 60:
            asked.popleft()
        if len(asked) >= 12:
            return Fault("file-status", "status", status=429, headers={"Retry-After": "60"})
        asked.append(now)
        return None

    world.state.chance = limited
    for _ in range(4):
        world.tick(after_seconds=61)
    assert_each_ran_once(world, [document])


def test_lease_is_kept_while_documents_are_asked_for(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    show(world, "documents")
    world.state.behaviour.default_job_seconds = 2
    document = world.upload("a.pdf", b"a")
    lose(world, document)
    others_meanwhile(world, 22)
    others = [world.upload(f"{number}.pdf", bytes([number + 1])) for number in range(3)]
    world.deliver(*others, submit=False)
    ask = Platform.documents

    def slowly(platform: Platform, job_id: str) -> list[str]:
        world.clock.sleep(15)
        workflow = world.workflow()
        if workflow.phase is Phase.SUBMITTING and workflow.lease_has_ended(world.clock.now()):
            world.step_all()  # the next minute's run, beside this one
        return ask(platform, job_id)

    monkeypatch.setattr(Platform, "documents", slowly)
    for _ in range(12):
        world.tick(after_seconds=900)
    assert_each_ran_once(world, [document, *others])


@pytest.mark.parametrize("waiting", [12, 59, 70])
@pytest.mark.parametrize("shown", ["ids", "documents", "nothing"])
def test_batch_that_was_put_behind_the_backlog_is_found_whole(world: World, shown: str, waiting: int) -> None:
    """Lost twice, so that its rows go behind the others, and accepted after that: some of them are out of sight."""
    show(world, shown)
    documents = [world.upload(f"{number:03}.pdf", f"{number}".encode()) for number in range(waiting)]
    world.deliver(*documents, submit=False)
    world.state.faults += [Fault("run", "drop"), Fault("run", "late", seconds=65)]
    run_to_the_end(world)
    assert_each_ran_once(world, documents)
    (late,) = [job for job in world.state.jobs.values() if job.is_late]
    assert len(late.files) == 10
    assert {world.row(each)["job_id"] for each in documents[:10]} == {late.id}
    assert world.counts["LateAcceptance"] == 1


@pytest.mark.parametrize("fails", [False, True])
def test_files_of_a_job_accepted_late_get_their_own_outputs_and_ends(world: World, fails: bool) -> None:
    world.s3.create_bucket(Bucket=f"results-{world.bucket}")
    world.configure(results_bucket=f"results-{world.bucket}")
    documents = [world.upload(f"{number:03}.pdf", f"{number}".encode()) for number in range(59)]
    world.deliver(*documents, submit=False)
    world.state.faults += [Fault("run", "drop"), Fault("run", "late", seconds=65)]
    while not any(job.is_late for job in world.state.jobs.values()):
        world.tick(after_seconds=10)
    (late,) = [job for job in world.state.jobs.values() if job.is_late]
    broken = late.files[-1].filename
    if fails:
        late.ending, late.failed = "COMPLETED_WITH_ERRORS", {broken: "broken page"}
    run_to_the_end(world)
    for job in world.state.jobs.values():
        for file in job.files:
            (row,) = [row for row in world.rows() if row["upload_name"] == file.filename]
            assert row["status"] == ("FAILED" if fails and file.filename == broken else "COMPLETED")
            stored = [
                json.loads(world.s3.get_object(Bucket=entry["bucket"], Key=entry["key"])["Body"].read())
                for entry in row.get("results", [])
            ]
            assert stored == [output_of(file.sha256, entry["node_id"]) for entry in row.get("results", [])]


@pytest.mark.parametrize("shown", ["ids", "documents", "nothing"])
def test_job_of_a_row_that_is_put_off_is_not_taken_for_a_strangers(world: World, shown: str) -> None:
    """Lost four times, the last one accepted late, while another upload meets the free workflow."""
    show(world, shown)
    document = world.upload("a.pdf", b"a")
    world.state.faults += [Fault("run", "drop", times=3), Fault("run", "late", seconds=61.5)]
    world.deliver(document)
    while not world.state.late:
        world.tick(after_seconds=5)
    while world.workflow().phase is not Phase.IDLE:
        world.tick(after_seconds=0.25, seconds=100)
    while not world.workflow().is_free(world.clock.now()):
        world.clock.sleep(0.1)
    world.clock.sleep(1)
    other = world.upload("b.pdf", b"b")
    world.deliver(other)
    world.settle()
    assert_each_ran_once(world, [document, other])


@pytest.mark.parametrize("shown", ["documents", "nothing"])
def test_late_acceptance_that_makes_an_attempt_with_another_file_busy_is_found(world: World, shown: str) -> None:
    """Accepted between the look at the jobs and the request, while its own row is put off."""
    show(world, shown)
    document, other = world.upload("a.pdf", b"a"), world.upload("b.pdf", b"b")
    world.state.faults.append(Fault("run", "drop", times=4))
    world.deliver(document)
    while int(world.row(document)["failures"]) < 4:
        world.tick(after_seconds=1, seconds=900 if world.state.faults[0].times else 100)
    while not world.workflow().is_free(world.clock.now()):
        world.clock.sleep(0.1)
    assert world.row(document)["eligible_at"] > iso(world.clock.now())
    world.deliver(other, hook=BetweenLookAndRequest(lambda: accept_late(world, document)))
    assert (world.status(document), world.status(other)) == ("SCHEDULED", "PENDING")
    world.settle()
    assert_each_ran_once(world, [document, other])


def test_documents_that_are_never_told_do_not_stop_the_workflow(world: World) -> None:
    show(world, "documents")
    document = world.upload("a.pdf", b"a")
    world.state.faults.append(Fault("run", "late", seconds=65))
    world.state.faults.append(Fault("file-status", "status", status=500, times=10_000))
    world.deliver(document)
    for _ in range(7):
        world.tick(after_seconds=9)
    others = [world.upload(f"{number}.pdf", bytes([number])) for number in range(5)]
    world.deliver(*others, submit=False)
    for _ in range(60):
        world.tick(after_seconds=60)
    assert {world.status(each) for each in others} == {"COMPLETED"}
    assert world.row(document)["inferred"]


@pytest.mark.parametrize("status", [408, 499])
@pytest.mark.parametrize("shown", ["ids", "documents", "nothing"])
def test_somebody_on_the_way_who_gives_up_proves_nothing(world: World, shown: str, status: int) -> None:
    show(world, shown)
    document = world.upload("a.pdf", b"a")
    world.state.faults.append(Fault("run", "answer-after", status=status, body="{}"))
    world.deliver(document)
    world.settle()
    assert_each_ran_once(world, [document])


def test_workflow_id_in_another_spelling_is_the_same(world: World) -> None:
    lower = world.settings.workflow_ids[0]
    world.configure(workflow_ids=(lower.upper(),))
    document = world.upload("a.pdf", b"a")
    world.state.faults.append(Fault("run", "drop-after"))
    world.deliver(document)
    world.settle()
    assert_each_ran_once(world, [document])
    assert {job.workflow_id for job in world.state.jobs.values()} == {lower}


def test_sick_workflow_does_not_bind_the_backlog_to_itself(world: World) -> None:
    sick, well = world.grow_pool(2)
    world.state.behaviour.job_seconds[well] = 600
    world.state.faults.append(Fault("run", "status", status=500, times=10_000, workflow_id=sick))
    documents = [world.upload(f"{number:03}.pdf", f"{number}".encode()) for number in range(150)]
    world.deliver(*documents, submit=False)
    for minute in range(240):
        world.tick(after_seconds=60)
        free = [row for row in world.rows() if row["status"] == "PENDING" and "bound_to" not in row]
        at_work = next(each for each in world.workflows() if each.workflow_id == well).phase is not Phase.IDLE
        assert at_work or not free, f"minute {minute}: {len(free)} wait, and a healthy workflow is idle"
    assert len([row for row in world.rows() if row["status"] != "COMPLETED"]) < 40
