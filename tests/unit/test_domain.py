"""The pure decisions: the next batch, whose job, whose failure, how each file ended, what a failure means."""

import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflow_trigger.adapters.unstructured.responses import details_from, file_status_from, job_from
from workflow_trigger.domain import errors
from workflow_trigger.domain.batching import in_turn, is_turn_of_bulk, next_batch
from workflow_trigger.domain.clock import iso
from workflow_trigger.domain.document import DocumentKey, Lane, ObjectVersion, Selection, upload_name
from workflow_trigger.domain.doubt import DoubtKind
from workflow_trigger.domain.job import Details, FailedFile, FileStatus, Job, has_ended
from workflow_trigger.domain.matching import Search, attribute_failures, candidates, match, own_part
from workflow_trigger.domain.model import UNCHANGED, Attempt, Document, Status, Workflow
from workflow_trigger.domain.outcome import FileReports, missing_names, outcomes
from workflow_trigger.domain.retry import (
    COUNTED_FAILURES_LIMIT,
    POLICIES,
    REFUSALS_IN_A_ROW,
    Circumstances,
    after_failure,
    backoff_seconds,
    policy_for,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def document(name: str, size: int = 1, **more: Any) -> Document:
    source = ObjectVersion(
        bucket="b", key=name, version_id=None, etag="e", size_bytes=size, sequencer=None, uploaded_at=None
    )
    usual: dict[str, Any] = {"source": source, "status": Status.PENDING, "read_at": iso(NOW), "eligible_at": "2026"}
    return Document(**usual | more)


# -- what is wanted ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "size", "selection", "reason"),
    [
        ("a.pdf", 1, {}, None),
        ("a.pdf", None, {}, None),
        ("folder/", 0, {}, "a folder marker"),  # case 32
        ("folder/", None, {}, "a folder marker"),
        ("x_$folder$", 0, {}, "a folder marker"),
        ("x_$FOLDER$", None, {}, "a folder marker"),
        ("folder/", 8, {}, "a folder marker"),  # some tools write a byte or more into them
        ("x_$folder$", 1, {}, "a folder marker"),
        ("folder/a_$folder$.pdf", 1, {}, None),
        ("empty.pdf", 0, {}, "empty"),
        ("empty.pdf", 0, {"min_bytes": 0}, None),
        ("a.pdf", 9, {"min_bytes": 10}, "smaller than MinBytes (10)"),
        ("a.pdf", 2_000_001, {"max_bytes": 2_000_000}, "larger than MaxMegabytesPerFile (2)"),
        ("in/scan.PDF", 1, {"include": ("*.pdf", "*.docx")}, None),  # case 34
        ("in/scan.txt", 1, {"include": ("*.pdf",)}, "matches none of IncludePatterns"),
        ("tmp/a.pdf", 1, {"exclude": ("TMP/*",)}, "matches one of ExcludePatterns"),
        ("x-Gescha\u0308ft.pdf", 1, {"include": ("*gesch\u00e4ft*",)}, None),
        ("x-Gesch\u00e4ft.pdf", 1, {"exclude": ("*gescha\u0308ft*",)}, "matches one of ExcludePatterns"),
        ("a.exe", 1, {"only_supported": True}, "has no extension that the platform supports"),
        ("a.Docx ", 1, {"only_supported": True}, None),
    ],
)
def test_object_is_skipped_with_its_reason(key: str, size: int | None, selection: Any, reason: str | None) -> None:
    assert Selection(**selection).reason_against(key, size) == reason


# -- the batch ---------------------------------------------------------------------------------------------------------


def batch(queue: list[Document], **more: Any) -> list[str]:
    usual = {"workflow": Workflow(workflow_id="w1"), "pool_size": 2, "max_files": 3, "max_bytes": 100, "now": NOW}
    arguments: dict[str, Any] = usual | more
    return [each.source.key for each in next_batch(queue, **arguments)]


LANES = st.lists(st.sampled_from(list(Lane)), max_size=60)


@given(LANES, st.integers(1, 25), st.uuids())
def test_turns_leave_nobody_out_and_favour_uploads(lanes: list[Lane], max_files: int, drawn: uuid.UUID) -> None:
    waiting = [
        replace(each, source=replace(each.source, lane=lane), eligible_at=f"{place:03}")
        for place, lane in enumerate(lanes)
        for each in [document(str(place))]
    ]
    workflow = Workflow(workflow_id="w", revision=drawn.hex)
    order = in_turn(reversed(waiting), workflow, max_files)
    assert sorted(each.key for each in order) == sorted(each.key for each in waiting)
    by_lane = {lane: [each for each in order if each.source.lane is lane] for lane in Lane}
    for each in by_lane.values():
        assert [document.eligible_at for document in each] == sorted(document.eligible_at or "" for document in each)
    uploads = sum(lane is Lane.FRESH for lane in lanes)
    in_batch = sum(each.source.lane is Lane.FRESH for each in order[:max_files])
    if is_turn_of_bulk(workflow):
        assert in_batch == min(uploads, max(max_files // 4, max_files - len(by_lane[Lane.BULK])))
    else:
        assert in_batch == min(uploads, max_files)


def test_one_batch_in_four_begins_with_the_bulk_lane() -> None:
    drawn = [Workflow(workflow_id="w", revision=uuid.UUID(int=number * 7_919).hex) for number in range(400)]
    assert sum(map(is_turn_of_bulk, drawn)) == 100
    assert not is_turn_of_bulk(Workflow(workflow_id="new"))


def test_batch_is_the_oldest_documents_up_to_the_limits() -> None:
    assert batch([document("a"), document("b"), document("c"), document("d")]) == ["a", "b", "c"]
    assert batch([document("a", 60), document("b", 41), document("c")]) == ["a"]
    assert batch([document("a", 60), document("b", 40), document("c")]) == ["a", "b"]
    assert batch([document("huge", 10**12), document("b")]) == ["huge"]
    assert batch([]) == []


@pytest.mark.parametrize(("failures", "size"), [(0, 10), (1, 5), (2, 2), (3, 1), (9, 1)])
def test_batch_is_half_as_large_for_every_failure(failures: int, size: int) -> None:
    queue = [document(f"{number}", failures=failures) for number in range(12)]
    assert len(batch(queue, max_files=10)) == size
    tired = Workflow(workflow_id="w1", consecutive_failures=failures)
    assert len(batch([document(f"{number}") for number in range(12)], max_files=10, workflow=tired)) == size


def test_documents_that_failed_equally_often_travel_together() -> None:
    queue = [document("a", failures=1), document("b"), document("c", failures=1)]
    assert batch(queue, max_files=10) == ["a", "c"]


def test_document_avoids_the_workflow_where_it_failed_for_ten_minutes() -> None:
    queue = [document("a", failures=1, workflow_id="w1"), document("b")]
    assert batch(queue) == ["b"]
    assert batch(queue, workflow=Workflow(workflow_id="w2")) == ["a"]
    assert batch(queue, pool_size=1) == ["a"]
    assert batch(queue, now=NOW + timedelta(minutes=10)) == ["a"]


# -- whose job ---------------------------------------------------------------------------------------------------------


class Sent(NamedTuple):
    key: DocumentKey
    upload_name: str


A, B, C = (Sent(document(name).key, upload_name(document(name).key, "attempt")) for name in "abc")
ATTEMPT = Attempt(id="attempt", documents=dict([A, B]), started_at="", first_look_at="2026-01-01T00:10:00Z")


def file_id(sent: Sent) -> str:
    return f"{sent.upload_name}-0a1b2c3d.pdf"


def details_of(
    status: str, *, message: str | None = None, succeeded: int | None = None, failed: int | None = None
) -> Details:
    """A job's details, as the platform words them."""
    summary = {"total_docs_succeeded": succeeded, "total_docs_failed": failed}
    found = details_from({"processing_status": status, "message": message, "summary": summary})
    assert found
    return found


def job(job_id: str, *files: str, created_at: str = "2026-01-01T00:10:05", **more: Any) -> Job:
    given = {"id": job_id, "status": "COMPLETED", "created_at": created_at, "input_file_ids": files or None} | more
    said = job_from(given)
    assert said
    return Job(**given, state=said.state)


def told(**names: list[str]) -> Any:
    return lambda job_id: FileStatus(documents=tuple(names.get(job_id, ())), is_complete=True)


def test_only_new_jobs_that_are_not_older_than_the_first_look_count() -> None:
    jobs = [
        job("old", created_at="2026-01-01T00:08:59"),
        job("skew", created_at="2026-01-01T00:09:30"),
        job("known"),
        job("new"),
        job("of no age", created_at="yesterday"),
    ]
    assert [each.id for each in candidates(iter(jobs), ATTEMPT, ("known",))] == ["skew", "new", "of no age"]


def test_known_job_that_names_a_file_of_the_attempt_is_a_candidate() -> None:
    """A look may write it down as somebody else's before its attempt is taken up again."""
    ours, others = job("ours", file_id(A)), job("others", "invoice-12345678.pdf")
    assert candidates([ours, others], ATTEMPT, ("ours", "others")) == [ours]
    old = replace(ours, created_at="2026-01-01T00:01:00Z")
    assert candidates([old], ATTEMPT, ()) == [old], "a name proves more than the clocks of two servers"


def test_job_that_names_one_of_our_files_is_ours_as_a_whole() -> None:
    ours = job("new", file_id(B), "invoice-12345678.pdf")
    assert match([job("x", "y.pdf"), ours], ATTEMPT, told(), may_infer=False) == Search(ours)
    by_outputs = job("new", output_node_files=({"file_id": file_id(A)},))
    assert match([by_outputs], ATTEMPT, told(), may_infer=False).job is not None
    hidden = job("new")
    assert match([hidden], ATTEMPT, told(new=[A.upload_name]), may_infer=False).job is not None


def test_job_that_names_others_or_another_attempt_is_not_ours() -> None:
    earlier = upload_name(A.key, "earlier attempt")
    for name in ("invoice-12345678.pdf", earlier):
        assert match([job("new", name)], ATTEMPT, told(), may_infer=True) == Search()
        assert match([job("new")], ATTEMPT, told(new=[name]), may_infer=True) == Search()


def test_only_nameless_job_is_inferred_and_two_are_not() -> None:
    one, other = job("new"), job("newer", created_at="2026-01-01T00:11:00")
    inferred = Search(one, is_inferred=True)
    assert match([one], ATTEMPT, told(), may_infer=True) == inferred
    assert match([one], ATTEMPT, told(), may_infer=False) == Search(unexplained=(one,))
    assert match([one, other], ATTEMPT, told(), may_infer=True) == Search(
        unexplained=(
            other,
            one,
        )
    )


def test_names_that_are_not_complete_prove_nothing() -> None:
    def unfinished(_: str) -> FileStatus:
        return FileStatus(documents=("invoice.pdf",), is_complete=False)

    inferred = Search(job("new"), is_inferred=True)
    assert match([job("new")], ATTEMPT, unfinished, may_infer=True) == inferred
    assert match([job("new")], ATTEMPT, unfinished, may_infer=False) == Search(unexplained=(job("new"),))


def test_job_that_is_not_asked_about_may_be_ours() -> None:
    jobs = [job(f"j{number}", created_at=f"2026-01-01T00:10:{number:02}") for number in range(11)]
    others = told(**{f"j{number}": ["x.pdf"] for number in range(1, 11)})
    assert match(jobs, ATTEMPT, others, may_infer=True) == Search(unexplained=(jobs[0],))
    assert match(jobs[:1], ATTEMPT, others, may_infer=True).job is not None


def test_document_without_outputs_of_its_own_does_not_get_those_of_others() -> None:
    nodes = ({"file_id": file_id(A), "node_id": "n"},)
    own, own_id = own_part(job("j", file_id(A), file_id(B), output_node_files=nodes), B.key, ATTEMPT)
    assert (own.output_node_files, own_id) == ((), file_id(B))


def test_document_gets_its_own_entries_where_ids_tell_them() -> None:
    both = job("j", file_id(A), file_id(B), output_node_files=({"file_id": file_id(A)}, {"file_id": file_id(B)}))
    own, own_id = own_part(both, B.key, ATTEMPT)
    assert (own.input_file_ids, own.output_node_files, own_id) == (
        (file_id(B),),
        ({"file_id": file_id(B)},),
        file_id(B),
    )
    unnamed, no_id = own_part(job("j", "uuid-1", "uuid-2"), B.key, ATTEMPT)
    assert (unnamed.input_file_ids, no_id) == (("uuid-1", "uuid-2"), None)
    assert own_part(job("j", "uuid-1"), B.key, replace(ATTEMPT, documents=dict([B])))[1] == "uuid-1"


# -- the end of each file ----------------------------------------------------------------------------------------------


def ends(
    status: str,
    details: Details,
    failed: list[FailedFile],
    *sent: Sent,
) -> list[tuple[str, str, bool]]:
    found = outcomes(job("j", status=status), details, FileReports.of(failed, FileStatus(is_complete=True), dict(sent)))
    order = [found[each.key] for each in sent]
    return [(each.status.value, each.error["type"] if each.error else "", each.outputs_decide) for each in order]


def failure(sent: Sent) -> FailedFile:
    return FailedFile(document=sent.upload_name, error="broken page")


TEN = [Sent(document(name).key, upload_name(document(name).key, "x")) for name in "1234567890"]
FIVE = TEN[:5]
SUCCEEDED = ("COMPLETED", "", False)
DECIDED = ("FAILED", "JobFailed", True)
NAMED = ("FAILED", "FileFailed", False)


@pytest.mark.parametrize(
    "details",
    [
        details_of("FAILED", succeeded=4, failed=1),
        details_of("COMPLETED_WITH_ERRORS"),
        details_of("FAILED"),  # no summary
    ],
    ids=["summary", "with errors", "no summary"],
)
def test_failed_job_with_one_failed_file_does_not_make_the_others_failed(details: Details) -> None:
    """Cases 1 and 2."""
    assert ends("FAILED", details, [failure(FIVE[2])], *FIVE) == [DECIDED, DECIDED, NAMED, DECIDED, DECIDED]


def test_file_that_the_summary_leaves_out_is_no_success() -> None:
    details = details_of("COMPLETED_WITH_ERRORS", succeeded=3, failed=1)
    assert ends("COMPLETED", details, [failure(FIVE[0])], *FIVE) == [NAMED, *[("FAILED", "Unattributed", True)] * 4]


def test_list_of_files_that_goes_on_is_waited_for_then_outputs_decide() -> None:
    one, two, three, *_ = FIVE
    ended, details = job("j", status="COMPLETED"), details_of("COMPLETED_WITH_ERRORS")
    answer = FileStatus(failed=(failure(one),), succeeded=(two.upload_name or "",))
    told = FileReports.of([], answer, dict([one, two, three]))
    assert missing_names(ended, details, told)
    assert not missing_names(ended, details, FileReports.of([], answer, dict([one, two])))
    whole = replace(answer, is_complete=True)
    assert not missing_names(ended, details, FileReports.of([], whole, dict([one, two, three])))
    in_progress = replace(whole, documents=(three.upload_name or "",))
    undecided = FileReports.of([], in_progress, dict([one, two, three]))
    assert missing_names(ended, details, undecided)
    stopped = job("j", status="STOPPED")
    assert missing_names(stopped, details, told)
    assert not missing_names(stopped, details, FileReports.of([], whole, dict([one, two, three])))
    for each in (told, undecided):
        found = outcomes(ended, details, each)
        assert [found[sent.key].status.value for sent in (one, two, three)] == ["FAILED", "COMPLETED", "FAILED"]
        assert (found[two.key].outputs_decide, found[three.key].outputs_decide) == (False, True)


@pytest.mark.parametrize(
    ("failed", "by_status", "ours", "others"),
    [
        ([failure(A)], [FailedFile(document="drawn", error="")], [A], 0),  # the same failure, under two names
        ([FailedFile(document="x", error=""), FailedFile(document="y", error="")], [failure(A)], [A], 1),
        ([failure(A)], [failure(A), failure(B)], [A, B], 0),
        ([], [FailedFile(document="", error=""), FailedFile(document="", error="")], [], 2),
        (
            [failure(A)],
            [failure(B), FailedFile(document="drawn", error="")],
            [A, B],
            1,
        ),  # it has our names, but for one
    ],
)
def test_failure_in_both_lists_counts_once(
    failed: list[FailedFile], by_status: list[FailedFile], ours: list[Sent], others: int
) -> None:
    told = FileReports.of(failed, FileStatus(failed=tuple(by_status)), dict([A, B, C]))
    assert (list(told.reasons), len(told.unattributed)) == ([each.key for each in ours], others)
    assert told.has_all_failures == (bool(failed) and not others), "names that cannot be read are not whole"


def test_failure_of_another_document_is_not_that_of_a_single_one() -> None:
    details = details_of("COMPLETED_WITH_ERRORS")
    assert ends("COMPLETED", details, [failure(B)], A) == [("FAILED", "Unattributed", True)]
    assert ends("COMPLETED", details, [FailedFile(document="drawn", error="")], A) == [NAMED]


def test_success_before_a_stop_is_believed() -> None:
    told = FileReports.of([], FileStatus(succeeded=(A.upload_name,), is_complete=True), dict([A, B]))
    found = outcomes(job("j", status="STOPPED"), details_of("STOPPED"), told)
    assert [found[each.key].status for each in (A, B)] == ["COMPLETED", "STOPPED"]


def test_failure_that_the_list_of_files_does_not_name_is_one() -> None:
    told = file_status_from(
        {"files": [{"document": None, "status": "FAILURE"}, {"document": "a", "status": "SUCCESS"}]}
    )
    assert told == FileStatus(
        documents=("a",), failed=(FailedFile(document="", error=""),), succeeded=("a",), is_complete=True
    )


def test_outputs_decide_in_a_failed_job_of_which_nothing_is_known() -> None:
    """The names of the failed files may come later than the end; and 89 % of the files may have succeeded."""
    details = details_of("FAILED", message="why")
    assert ends("FAILED", details, [], *FIVE) == [("FAILED", "JobFailed", True)] * 5
    assert ends("FAILED", details, [], A) == [("FAILED", "JobFailed", False)]
    none_succeeded = details_of("FAILED", succeeded=0, failed=5)
    assert ends("FAILED", none_succeeded, [failure(FIVE[0])], A, FIVE[0])[0] == ("FAILED", "JobFailed", False)


@pytest.mark.parametrize(
    ("status", "processing", "expected"),
    [
        ("COMPLETED", "SUCCESS", SUCCEEDED),
        ("COMPLETED", "FAILED", ("FAILED", "JobFailed", True)),
        ("COMPLETED", "STOPPED", ("STOPPED", "JobStopped", False)),
        ("COMPLETED", "COMPLETED_WITH_ERRORS", ("FAILED", "Unattributed", True)),
        ("FAILED", "SUCCESS", ("FAILED", "JobFailed", True)),
        ("STOPPED", "STOPPED", ("STOPPED", "JobStopped", False)),
        ("STOPPED", "SUCCESS", ("STOPPED", "JobStopped", True)),
        ("SOMETHING_NEW", "SUCCESS", SUCCEEDED),
    ],
)
def test_completed_alone_proves_nothing(status: str, processing: str, expected: tuple[str, str, bool]) -> None:
    assert ends(status, details_of(processing), [], A, B) == [expected, expected]


@pytest.mark.parametrize("processing", ["SUCCESS", "COMPLETED_WITH_ERRORS"])
def test_only_the_failed_file_of_a_completed_job_fails(processing: str) -> None:
    assert ends("COMPLETED", details_of(processing), [failure(A)], A, B) == [NAMED, SUCCEEDED]


def test_failed_file_under_a_strange_name_may_be_any_that_has_no_output() -> None:
    strange = FailedFile(document="renamed.pdf", error="broken page")
    details = details_of("COMPLETED_WITH_ERRORS")
    unattributed = ("FAILED", "Unattributed", True)
    assert ends("COMPLETED", details, [failure(A), strange], A, B, C) == [NAMED, unattributed, unattributed]
    assert ends("COMPLETED", details, [strange], A) == [NAMED]
    reasons, rest = attribute_failures([failure(A), strange], dict([A, B]))
    assert (reasons, rest) == ({A.key: "broken page"}, [strange])


@pytest.mark.parametrize(
    ("details", "named", "missing"),
    [
        (details_of("COMPLETED_WITH_ERRORS"), 0, True),
        (details_of("COMPLETED_WITH_ERRORS"), 1, False),
        (details_of("COMPLETED_WITH_ERRORS", succeeded=7, failed=3), 1, True),
        (details_of("COMPLETED_WITH_ERRORS", succeeded=7, failed=3), 3, False),
        (details_of("FAILED", succeeded=4, failed=1), 0, True),
        (details_of("FAILED", succeeded=0, failed=5), 0, False),
        (details_of("SUCCESS", succeeded=5, failed=0), 0, False),
        (details_of("SUCCESS", succeeded=0, failed=1), 0, True),
    ],
)
def test_more_files_failed_than_are_named_is_a_contradiction(details: Details, named: int, missing: bool) -> None:
    told = FileReports.of([failure(each) for each in TEN[:named]], FileStatus(is_complete=True), dict(TEN))
    assert missing_names(job("j", status="COMPLETED"), details, told) == (DoubtKind.NAMES_MISSING if missing else None)


@pytest.mark.parametrize(
    ("summary", "named", "is_complete", "missing"),
    [
        ({}, 0, False, DoubtKind.REASONS_MISSING),
        ({}, 1, False, DoubtKind.NAMES_MISSING),
        ({}, 0, True, None),
        ({"succeeded": 0, "failed": 5}, 0, False, DoubtKind.REASONS_MISSING),
        ({"succeeded": 4, "failed": 1}, 0, False, DoubtKind.NAMES_MISSING),
    ],
)
@pytest.mark.parametrize("several", [True, False])
def test_names_are_waited_for_by_what_they_would_tell(
    summary: Any, named: int, is_complete: bool, missing: DoubtKind | None, several: bool
) -> None:
    """A list that never is complete, of a job in which all failed, holds its workflow for a minute."""
    sent = FIVE if several else FIVE[:1]
    told = FileReports.of([], FileStatus(failed=tuple(map(failure, sent[:named])), is_complete=is_complete), dict(sent))
    expected = None if named and not several else missing  # nothing is left to be named
    assert missing_names(job("j", status="FAILED"), details_of("FAILED", **summary), told) == expected


def test_unnamed_failures_leave_the_end_of_the_others_to_their_outputs() -> None:
    details = details_of("COMPLETED_WITH_ERRORS", succeeded=1, failed=2)
    unattributed = ("FAILED", "Unattributed", True)
    assert ends("COMPLETED", details, [failure(A)], A, B, C) == [NAMED, unattributed, unattributed]


@pytest.mark.parametrize(
    ("status", "processing", "ended"),
    [
        ("COMPLETED", "SUCCESS", True),
        ("COMPLETED", "IN_PROGRESS", False),
        ("IN_PROGRESS", "SUCCESS", False),
        ("SOMETHING_NEW", "SUCCESS", True),
        ("SOMETHING_NEW", "IN_PROGRESS", False),
        ("COMPLETED", "SOMETHING_NEW", False),
    ],
)
def test_a_job_has_ended_when_it_and_its_details_agree(status: str, processing: str, ended: bool) -> None:
    assert has_ended(job("j", status=status), details_of(processing)) is ended


# -- failures ----------------------------------------------------------------------------------------------------------

COUNTED: list[errors.TriggerError] = [
    errors.NotSent("m"),
    errors.OutcomeUnknown("m"),
    errors.ObjectUnreadable("m"),
    errors.LeaseEnded("m"),
]
COUNTED += [errors.TooSlow("m")]
NEVER_ENDING: list[errors.TriggerError] = [
    errors.Misconfigured("m"),
    errors.KeyNotSet("m"),
    errors.Throttled("m", 7),
    errors.Busy("m"),
]
NEVER_ENDING += [errors.Unreachable("m"), errors.ObjectDenied("m")]


def culprit(name: str) -> errors.SourceError:
    """One of several objects breaks off."""
    error = errors.ObjectUnreadable("m")
    error.document_key = document(name).key
    return error


def given_accepted(accepted: int, **more: Any) -> Circumstances:
    return Circumstances(now=NOW, accepted=accepted, jitter=0.5, **more)


def fail(
    error: errors.TriggerError, each: Document, accepted: int, workflow: Workflow | None = None, **more: Any
) -> tuple[Status, Document, Workflow]:
    """One failure of a solo document: its status, and both as they are afterwards."""
    decision = after_failure(error, workflow or Workflow(workflow_id="w"), [each], given_accepted(accepted, **more))
    (update,) = decision.updates
    names = ("failures", "counted_failures", "accepted_then")
    changes: dict[str, Any] = {name: value for name in names if isinstance(value := getattr(update, name), int)}
    return update.to, replace(each, **changes), decision.workflow


@pytest.mark.parametrize("error", COUNTED, ids=lambda error: type(error).__name__)
def test_an_outage_of_any_length_rejects_nothing(error: errors.TriggerError) -> None:
    suspect, workflow = document("a"), Workflow(workflow_id="w")
    for _ in range(100):
        status, suspect, workflow = fail(error, suspect, 7, workflow)
        assert status is Status.PENDING
    assert (suspect.failures, suspect.counted_failures) == (100, 1)


@pytest.mark.parametrize("error", COUNTED, ids=lambda error: type(error).__name__)
def test_a_poisonous_document_ends_after_five_counted_failures(
    error: errors.TriggerError,
) -> None:
    suspect = document("a")
    for number in range(1, COUNTED_FAILURES_LIMIT + 1):
        status, suspect, _ = fail(error, suspect, number)
        assert (status is Status.REJECTED) == (number == COUNTED_FAILURES_LIMIT)


@pytest.mark.parametrize("error", NEVER_ENDING, ids=lambda error: type(error).__name__)
def test_what_is_no_documents_fault_leaves_it_unchanged(error: errors.TriggerError) -> None:
    suspect = document("a")
    for number in range(50):
        status, suspect, _ = fail(error, suspect, number)
        assert status is Status.PENDING
    assert (suspect.failures, suspect.counted_failures) == (0, 0)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (errors.Busy("m"), ["before", "before"]),
        (errors.Throttled("m", 30.0), ["before", "before"]),
        (culprit("a"), [UNCHANGED, "before"]),
        (errors.OutcomeUnknown("m"), [UNCHANGED, UNCHANGED]),
    ],
)
def test_where_a_document_was_tried_is_told_by_tries_of_its_own(error: errors.TriggerError, told: list[Any]) -> None:
    """A refusal there is confirmed by another workflow; one that was busy says nothing of the document."""
    several = [document(name, workflow_id="before") for name in "ab"]
    decision = after_failure(error, Workflow(workflow_id="w"), several, given_accepted(9))
    assert [update.workflow_id for update in decision.updates] == told


@pytest.mark.parametrize("error", [*COUNTED, errors.Refused("m")], ids=lambda error: type(error).__name__)
def test_a_document_that_travelled_with_others_keeps_its_place(error: errors.TriggerError) -> None:
    several = [document(name, counted_failures=50) for name in "ab"]
    decision = after_failure(error, Workflow(workflow_id="w"), several, given_accepted(9))
    assert [(update.to, update.failures) for update in decision.updates] == [(Status.PENDING, 1)] * 2
    assert not any(isinstance(update.eligible_at, str) for update in decision.updates)


def test_refused_document_ends_at_once_until_the_workflow_is_suspected() -> None:
    workflow = Workflow(workflow_id="w")
    for number in range(REFUSALS_IN_A_ROW):
        status, _, workflow = fail(errors.Refused("m"), document(f"{number}"), 0, workflow)
        assert status is Status.REJECTED
    status, waiting, workflow = fail(errors.Refused("m"), document("next"), 0, workflow)
    assert status is Status.PENDING
    status, waiting, workflow = fail(errors.Refused("m"), waiting, 0, workflow)
    assert status is Status.PENDING, "nothing was accepted since"
    status, _, _ = fail(errors.Refused("m"), waiting, 1, workflow)
    assert status is Status.REJECTED


def test_workflow_that_refuses_everything_condemns_no_document() -> None:
    suspected = Workflow(workflow_id="w", consecutive_refusals=REFUSALS_IN_A_ROW)
    refused_here = document("a", failures=1, accepted_then=0, workflow_id="w")
    assert fail(errors.Refused("m"), refused_here, 5, suspected, pool_size=2)[0] is Status.PENDING
    refused_elsewhere = replace(refused_here, workflow_id="other")
    assert fail(errors.Refused("m"), refused_elsewhere, 5, suspected, pool_size=2)[0] is Status.REJECTED


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.ObjectGone("m"), Status.REJECTED),
        (errors.OutsidePrefix("m"), Status.REJECTED),
        (errors.ObjectOverwritten("m"), Status.SUPERSEDED),
    ],
)
def test_object_that_cannot_be_had_ends_at_once(error: errors.TriggerError, status: Status) -> None:
    assert fail(error, document("a"), 0)[0] is status


@pytest.mark.parametrize(
    ("error", "seconds"),
    [(errors.Throttled("m", 77), 77), (errors.Misconfigured("m"), 300), (errors.KeyNotSet("m"), 30)],
)
def test_workflow_is_paused_as_long_as_the_class_says(error: errors.TriggerError, seconds: float) -> None:
    _, _, workflow = fail(error, document("a"), 0)
    assert workflow.paused_until == iso(NOW + timedelta(seconds=seconds))
    assert workflow.last_error is not None
    assert workflow.last_error["type"] == type(error).__name__


def test_workflow_backs_off_longer_but_not_for_a_known_suspect() -> None:
    workflow = Workflow(workflow_id="w")
    for number in range(1, 5):
        _, _, workflow = fail(errors.NotSent("m"), document("a"), 0, workflow)
        assert workflow.consecutive_failures == number
    _, _, after = fail(errors.NotSent("m"), document("a", failures=3), 0, workflow)
    assert after.consecutive_failures == 4
    _, _, after = fail(errors.Unreachable("m"), document("a", failures=3), 0, workflow)
    assert after.consecutive_failures == 5


@given(st.integers(0, 10_000), st.floats(0, 1))
def test_backoff_grows_to_a_quarter_of_an_hour_and_is_spread(times: int, jitter: float) -> None:
    assert 0.5 <= backoff_seconds(times, jitter) <= 900
    assert backoff_seconds(times, 1.0) == min(2.0 ** min(times, 12), 900)


def test_every_class_that_can_come_back_has_a_policy() -> None:
    kinds = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, errors.TriggerError)]
    can_come_back = [
        each
        for each in kinds
        if issubclass(each, errors.SourceError | errors.PlatformError)
        and each not in {errors.SourceError, errors.PlatformError}
    ]
    assert {policy_for(each.__new__(each)) for each in can_come_back} == set(POLICIES.values())
    assert DocumentKey("s3://b/a", "e") == document("a").key


A_DOUBT, ANOTHER = DoubtKind.JOB_VANISHED, DoubtKind.NO_DETAILS


@pytest.mark.parametrize(
    ("looks", "since"),
    [
        ([(0, A_DOUBT), (10, A_DOUBT)], 0),  # nothing was looked at in between: it goes on
        ([(0, A_DOUBT), (2, ANOTHER), (4, A_DOUBT)], 0),
        ([(0, A_DOUBT), (2, ANOTHER), (10, A_DOUBT)], 5),  # it was not seen for long: a third of its patience counts
        ([(0, A_DOUBT), (2, DoubtKind.SILENCE), (7, DoubtKind.SILENCE), (8, A_DOUBT)], 3),
        ([(0, A_DOUBT), (2, ANOTHER), (4, A_DOUBT), (6, ANOTHER), (8, A_DOUBT)], 0),
    ],
)
def test_each_kind_of_doubt_has_its_own_beginning(looks: list[tuple[int, DoubtKind]], since: int) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    workflow = Workflow(workflow_id="w")
    for minute, kind in looks:
        workflow = workflow.with_doubt(kind, now + timedelta(minutes=minute))
    assert workflow.doubts[0].kind == A_DOUBT
    assert workflow.doubts[0].since == iso(now + timedelta(minutes=since))


def test_time_of_a_doubt_is_written_once_a_minute() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    first = Workflow(workflow_id="w").with_doubt(A_DOUBT, now)
    assert first.with_doubt(A_DOUBT, now + timedelta(seconds=59)) == first
    assert first.with_doubt(A_DOUBT, now + timedelta(seconds=60)).doubts[0].seen_at == iso(now + timedelta(seconds=60))


def test_a_document_that_does_not_travel_along_ends_no_batch() -> None:
    """It has failed before, and would not fit."""
    sizes = [(0, 10), (1, 1_000), (0, 10), (0, 10)]
    queue = [
        replace(document(str(place)), failures=failures, source=replace(document(str(place)).source, size_bytes=size))
        for place, (failures, size) in enumerate(sizes)
    ]
    now = datetime(2026, 1, 1, tzinfo=UTC)
    batch = next_batch(queue, Workflow(workflow_id="w"), pool_size=1, max_files=10, max_bytes=500, now=now)
    assert [each.key for each in batch] == [queue[place].key for place in (0, 2, 3)]


@pytest.mark.parametrize(
    ("status", "details", "named", "believed"),
    [
        ("COMPLETED", details_of("SUCCESS", succeeded=1, failed=0), 0, True),  # the summary is late
        ("COMPLETED", details_of("SUCCESS", succeeded=0, failed=1), 0, False),
        ("COMPLETED", details_of("COMPLETED_WITH_ERRORS"), 0, False),
        ("COMPLETED", details_of("COMPLETED_WITH_ERRORS"), 1, True),
        ("COMPLETED", details_of("COMPLETED_WITH_ERRORS", succeeded=1, failed=2), 0, False),
        ("COMPLETED", details_of("COMPLETED_WITH_ERRORS", succeeded=2, failed=1), 0, True),
        ("FAILED", details_of("FAILED"), 1, False),
        ("FAILED", details_of("FAILED", succeeded=2, failed=1), 0, True),
        ("FAILED", details_of("FAILED", succeeded=1, failed=1), 1, False),
        ("COMPLETED", details_of("FAILED", succeeded=3, failed=0), 0, False),  # what failed is something else
        ("STOPPED", details_of("STOPPED"), 0, True),
    ],
)
def test_when_a_success_is_believed(status: str, details: Details, named: int, believed: bool) -> None:
    """Two of three files are called successes."""
    answer = FileStatus(succeeded=tuple(each.upload_name for each in FIVE[:2]), is_complete=True)
    told = FileReports.of([failure(FIVE[2])][:named], answer, dict(FIVE[:3]))
    found = outcomes(job("j", status=status), details, told)
    assert [found[each.key].status == "COMPLETED" for each in FIVE[:2]] == [believed] * 2
