"""Routes in one stack: key prefixes with workflows of their own, none of which holds another."""

import json
import uuid
from dataclasses import replace
from typing import Any
from unittest.mock import patch
from urllib.parse import quote

import pytest

from local.fake_platform.state import Fault
from tests.integration.deployed import until
from tests.integration.harness import Harness
from workflow_trigger import bootstrap
from workflow_trigger.adapters.s3_events import ParsedEvent
from workflow_trigger.adapters.unstructured.client import PlatformClient
from workflow_trigger.domain.clock import iso
from workflow_trigger.domain.document import Lane, ObjectVersion, Route
from workflow_trigger.domain.errors import Misconfigured, Unavailable
from workflow_trigger.domain.model import ALL_ROUTES, Pause
from workflow_trigger.services import recover
from workflow_trigger.services.gauges import gauges
from workflow_trigger.services.register import register
from workflow_trigger.services.submit import submit_now

INVOICES = ("33333333-3333-3333-3333-333333333331", "33333333-3333-3333-3333-333333333332")
LEGAL = ("44444444-4444-4444-4444-444444444441", "44444444-4444-4444-4444-444444444442")
ONLY_INVOICES = (Route("invoices/", INVOICES),)


@pytest.fixture
def routed(harness: Harness) -> Harness:
    harness.s3.create_bucket(Bucket=f"results-{harness.bucket}")
    harness.configure(
        routes=(Route("invoices/", INVOICES), Route("legal/", LEGAL, "law/")),
        results_bucket=f"results-{harness.bucket}",
        max_files_per_run=5,
    )
    harness.pool_ever |= {*INVOICES, *LEGAL}
    return harness


def arrive(harness: Harness, *documents: ObjectVersion, submit: bool = False) -> None:
    """One invocation of on_upload."""
    context = harness.context()
    event = ParsedEvent()
    event.versions.extend(documents)
    found = register(event, context)
    if submit:
        submit_now(context, found)


def uploads(harness: Harness, prefix: str, count: int) -> list[ObjectVersion]:
    return [harness.upload(f"{prefix}{number}.pdf", f"{prefix}{number}".encode()) for number in range(count)]


def test_each_route_sends_its_documents_to_its_own_workflows(routed: Harness) -> None:
    by_prefix = {prefix: uploads(routed, prefix, 12) for prefix in ("invoices/", "legal/", "other/")}
    for documents in by_prefix.values():
        arrive(routed, *documents)
    routed.settle()
    pools = {"invoices/": set(INVOICES), "legal/": set(LEGAL), "other/": {*routed.settings.workflow_ids}}
    for prefix, documents in by_prefix.items():
        rows = [routed.row(each) for each in documents]
        assert {row["status"] for row in rows} == {"COMPLETED"}
        assert {row["workflow_id"] for row in rows} == pools[prefix]
        assert {row.get("route") for row in rows} == {None if prefix == "other/" else prefix}
        where = "results/law/" if prefix == "legal/" else "results/"
        assert all(entry["key"].startswith(f"{where}{prefix}") for row in rows for entry in row["results"])
        assert all(routed.accepted(each) == 1 for each in documents)
        entry = rows[0]["results"][0]
        stored = routed.s3.head_object(Bucket=entry["bucket"], Key=entry["key"])["Metadata"]
        assert stored.get("route") == (None if prefix == "other/" else quote(prefix))


def test_upload_is_submitted_at_once_to_a_free_workflow_of_its_route(routed: Harness) -> None:
    (document,) = uploads(routed, "legal/", 1)
    arrive(routed, document, submit=True)
    assert (routed.status(document), routed.row(document)["workflow_id"] in LEGAL) == ("SCHEDULED", True)


@pytest.mark.parametrize("lane", list(Lane))
def test_route_that_is_blocked_does_not_hold_another(routed: Harness, lane: Lane) -> None:
    """Its workflows do not exist; there are more of its documents than are read at once, and they came first."""
    routed.state.faults += [Fault("run", "status", status=404, times=10_000, workflow_id=each) for each in INVOICES]
    blocked = [replace(each, lane=lane) for each in uploads(routed, "invoices/", 300)]
    alone, fine = (
        [
            replace(each, lane=lane)
            for each in [*uploads(routed, f"legal/{turn}/", 30), *uploads(routed, f"other/{turn}/", 15)]
        ]
        for turn in ("alone", "fine")
    )
    arrive(routed, *alone)
    minutes_alone = routed.settle()
    arrive(routed, *blocked)
    arrive(routed, *fine)
    minutes = routed.settle(until=lambda: all(routed.status(each) == "COMPLETED" for each in fine))
    assert minutes <= minutes_alone + 2, "as if alone, but for the lot that gives the bulk lane its turn"
    assert {routed.status(each) for each in blocked} == {"PENDING"}
    said = routed.gauges()
    assert said["invoices/"]["IdleWaitingSeconds"] > 0
    assert (said["legal/"]["OldestWaitingSeconds"], said[""]["OldestWaitingSeconds"]) == (0, 0)


def test_acceptance_in_one_route_counts_no_failure_in_another(routed: Harness) -> None:
    """Else an outage of one route's workflows would reject its documents, because the others go on."""
    routed.state.faults += [Fault("run", "status", status=500, times=10_000, workflow_id=each) for each in INVOICES]
    (stuck,) = uploads(routed, "invoices/", 1)
    arrive(routed, stuck)
    for number in range(40):
        arrive(routed, routed.upload(f"legal/{number}.pdf", str(number).encode()))
        routed.tick(after_seconds=300)
    row = routed.row(stuck)
    assert row["status"] in {"PENDING", "SUBMITTING"}
    assert row.get("strikes", 0) <= 1


def test_documents_that_wait_follow_a_change_of_routes(routed: Harness) -> None:
    """A route that is gone leaves its documents to the rest; what waits for the rest goes on under a new route."""
    documents = [*uploads(routed, "invoices/", 8), *uploads(routed, "new/", 8)]
    arrive(routed, *documents)
    routed.configure(routes=(Route("legal/", LEGAL), Route("new/", INVOICES)))
    routed.settle()
    assert {routed.status(each) for each in documents} == {"COMPLETED"}
    assert all(routed.accepted(each) == 1 for each in documents)


def test_documents_of_no_route_any_more_are_found_behind_those_of_others(routed: Harness) -> None:
    """Their queue is not read any more; 300 documents of a blocked route wait for longer than they do."""
    routed.tick()
    routed.state.faults += [Fault("run", "status", status=404, times=10_000, workflow_id=each) for each in INVOICES]
    arrive(routed, *uploads(routed, "invoices/", 300))
    left = uploads(routed, "legal/", 3)
    arrive(routed, *left)
    routed.configure(routes=ONLY_INVOICES)
    assert routed.gauges()["*"]["OldestWaitingSeconds"] > 0
    routed.settle(until=lambda: all(routed.status(each) == "COMPLETED" for each in left), minutes=10)


def pause(harness: Harness, route: str) -> None:
    assert harness.ledger().pause(Pause(route=route, reason="a test", since=iso(harness.clock.now())))


@pytest.fixture
def before_a_change(routed: Harness) -> Harness:
    """260 documents of a paused route wait for longer than any other, so that no page of the index shows another."""
    routed.tick()
    pause(routed, "invoices/")
    arrive(routed, *uploads(routed, "invoices/", 260))
    return routed


def test_document_that_was_on_its_way_when_its_route_went(before_a_change: Harness) -> None:
    harness = before_a_change
    (document,) = uploads(harness, "legal/", 1)
    harness.state.faults.append(Fault("run", "status", status=500, times=10))
    arrive(harness, document, submit=True)
    assert harness.status(document) == "SUBMITTING"
    harness.configure(routes=ONLY_INVOICES)
    harness.tick(after_seconds=5)
    harness.state.faults.clear()
    harness.settle(until=lambda: harness.status(document) == "COMPLETED", minutes=60)


@pytest.mark.parametrize("lane", list(Lane))
def test_document_that_came_after_its_route_went(before_a_change: Harness, lane: Lane) -> None:
    """An invocation that began with the old environment registers it."""
    harness = before_a_change
    (document,) = uploads(harness, "legal/", 1)
    before = harness.settings
    harness.configure(routes=ONLY_INVOICES)
    harness.tick(after_seconds=5)
    after, harness.settings = harness.settings, before
    arrive(harness, replace(document, lane=lane))
    harness.settings = after
    harness.settle(until=lambda: harness.status(document) == "COMPLETED", minutes=60)


@pytest.mark.parametrize("prefix", ["legal/", "our law/"])
@pytest.mark.parametrize("is_put_off", [False, True])
def test_documents_of_a_route_that_went_behind_many_others(
    routed: Harness, monkeypatch: pytest.MonkeyPatch, prefix: str, is_put_off: bool
) -> None:
    """Behind more than a search reads."""
    monkeypatch.setattr("workflow_trigger.adapters.dynamodb.ledger._PAGE", 10)
    monkeypatch.setattr(recover, "_PAGES", 2)
    routed.configure(routes=(*ONLY_INVOICES, Route(prefix, LEGAL)))
    routed.tick()
    pause(routed, "invoices/")
    arrive(routed, *uploads(routed, "invoices/", 30))
    left = uploads(routed, prefix, 3)
    arrive(routed, *left)
    if is_put_off:
        later = iso(routed.context().later(100))
        for each in left:
            routed.rewrite(each, "SET #queue_at = :at, #eligible_at = :at", at=later)
    routed.configure(routes=ONLY_INVOICES)
    routed.settle(until=lambda: all(routed.status(each) == "COMPLETED" for each in left), minutes=30)


def test_routes_that_went_are_emptied_by_some_documents_a_run(routed: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recover, "_ENQUEUED", 10)
    names = [f"r{number}/" for number in range(5)]
    pools = [(f"55555555-5555-5555-5555-55555555555{number}",) for number in range(5)]
    routed.configure(routes=tuple(map(Route, names, pools)))
    pause(routed, ALL_ROUTES)
    routed.tick()
    for name in names:
        arrive(routed, *(replace(each, lane=Lane.BULK) for each in uploads(routed, name, 15)))
    routed.configure(routes=ONLY_INVOICES)
    routed.tick(after_seconds=5)
    assert sum("route" not in row for row in routed.rows()) == 10


def test_job_of_a_deleted_workflow_that_was_alone_on_its_route_ends(routed: Harness) -> None:
    """The workflows of other routes show whose key it is."""
    routed.configure(routes=(Route("invoices/", INVOICES[:1]), Route("legal/", LEGAL)))
    (document,) = uploads(routed, "invoices/", 1)
    arrive(routed, document, submit=True)
    (job,) = routed.state.jobs.values()
    job.vanished, routed.state.behaviour.known_workflows = True, [*LEGAL]
    routed.settle(minutes=30)
    assert routed.row(document)["error"]["type"] == "JobVanished"


def test_routes_are_known_while_an_orphan_waits_for_its_workflow(routed: Harness) -> None:
    """It keeps the first search open; a route goes before that ends."""
    pause(routed, "invoices/")
    arrive(routed, *uploads(routed, "invoices/", 260))
    routed.state.behaviour.job_seconds = dict.fromkeys(LEGAL, 1_800)
    (running,) = uploads(routed, "legal/", 1)
    arrive(routed, running, submit=True)
    orphan = routed.upload("orphan.pdf", b"orphan")
    arrive(routed, orphan)
    routed.bind(orphan, routed.row(running)["workflow_id"], "orphan-0123456789abcdef.pdf")
    documents = [routed.upload(f"legal/x{number}.pdf", b"x%d" % number) for number in range(3)]
    arrive(routed, *documents)
    pause(routed, "legal/")
    routed.tick(after_seconds=5)
    routed.tick(after_seconds=60)
    routed.configure(routes=ONLY_INVOICES)
    routed.settle(until=lambda: all(routed.status(each) == "COMPLETED" for each in documents), minutes=30)


def test_orphan_at_a_change_of_routes_is_taken_up_by_the_next_run(
    routed: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And no search is thorough, because it waits for its workflow."""
    for _ in range(2):
        routed.tick(after_seconds=60)
    searches: list[bool] = []
    enqueue = recover.enqueue_left_behind

    def watched(*args: Any, is_thorough: bool) -> bool:
        searches.append(is_thorough)
        return enqueue(*args, is_thorough=is_thorough)

    monkeypatch.setattr(recover, "enqueue_left_behind", watched)
    routed.state.behaviour.default_job_seconds = 300
    running, orphan = routed.upload("running.pdf", b"running"), routed.upload("orphan.pdf", b"orphan")
    arrive(routed, running, submit=True)
    arrive(routed, orphan)
    routed.bind(orphan, routed.row(running)["workflow_id"], "orphan-0123456789abcdef.pdf")
    routed.configure(routes=ONLY_INVOICES)
    minutes = routed.settle(until=lambda: "bound_to" not in routed.row(orphan), minutes=30)
    assert minutes <= 7
    assert searches == [True] + [False] * (minutes - 1)


def test_key_of_another_workspace_costs_few_questions(harness: Harness) -> None:
    """However many workflows and routes there are."""
    routes = tuple(Route(f"r{number}/", (str(uuid.uuid4()), str(uuid.uuid4()))) for number in range(10))
    harness.configure(routes=routes, max_files_per_run=1)
    harness.pool_ever |= {each for route in routes for each in route.workflow_ids}
    harness.state.behaviour.default_job_seconds = 10**6
    for route in routes:
        arrive(harness, *uploads(harness, route.key_prefix, 2), submit=True)
    assert len(harness.state.jobs) == 20
    harness.state.behaviour.is_another_workspace = True
    for _ in range(20):
        harness.tick(after_seconds=60)
    ask = PlatformClient.has_workflow
    with patch.object(PlatformClient, "has_workflow", autospec=True, side_effect=ask) as asked:
        harness.tick(after_seconds=60)
    assert 20 <= asked.call_count <= 20 * 5


def test_questions_of_one_route_that_hang_hold_no_other(routed: Harness) -> None:
    ids = tuple(f"33333333-3333-3333-3333-33333333333{number}" for number in range(4))
    routed.configure(routes=(Route("invoices/", ids), Route("legal/", LEGAL)), max_files_per_run=1)
    routed.pool_ever |= {*ids}
    arrive(routed, *uploads(routed, "invoices/", 4), submit=True)
    (document,) = uploads(routed, "legal/", 1)
    arrive(routed, document, submit=True)
    routed.clock.sleep(60)
    hung = {row["job_id"] for row in routed.rows() if row["key"].startswith("invoices/")}
    assert len(hung) == 4
    with routed.run_that_hangs("job", *hung):
        until(lambda: routed.status(document) == "COMPLETED", every=0.1)


def test_workflow_named_twice_by_id_and_key_is_in_the_first_route(routed: Harness) -> None:
    routed.state.workflows["legal-too"] = {"id": LEGAL[0]}
    routed.configure(routes=(Route("invoices/", (*INVOICES, LEGAL[0])), Route("legal/", (LEGAL[1],))))
    context = routed.context()
    other = context.by_route()["legal/"]
    other.settings = replace(other.settings, workflow_ids=LEGAL)  # as its key is resolved
    context.snapshot()
    assert other.settings.workflow_ids == (LEGAL[1],)
    assert other.counts.taken() == {"Held": 1}


def test_work_of_a_route_is_left_alone_while_its_key_cannot_be_resolved(routed: Harness) -> None:
    """Else its unsettled batch would count as that of a workflow that has left the pool."""
    routed.state.faults.append(Fault("run", "late", seconds=200))
    routed.configure(routes=(Route("legal/", (LEGAL[0],)),))
    (document,) = uploads(routed, "legal/", 1)
    arrive(routed, document, submit=True)
    assert routed.status(document) == "SUBMITTING"
    routed.state.behaviour.workflow_keys["legal-behind-an-outage"] = LEGAL[0]
    routed.configure(routes=(Route("legal/", ("legal-behind-an-outage",)),))
    routed.api_key.invalidate()
    routed.secrets.put_secret_value(SecretId=routed.secret, SecretString="a-wrong-key")
    for _ in range(5):
        routed.tick(after_seconds=60)
    assert routed.status(document) == "SUBMITTING"
    routed.api_key.invalidate()
    routed.secrets.put_secret_value(SecretId=routed.secret, SecretString=routed.state.behaviour.api_key)
    routed.settle()
    assert routed.accepted(document) == 1


def test_metrics_name_their_route(routed: Harness, capsys: pytest.CaptureFixture[str]) -> None:
    (document,) = uploads(routed, "legal/", 1)
    context = routed.context()
    event = ParsedEvent()
    event.versions.append(document)
    submit_now(context, register(event, context))
    bootstrap.report(context, gauges(context, context.snapshot()))
    bootstrap.metrics.flush_metrics()
    lines: list[dict[str, Any]] = [
        json.loads(line) for line in capsys.readouterr().out.splitlines() if '"_aws"' in line
    ]
    by_route = {line.get("route"): line for line in lines}
    assert by_route["legal/"]["Accepted"] == [1.0]
    assert by_route[None]["Accepted"] == [1.0], "the sum, for the alarms"
    assert "Accepted" not in by_route["invoices/"]
    assert by_route["legal/"]["Registered"] == [1.0]


def test_duplicate_event_takes_no_document_out_of_its_route(harness: Harness) -> None:
    """`Routes` have changed while it waited."""
    (document,) = uploads(harness, "invoices/", 1)
    arrive(harness, document)
    harness.pool_ever |= {INVOICES[0]}
    harness.configure(routes=(Route("invoices/", INVOICES[:1]),))
    arrive(harness, document, submit=True)
    assert harness.row(document)["workflow_id"] == harness.settings.workflow_ids[0]


def test_job_of_a_workflow_that_left_is_followed_beside_a_refused_key(
    routed: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    (document,) = uploads(routed, "legal/", 1)
    arrive(routed, document, submit=True)
    assert routed.status(document) == "SCHEDULED"

    def refuses(*_: Any) -> str:
        raise Misconfigured("HTTP 422: not a workflow")

    monkeypatch.setattr(PlatformClient, "id_of_workflow", refuses)
    routed.configure(routes=(Route("invoices/", ("a-key-that-is-wrong",)),))
    for _ in range(5):
        routed.tick(after_seconds=5, window_seconds=55)
    assert routed.status(document) == "COMPLETED"


def test_keys_that_hang_do_not_stop_other_routes(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor one another: the last of them is answered."""
    keys = tuple(f"key-{uuid.uuid4().hex[:8]}" for _ in range(5))
    harness.configure(routes=(Route("legal/", keys[:-1]), Route("invoices/", keys[-1:])))
    harness.pool_ever |= {INVOICES[0]}
    documents = [uploads(harness, prefix, 1)[0] for prefix in ("others/", "invoices/")]
    arrive(harness, *documents)

    def hangs(_: Any, key: str) -> str:
        if key == keys[-1]:
            return INVOICES[0]
        harness.clock.sleep(30)
        raise Unavailable("no answer")

    monkeypatch.setattr(PlatformClient, "id_of_workflow", hangs)
    harness.tick(window_seconds=110)
    assert harness.status(documents[0]) != "PENDING"
    for _ in range(60):  # in any order, so that it has its turn soon
        if harness.status(documents[1]) == "PENDING":
            harness.tick(after_seconds=60)
    assert harness.status(documents[1]) != "PENDING"


@pytest.mark.parametrize("is_old", [False, True])
@pytest.mark.parametrize("to", ["nowhere", "invoices"])
def test_outputs_go_where_the_route_of_their_document_says(routed: Harness, to: str, *, is_old: bool) -> None:
    """Its workflow has left the route since; an old one was registered before there were routes."""
    (document,) = uploads(routed, "legal/", 1)
    arrive(routed, document)
    if is_old:
        routed.rewrite(document, "REMOVE #queue, #queue_at, #route")
    arrive(routed, document, submit=True)
    used = routed.row(document)["workflow_id"]
    legal = Route("legal/", tuple(each for each in LEGAL if each != used), "law/")
    invoices = Route("invoices/", (*INVOICES, used) if to == "invoices" else INVOICES, "inv/")
    routed.configure(routes=(invoices, legal))
    routed.settle()
    results = routed.row(document)["results"]
    assert results
    assert all(entry["key"].startswith("results/law/") for entry in results)


def test_event_of_a_document_in_no_queue_offers_it_to_the_route_of_its_key(routed: Harness) -> None:
    """As an earlier release has left it."""
    (document,) = uploads(routed, "invoices/", 1)
    arrive(routed, document)
    routed.rewrite(document, "REMOVE #queue, #queue_at, #route")
    arrive(routed, document, submit=True)
    assert routed.row(document)["workflow_id"] in INVOICES
