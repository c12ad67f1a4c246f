"""Kill the invocation before and after every remote call in turn: each object is still accepted exactly once."""

from collections.abc import Callable

import pytest

from tests.integration.fault_injection import KillAt, ended_by_kill
from tests.integration.harness import World
from workflow_trigger.domain.document import ObjectVersion
from workflow_trigger.domain.model import FINAL


def live(world: World, hook: KillAt, documents: list[ObjectVersion]) -> None:
    """The whole life of some documents, in invocations of which one is killed."""
    world.clock.sleep((1 - world.clock.now().minute) % 10 * 60)  # every tenth minute has more calls
    world.hook = hook
    with ended_by_kill():
        world.deliver(*documents)
    if hook.killed:
        hook.revive()
        with ended_by_kill():
            world.deliver(*documents)  # the message was not deleted: it comes again
    for _ in range(60):
        if all(row["status"] in FINAL for row in world.rows()) and len(world.rows()) == len(documents):
            return
        hook.revive()
        with ended_by_kill():
            world.tick(after_seconds=30)
    raise AssertionError(f"not at rest: {world.rows()} {world.workflows()}")


def one_file(world: World) -> list[ObjectVersion]:
    return [world.upload("a.pdf", b"a" * 1000)]


def batch(world: World) -> list[ObjectVersion]:
    return [world.upload(f"{name}.pdf", name.encode() * 1000) for name in "abc"]


def with_results(world: World) -> list[ObjectVersion]:
    world.s3.create_bucket(Bucket=f"results-{world.bucket}")
    world.configure(results_bucket=f"results-{world.bucket}")
    return one_file(world)


@pytest.mark.parametrize("documents_of", [one_file, batch, with_results])
def test_whatever_call_an_invocation_dies_at_every_object_is_accepted_once(
    world: World, documents_of: Callable[[World], list[ObjectVersion]], capsys: pytest.CaptureFixture[str]
) -> None:
    counted = KillAt()
    plain = world.another()
    live(plain, counted, documents_of(plain))
    points = [(number, after) for number in range(len(counted.names)) for after in (False, True)]
    for number, after in points:
        dying = world.another()
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
            assert row["job_id"] in {job_id for job_id, name, _ in dying.state.accepted() if row["upload_name"] == name}
    with capsys.disabled():
        print(f"\n{documents_of.__name__}: {len(points)} crash points, before and after {len(counted.names)} calls")
