"""Documents and workflows that 0.2.0 left in every state, as it wrote them: each of them ends right."""

import hashlib
import io
import json
from typing import Any

import pytest

from local.fake_platform.state import SimulatedJob, StoredFile
from local.stack import ROOT
from tests.integration.harness import World
from workflow_trigger.domain.document import ObjectVersion
from workflow_trigger.domain.model import Phase

# Recorded from a run of 0.2.0, two documents in each state.
STATES: dict[str, Any] = json.loads((ROOT / "tests/releases/0.2.0-items.json").read_text())


def taken_over(world: World, state: str) -> list[ObjectVersion]:
    """The tables, the bucket and the platform as 0.2.0 left them."""
    left = STATES[state]
    world.bucket = left["bucket"]
    world.s3.create_bucket(Bucket=world.bucket)
    documents = [world.upload(f"{name}.pdf", name.encode()) for name in "ab"]
    world.configure(workflow_ids=(left["workflow_id"],), results_bucket=left["results_bucket"])
    if left["results_bucket"]:
        world.s3.create_bucket(Bucket=left["results_bucket"])
    for table, items in ((world.settings.ledger_table, "rows"), (world.settings.workflows_table, "workflows")):
        for item in left[items]:
            world.dynamodb.put_item(TableName=table, Item=item)
    for job in left["jobs"]:
        files = [
            StoredFile(each["filename"], None, each["file_id"], digest(each["filename"]), 1, world.state.folder)
            for each in job["files"]
        ]
        world.state.jobs[job["id"]] = SimulatedJob(
            id=job["id"],
            workflow_id=left["workflow_id"],
            created=world.clock.epoch_seconds() - 10,
            files=files,
            seconds=20,
            scheduled_seconds=5,
            ours=job["ours"],
        )
    return documents


def digest(filename: str) -> str:
    return hashlib.sha256(filename.partition("-")[0].encode()).hexdigest()


@pytest.mark.parametrize("state", sorted(STATES))
def test_documents_of_the_earlier_release_end_right_and_run_once(world: World, state: str) -> None:
    documents = taken_over(world, state)
    before = {row["key"]: row for row in world.rows()}
    world.settle(minutes=60)
    assert {world.status(each) for each in documents} == {"COMPLETED"}
    assert {world.accepted(each) for each in documents} == {1}
    assert all(each.phase is Phase.IDLE for each in world.workflows())
    if state == "final":
        assert world.rows() == [before[row["key"]] for row in world.rows()]
    if state == "copying":
        assert all("key" in entry for each in documents for entry in world.row(each)["results"])
    assert not any("bound_to" in row for row in world.rows())


@pytest.mark.parametrize("shown", [True, False])
@pytest.mark.parametrize("state", ["bound", "committed"])
def test_lost_answer_of_the_earlier_release_that_is_accepted_late_is_found(
    world: World, state: str, shown: bool
) -> None:
    world.state.behaviour.list_shows_files = world.state.behaviour.has_file_status = shown
    documents = taken_over(world, state)
    world.state.jobs.clear()
    files = [
        world.state.store(world.row(each)["upload_name"], None, io.BytesIO(world.versions[each.document_key]))
        for each in documents
    ]
    world.state.start(world.settings.workflow_ids[0], files, is_late=True)
    world.settle(minutes=60)
    assert {world.status(each) for each in documents} == {"COMPLETED"}
    assert {world.accepted(each) for each in documents} == {1}


def test_lost_answer_of_the_earlier_release_whose_workflow_left_the_pool_goes_to_another(world: World) -> None:
    documents = taken_over(world, "bound")
    world.configure(workflow_ids=("00000000-0000-4000-8000-000000000000",))
    world.settle(minutes=60)
    assert {world.status(each) for each in documents} == {"COMPLETED"}
    assert {world.accepted(each) for each in documents} == {1}


def test_job_of_the_earlier_release_that_vanished_fails_its_documents(world: World) -> None:
    documents = taken_over(world, "doubtful")
    for job in world.state.jobs.values():
        job.vanished = True
    assert world.settle(minutes=60) <= 20
    assert {world.row(each)["error"]["type"] for each in documents} == {"JobVanished"}
