"""Operators' commands against the deployed template."""

import json
import signal

from local.fake_platform.state import Fault
from tests.integration.commands import command, started
from tests.integration.conftest import DeployedHarness
from tests.integration.deployed import rows_under, run_to_the_end, until, upload, url_of
from workflow_trigger.domain.model import FINAL

# -- status, find, retry, redrive --------------------------------------------------------------------------------------


def test_status_counts_rows_and_tells_what_needs_somebody(deployed: DeployedHarness) -> None:
    stack = deployed.stack
    stack.set_key(deployed.state.behaviour.api_key)
    upload(stack, ["status/a.pdf", "status/b.pdf"])
    run_to_the_end(stack, "status/", 2)
    ended = command(stack, "status", "--json")
    assert ended.code in {0, 1}, ended.err
    rows = stack.rows()
    assert ended.json["rows"]["COMPLETED"] == sum(row["status"] == "COMPLETED" for row in rows)
    assert sum(ended.json["rows"].values()) == len(rows)
    assert {each["workflow_id"] for each in ended.json["workflows"]} == set(deployed.workflow_ids)
    assert "COMPLETED" in command(stack, "status").out


def test_find_tells_each_version_its_job_and_what_to_do(deployed: DeployedHarness) -> None:
    stack, state = deployed.stack, deployed.state
    stack.set_key(state.behaviour.api_key)
    upload(stack, ["find/a b+c.pdf"])
    run_to_the_end(stack, "find/", 1)
    state.faults.append(Fault("run", "job", job={"ending": "FAILED"}, document="a-b-c", times=1))
    upload(stack, ["find/a b+c.pdf"])  # the same bytes, another version
    until(lambda: len(stack.rows("find/")) == 2)
    stack.tick()
    until(lambda: all(row["status"] in FINAL for row in stack.rows("find/")))
    url = url_of(stack, "find/a b+c.pdf")
    ended = command(stack, "find", url, "--json")
    assert ended.code == 1
    newest, oldest = ended.json["versions"]
    assert (newest["row"]["status"], oldest["row"]["status"]) == ("FAILED", "COMPLETED")
    assert newest["row"]["job_id"] in state.jobs
    assert "retry" in newest["todo"]
    assert oldest["todo"] == ""
    shown = command(stack, "find", url).out
    assert oldest["row"]["results"][0]["key"] in shown
    unknown = command(stack, "find", url_of(stack, "find/never.pdf"), "--json")
    assert (unknown.code, unknown.json["in_bucket"]) == (1, False)


def test_retry_makes_a_new_attempt_and_keeps_the_history_of_the_old(deployed: DeployedHarness) -> None:
    stack, state = deployed.stack, deployed.state
    stack.set_key(state.behaviour.api_key)
    for name in ("bad-1", "bad-2"):
        state.faults.append(Fault("run", "job", job={"ending": "FAILED"}, document=name, times=1))
    upload(stack, ["retry/bad-1.pdf"])
    run_to_the_end(stack, "retry/", 1)
    upload(stack, ["retry/bad-2.pdf"])
    before = run_to_the_end(stack, "retry/", 2)
    assert {row["status"] for row in before.values()} == {"FAILED"}
    prefix = url_of(stack, "retry/")

    asked = command(stack, "retry", "--prefix", prefix)
    assert asked.code == 3
    assert "--yes" in asked.err
    counted = command(stack, "retry", "--prefix", prefix, "--dry-run", "--json")
    assert counted.json == {"selected": 2, "reopened": 0, "by": [["FAILED", "JobFailed", 2]]}
    for nothing in (("--status", "COMPLETED"), ("--error", "FileFailed"), ("--older-than", "1d")):
        assert command(stack, "retry", "--prefix", prefix, "--yes", "--json", *nothing).json["selected"] == 0
    assert rows_under(stack, "retry/") == before

    one = command(stack, "retry", "--object", url_of(stack, "retry/bad-1.pdf"), "--yes", "--json", "--newer-than", "1h")
    assert one.json["reopened"] == 1
    rest = command(stack, "retry", "--prefix", prefix, "--status", "FAILED", "--error", "JobFailed", "--yes", "--json")
    assert rest.json["reopened"] == 1
    after = run_to_the_end(stack, "retry/", 2)
    for key, row in after.items():
        assert row["status"] == "COMPLETED"
        assert row["job_id"] != before[key]["job_id"]
        (run,) = row["runs"]
        assert (run["job_id"], run["status"]) == (before[key]["job_id"], "FAILED")
        assert run["error"]["type"] == "JobFailed"


def test_redrive_moves_what_can_be_read_and_shows_what_cannot(deployed: DeployedHarness) -> None:
    stack = deployed.stack
    sqs, queue = stack.aws.client("sqs"), stack["DeadLetterQueueUrl"]
    while messages := sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages"):
        for message in messages:
            sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
    s3_object = {"key": "redrive/a+b.pdf", "eTag": "0" * 32, "size": 1}
    record = {"eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": stack["SourceBucket"]}, "object": s3_object}}
    for body in (json.dumps({"Records": [record]}), "this is not an event"):
        sqs.send_message(QueueUrl=queue, MessageBody=body)
    assert command(stack, "status", "--json").json["dead_letters"] == 2
    ended = command(stack, "redrive", "--yes", "--json")
    assert ended.code == 1
    assert ended.json["moved"] == 1
    assert "not JSON" in ended.json["kept"][0]["unreadable"][0]
    again = command(stack, "redrive", "--yes", "--json", "--include-unreadable")
    assert (again.code, again.json) == (0, {"moved": 1, "kept": []})
    until(lambda: "redrive/a b.pdf" in rows_under(stack, "redrive/"))


def test_names_that_lead_nowhere_are_told_apart(deployed: DeployedHarness) -> None:
    stack = deployed.stack
    other = command(stack, "status", "--region", "eu-west-1")
    assert (other.code, "no stack" in other.err) == (3, True)
    for typed in (("find", "not-a-url"), ("find", "s3://bucket"), ("retry", "--status", "PENDING")):
        assert command(stack, *typed).code == 2
    for typed in (("retry", "--older-than", "soon"), ("retry", "--object", "")):
        assert command(stack, *typed).code == 2
    assert command(stack, "backfill", "s3://another-bucket/").code == 3


def test_watch_goes_on_until_it_is_interrupted(deployed: DeployedHarness) -> None:
    with started(deployed.stack, "status", "--watch", "--json", "--seconds", "0.5") as watching:
        assert watching.stdout is not None
        states = [json.loads(watching.stdout.readline()) for _ in range(3)]
        assert len({state["at"] for state in states}) == 3
        watching.send_signal(signal.SIGINT)
        assert watching.wait(30) == 0


# -- drills ------------------------------------------------------------------------------------------------------------


def test_purged_queue_is_made_good_by_a_backfill(deployed: DeployedHarness) -> None:
    stack = deployed.stack
    functions, sqs = stack.aws.client("lambda"), stack.aws.client("sqs")
    (mapping,) = functions.list_event_source_mappings(FunctionName=stack["OnUploadFunction"])["EventSourceMappings"]
    functions.update_event_source_mapping(UUID=mapping["UUID"], Enabled=False)
    upload(stack, [f"purged/{number}.pdf" for number in range(5)])
    sqs.purge_queue(QueueUrl=stack["UploadQueueUrl"])
    stopped = command(stack, "doctor", "--json")
    assert "upload function" in {each["check"] for each in stopped.json if each["health"] == "failed"}
    command(stack, "doctor", "--fix", "--yes")
    assert rows_under(stack, "purged/") == {}
    counted = command(stack, "backfill", url_of(stack, "purged/"), "--dry-run", "--json")
    assert (counted.code, counted.json["new"]) == (1, 5)
    assert command(stack, "backfill", url_of(stack, "purged/"), "--yes", "--json").json["sent"] == 5
    run_to_the_end(stack, "purged/", 5)  # the next test counts what is accepted


def test_uploads_during_a_concurrency_of_zero_run_once_afterwards(
    deployed: DeployedHarness,
) -> None:
    stack, functions = deployed.stack, deployed.stack.aws.client("lambda")
    stack.set_key(deployed.state.behaviour.api_key)
    accepted_before = len(deployed.state.accepted())
    names = (stack["OnUploadFunction"], stack["OnScheduleFunction"])
    for name in names:
        functions.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=0)
    try:
        upload(stack, [f"stopped/{number}.pdf" for number in range(3)])
        found = [each for each in command(stack, "doctor", "--json").json if each["health"] == "failed"]
        fixes = [each["fix"] for each in found if each["check"] == "concurrency"]
        assert all("delete-function-concurrency" in mend for mend in fixes)
        assert [name for name in names if not any(name in mend for mend in fixes)] == []
        assert rows_under(stack, "stopped/") == {}
    finally:
        for name in names:
            functions.delete_function_concurrency(FunctionName=name)
    # On AWS they are in the queue, or in the dead letters; the local stack forgets what a function could not take.
    command(stack, "redrive", "--yes")
    command(stack, "backfill", url_of(stack, "stopped/"), "--yes")
    rows = run_to_the_end(stack, "stopped/", 3)
    assert {row["status"] for row in rows.values()} == {"COMPLETED"}
    assert len(deployed.state.accepted()) - accepted_before == 3


def test_documents_wait_while_the_vendor_is_down_then_run_once(deployed: DeployedHarness) -> None:
    stack, state = deployed.stack, deployed.state
    stack.set_key(state.behaviour.api_key)
    outage = [Fault(call, "status", status=503, times=100_000) for call in ("run", "jobs", "job", "details")]
    state.faults.extend(outage)
    accepted_before = len(state.accepted())

    def reasons() -> set[str]:
        workflows = command(stack, "status", "--json").json["workflows"]
        return {each["error"]["type"] for each in workflows if each["error"]}

    try:
        upload(stack, [f"vendor-down/{number}.pdf" for number in range(3)])
        until(lambda: len(rows_under(stack, "vendor-down/")) == 3)
        stack.tick()
        until(lambda: "Unavailable" in reasons())
        assert {row["status"] for row in rows_under(stack, "vendor-down/").values()} == {"PENDING"}
    finally:
        for fault in outage:
            fault.times = 0

    def at_rest() -> bool:
        stack.tick()
        return all(row["status"] in FINAL for row in rows_under(stack, "vendor-down/").values())

    until(at_rest)
    assert {row["status"] for row in rows_under(stack, "vendor-down/").values()} == {"COMPLETED"}
    assert len(state.accepted()) - accepted_before == 3
