from dataclasses import replace
from typing import Any

import pytest

from tests.unit.test_model import job
from workflow_trigger.decisions import (
    STRIKES,
    Evidence,
    backoff_seconds,
    blame,
    find_named,
    find_ours,
    has_ended,
    outcomes,
    pick_batch,
)
from workflow_trigger.job import Baseline, Details, FailedFile
from workflow_trigger.model import Row, Status, Workflow
from workflow_trigger.objects import ObjectVersion, RowKey, token_of, upload_name


def row(name: str, size: int = 1, **more: Any) -> Row:
    source = ObjectVersion(
        bucket="b", key=name, version_id=None, etag="e", size_bytes=size, sequencer=None, uploaded_at=None
    )
    return Row(source=source, status=Status.PENDING, seen="s", eligible_at="2026", **more)


def pick(line: list[Row], **more: Any) -> list[str]:
    usual = {"workflow_id": "w1", "pool": ("w1", "w2"), "lost": (), "max_files": 3, "max_bytes": 100}
    arguments: dict[str, Any] = usual | more
    return [each.source.key for each in pick_batch(line, **arguments)]


A, B, C = (row(name).key for name in "abc")


# -- the batch ---------------------------------------------------------------------------------------------------------


def test_batch_is_the_oldest_rows_up_to_the_limits() -> None:
    assert pick([row("a"), row("b"), row("c"), row("d")]) == ["a", "b", "c"]
    assert pick([row("a", 60), row("b", 41), row("c")]) == ["a"]
    assert pick([row("a", 60), row("b", 40), row("c")]) == ["a", "b"]


def test_first_row_goes_whatever_its_size() -> None:
    assert pick([row("huge", 10**12), row("b")]) == ["huge"]


def test_row_that_failed_before_travels_alone() -> None:
    assert pick([row("a", failures=1), row("b")]) == ["a"]
    assert pick([row("a"), row("b", failures=1), row("c")]) == ["a", "c"]


def test_row_bound_to_another_workflow_waits_for_it_while_that_is_of_the_pool() -> None:
    line = [row("a", bound_to="w2"), row("b")]
    assert pick(line) == ["b"]
    assert pick(line, workflow_id="w2") == ["a"]
    assert pick(line, pool=("w1",)) == ["a"]


def test_row_in_which_a_lost_answer_may_turn_up_goes_with_those_alone_that_were_lost_with_it() -> None:
    line = [row("a", bound_to="w1"), row("b"), row("c", bound_to="w1"), row("d", bound_to="w1")]
    assert pick(line, lost=(A, C)) == ["a", "c"]
    assert pick(line, lost=(C,)) == ["a"]
    assert pick(line[1:], lost=(A, C)) == ["b"]


def test_nothing_waits_for_this_workflow() -> None:
    assert pick([row("a", bound_to="w2")]) == []


# -- a lost answer -----------------------------------------------------------------------------------------------------


def ours(job_id: str, *keys: RowKey) -> Any:
    ids = tuple(upload_name(key).replace(".", "-1234abcd.") for key in keys)
    return replace(job(job_id, "2026-01-01T00:00:00Z"), input_file_ids=ids)


def no_documents(_: str) -> list[str]:
    return []


def test_new_job_with_our_tokens_is_ours() -> None:
    found = find_ours([job("old"), ours("new", A, B)], Baseline(ids=frozenset({"old"})), [A, B, C], no_documents)
    assert found is not None
    # A request is accepted as a whole, even when not all of its files are shown yet.
    assert (found.job.id, found.rows, found.evidence) == ("new", (A, B, C), Evidence.TOKENS)


def test_of_several_lost_attempts_only_the_named_rows_are_in_a_job() -> None:
    found = find_named([job("old"), ours("new", A, B)], Baseline(ids=frozenset({"old"})), [A, B, C])
    assert found is not None
    assert (found.job.id, found.rows) == ("new", (A, B))
    assert find_named([job("hidden")], Baseline(), [A]) is None


def test_job_of_the_baseline_is_never_ours() -> None:
    assert find_ours([ours("old", A)], Baseline(ids=frozenset({"old"})), [A], no_documents) is None


def test_new_job_with_other_names_is_a_strangers() -> None:
    stranger = replace(job("new"), input_file_ids=("invoice-12345678.pdf",))
    assert find_ours([stranger], Baseline(), [A], no_documents) is None


def test_hidden_ids_are_looked_up_by_documents() -> None:
    found = find_ours([job("new")], Baseline(), [A], lambda _: [upload_name(A)])
    assert found is not None
    assert found.evidence is Evidence.TOKENS
    assert find_ours([job("new")], Baseline(), [A], lambda _: ["invoice.pdf"]) is None


def test_single_new_job_without_names_is_inferred_and_two_are_not() -> None:
    found = find_ours([job("new")], Baseline(), [A, B], no_documents)
    assert found is not None
    assert (found.rows, found.evidence) == ((A, B), Evidence.INFERRED)
    assert find_ours([job("new"), job("newer")], Baseline(), [A], no_documents) is None


# -- the end of a job --------------------------------------------------------------------------------------------------


def ends(status: str, processing: str, failed: list[FailedFile], *keys: RowKey) -> dict[RowKey, tuple[str, str]]:
    found = outcomes(job("j", status=status), Details(processing_status=processing, message="why"), failed, keys)
    return {key: (each.status, each.error["type"] if each.error else "") for key, each in found.items()}


def failure(key: RowKey) -> FailedFile:
    return FailedFile(document=upload_name(key), error="broken page")


@pytest.mark.parametrize(
    ("status", "processing", "expected"),
    [
        ("COMPLETED", "SUCCESS", ("COMPLETED", "")),
        ("COMPLETED", "FAILED", ("FAILED", "JobFailed")),
        ("COMPLETED", "STOPPED", ("STOPPED", "JobStopped")),
        ("COMPLETED", "COMPLETED_WITH_ERRORS", ("FAILED", "Unattributed")),
        ("FAILED", "SUCCESS", ("FAILED", "JobFailed")),
        ("FAILED", "FAILED", ("FAILED", "JobFailed")),
        ("STOPPED", "STOPPED", ("STOPPED", "JobStopped")),
        ("SOMETHING_NEW", "SUCCESS", ("COMPLETED", "")),
    ],
)
def test_completed_alone_proves_nothing(status: str, processing: str, expected: tuple[str, str]) -> None:
    assert ends(status, processing, [], A, B) == {A: expected, B: expected}


def test_only_the_failed_file_fails() -> None:
    assert ends("COMPLETED", "COMPLETED_WITH_ERRORS", [failure(A)], A, B) == {
        A: ("FAILED", "FileFailed"),
        B: ("COMPLETED", ""),
    }


def test_a_failed_file_counts_even_when_the_details_say_success() -> None:
    assert ends("COMPLETED", "SUCCESS", [failure(A)], A, B)[A] == ("FAILED", "FileFailed")


def test_failed_file_under_a_strange_name_makes_every_candidate_failed() -> None:
    strange = FailedFile(document="renamed.pdf", error="broken page")
    assert ends("COMPLETED", "COMPLETED_WITH_ERRORS", [failure(A), strange], A, B, C) == {
        A: ("FAILED", "FileFailed"),
        B: ("FAILED", "Unattributed"),
        C: ("FAILED", "Unattributed"),
    }
    assert ends("COMPLETED", "COMPLETED_WITH_ERRORS", [strange], A) == {A: ("FAILED", "FileFailed")}


def test_failed_file_of_another_row_is_that_rows_own_affair() -> None:
    others = FailedFile(document=f"c-{token_of(C)}.pdf", error="broken page")
    assert ends("COMPLETED", "COMPLETED_WITH_ERRORS", [others], A) == {A: ("COMPLETED", "")}
    assert ends("COMPLETED", "COMPLETED_WITH_ERRORS", [failure(A), others], A, B)[B] == ("COMPLETED", "")


def test_name_that_only_looks_like_a_token_is_not_another_rows() -> None:
    hashed = row("scan-0123456789abcdef.pdf").key
    cut_short = FailedFile(document="scan-0123456789abcdef", error="broken page")
    assert ends("COMPLETED", "COMPLETED_WITH_ERRORS", [cut_short], hashed, B) == {
        hashed: ("FAILED", "Unattributed"),
        B: ("FAILED", "Unattributed"),
    }


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
    assert has_ended(job("j", status=status), Details(processing_status=processing, message=None)) is ended


# -- failures ----------------------------------------------------------------------------------------------------------


def test_an_outage_of_any_length_rejects_nothing() -> None:
    workflow = Workflow(workflow_id="w", accepted_count=7)
    suspect = row("a")
    for _ in range(100):
        counted = blame(suspect, workflow, alone=True)
        assert not counted.rejects
        suspect = replace(suspect, strikes=counted.strikes, accepted_count_then=counted.accepted_count_then)
    assert suspect.strikes == 1


def test_a_poisonous_file_is_rejected_after_five_failures_between_which_others_were_accepted() -> None:
    suspect = row("a")
    for accepted in range(STRIKES):
        counted = blame(suspect, Workflow(workflow_id="w", accepted_count=accepted), alone=True)
        assert counted.rejects is (accepted == STRIKES - 1)
        suspect = replace(suspect, strikes=counted.strikes, accepted_count_then=counted.accepted_count_then)


def test_a_file_that_travelled_with_others_is_never_rejected_for_it() -> None:
    counted = blame(row("a", strikes=10), Workflow(workflow_id="w", accepted_count=1), alone=False)
    assert not counted.rejects


def test_backoff_grows_to_a_limit_and_is_spread() -> None:
    assert backoff_seconds(1, 1.0) == 2
    assert backoff_seconds(1, 0.0) == 1
    assert backoff_seconds(1_000, 1.0) == 900


def test_tokens_are_in_the_ids_that_the_platform_makes_of_the_names() -> None:
    assert token_of(A) in upload_name(A).replace(".", "")
