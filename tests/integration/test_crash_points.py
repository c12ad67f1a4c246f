"""Kill the invocation before and after every remote call in turn: each object is still accepted exactly once."""

from collections.abc import Callable

import pytest

from tests.integration.fault_injection import KillAt, ended_by_kill
from tests.integration.harness import Harness
from workflow_trigger.domain.document import ObjectVersion
from workflow_trigger.domain.model import FINAL


def live(harness: Harness, hook: KillAt, documents: list[ObjectVersion]) -> None:
    """The whole life of some documents, in invocations of which one is killed."""
    harness.clock.sleep((1 - harness.clock.now().minute) % 10 * 60)  # every tenth minute has more calls
    harness.hook = hook
    with ended_by_kill():
        harness.deliver(*documents)
    if hook.killed:
        hook.revive()
        with ended_by_kill():
            harness.deliver(*documents)  # the message was not deleted: it comes again
    for _ in range(60):
        if all(row["status"] in FINAL for row in harness.rows()) and len(harness.rows()) == len(documents):
            return
        hook.revive()
        with ended_by_kill():
            harness.tick(after_seconds=30)
    raise AssertionError(f"not at rest: {harness.rows()} {harness.workflows()}")


def one_file(harness: Harness) -> list[ObjectVersion]:
    return [harness.upload("a.pdf", b"a" * 1000)]


def batch(harness: Harness) -> list[ObjectVersion]:
    return [harness.upload(f"{name}.pdf", name.encode() * 1000) for name in "abc"]


def with_results(
    harness: Harness, documents_of: Callable[[Harness], list[ObjectVersion]] = one_file
) -> list[ObjectVersion]:
    harness.s3.create_bucket(Bucket=f"results-{harness.bucket}")
    harness.configure(results_bucket=f"results-{harness.bucket}")
    return documents_of(harness)


def with_results_that_are_named_late(harness: Harness) -> list[ObjectVersion]:
    harness.state.behaviour.get_shows_files, harness.state.behaviour.files_lag_seconds = True, 50
    return with_results(harness, batch)


@pytest.mark.parametrize("documents_of", [one_file, batch, with_results, with_results_that_are_named_late])
def test_whatever_call_an_invocation_dies_at_every_object_is_accepted_once(
    harness: Harness, documents_of: Callable[[Harness], list[ObjectVersion]], capsys: pytest.CaptureFixture[str]
) -> None:
    counted = KillAt()
    plain = harness.another()
    live(plain, counted, documents_of(plain))
    points = [(number, after) for number in range(len(counted.names)) for after in (False, True)]
    for number, after in points:
        dying = harness.another()
        hook = KillAt(number, after=after)
        documents = documents_of(dying)
        where = f"{'after' if after else 'before'} call {number}"
        live(dying, hook, documents)
        assert hook.killed, where
        where += f", {hook.names[number]}"
        assert dying.violations == [], where
        for document in documents:
            row = dying.row(document)
            assert dying.accepted(document) == 1, where
            assert row["status"] == "COMPLETED", where
            assert all("key" in entry for entry in row.get("results", ())), where
            assert row["job_id"] in {job_id for job_id, name, _ in dying.state.accepted() if row["upload_name"] == name}
    with capsys.disabled():
        print(f"\n{documents_of.__name__}: {len(points)} crash points, before and after {len(counted.names)} calls")
