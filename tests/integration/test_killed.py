"""A function of the deployed template is killed in the middle of its work. Its lease has to end, so this takes long."""

import json
import time

from local.fake_platform.app import output_of
from local.fake_platform.state import Fault
from tests.integration.conftest import DeployedHarness
from tests.integration.deployed import rows_under, run_to_the_end, until, upload
from tests.integration.workers import kill_workers


def test_results_arrive_although_the_function_is_killed_in_a_download(
    deployed: DeployedHarness,
) -> None:
    stack, state = deployed.stack, deployed.state
    stack.set_key(state.behaviour.api_key)
    accepted_before = len(state.accepted())
    state.faults.append(Fault("download", "pause", seconds=3))
    upload(stack, [f"results/in {number}.pdf" for number in range(20)])
    until(lambda: len(rows_under(stack, "results/in ")) == 20)
    asked = state.requests["download"]
    stack.tick()
    until(lambda: state.requests["download"] > asked)
    time.sleep(0.5)  # the first half of the output is there, the rest is not
    assert kill_workers(stack["OnScheduleFunction"]) >= 1
    rows = run_to_the_end(stack, "results/in ", 20)
    assert {row["status"] for row in rows.values()} == {"COMPLETED"}
    assert len(state.accepted()) - accepted_before == 20
    files = {file.file_id: file for job in state.jobs.values() for file in job.files}
    for row in rows.values():
        assert len(row["results"]) == 2
        for entry in row["results"]:
            stored = stack.aws.client("s3").get_object(Bucket=entry["bucket"], Key=entry["key"])
            expected = output_of(files[row["input_file_id"]].sha256, entry["node_id"])
            assert stored["Body"].read() == json.dumps(expected).encode()
