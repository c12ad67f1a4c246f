"""A batch whose answer was lost is sent again in the same workflow. What can go wrong with that second request."""

from collections.abc import Callable

import pytest

from local.fake_platform.state import Fault
from tests.integration.fault_injection import Killed, PassThrough
from tests.integration.harness import Harness
from tests.integration.test_late_acceptance import accept_late, assert_each_ran_once, lose, names_of
from workflow_trigger.domain.document import ObjectVersion
from workflow_trigger.domain.model import Phase


class DiesAtTheFirstObject(PassThrough):
    def around[T](self, name: str, call: Callable[[], T]) -> T:
        if name == "s3 get_object":
            raise Killed
        return call()


@pytest.fixture
def lost(harness: Harness) -> list[ObjectVersion]:
    """Two documents whose first answer was lost, and whose second round is due."""
    documents = [harness.upload(f"{name}.pdf", name.encode()) for name in "ab"]
    lose(harness, *documents)
    harness.clock.sleep(130)
    return documents


@pytest.mark.parametrize("is_accepted_late", [False, True])
def test_sender_that_dies_leaves_the_batch_unsettled(
    harness: Harness, lost: list[ObjectVersion], is_accepted_late: bool
) -> None:
    names = names_of(harness, *lost)
    with pytest.raises(Killed):
        harness.step_all(hook=DiesAtTheFirstObject())
    assert (harness.workflow().phase, harness.workflow().attempt.rounds) == (Phase.SUBMITTING, 1)
    if is_accepted_late:
        accept_late(harness, names)
    harness.clock.sleep(61)  # its lease
    harness.step_all()
    assert harness.workflow().phase is Phase.COMMITTED  # and not free: the first request may still be accepted
    assert {harness.status(each) for each in lost} == {"SUBMITTING"}
    harness.settle()
    assert_each_ran_once(harness, lost)


@pytest.mark.parametrize("is_accepted_late", [False, True])
def test_object_that_is_gone_by_then_does_not_free_the_others(
    harness: Harness, lost: list[ObjectVersion], is_accepted_late: bool
) -> None:
    names, (kept, gone) = names_of(harness, *lost), lost
    harness.s3.delete_object(Bucket=harness.bucket, Key=gone.key)
    harness.step_all()
    assert (harness.workflow().phase, harness.workflow().attempt.rounds) == (Phase.COMMITTED, 1)
    assert len(harness.state.jobs) == 0  # only the very same batch may be sent again
    if is_accepted_late:
        accept_late(harness, names)
    harness.settle()
    assert (harness.status(kept), harness.accepted(kept)) == ("COMPLETED", 1)
    expected = ("COMPLETED", 1) if is_accepted_late else ("REJECTED", 0)
    assert (harness.status(gone), harness.accepted(gone)) == expected


def test_job_of_somebody_else_puts_the_second_request_off(harness: Harness, lost: list[ObjectVersion]) -> None:
    """It names its files: nothing is sent while it runs, and after three rounds the documents are free."""
    harness.foreign_job(seconds=600.0)
    requests = harness.state.requests["run"]
    for rounds in (1, 2):
        harness.step_all()
        harness.clock.sleep(130)
        assert (harness.workflow().phase, harness.workflow().attempt.rounds) == (Phase.COMMITTED, rounds)
    harness.step_all()
    assert {harness.status(each) for each in lost} == {"PENDING"}
    assert harness.state.requests["run"] == requests
    assert [job.ours for job in harness.state.jobs.values()] == [False]
    harness.settle()
    assert_each_ran_once(harness, lost)


def test_workflow_that_is_deleted_lets_the_batch_go(harness: Harness) -> None:
    deleted, other = harness.grow_pool(2)
    document = harness.upload("a.pdf", b"a")
    harness.state.faults.append(Fault("run", "drop", times=2))
    harness.deliver(document)
    harness.clock.sleep(130)
    harness.step_all()  # the second request is lost as well
    assert harness.workflow().attempt.rounds == 1
    harness.state.behaviour.known_workflows = [other]
    harness.settle()
    assert_each_ran_once(harness, [document])
    assert {job.workflow_id for job in harness.state.jobs.values()} == {other} != {deleted}
