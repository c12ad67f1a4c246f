"""What checks find, and the checks that need nothing but what is known already."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from workflow_trigger.settings import Settings
from workflow_trigger_cli.platform_workflows import WorkflowInformation

# Of local-file jobs; the vendor does not say whether they hold for a run.
_RUNNING_JOBS, _FILES_OF_A_JOB, _MEGABYTES_OF_A_FILE = 5, 10, 50
_LIMITS_SOURCE = "the vendor's limits of local-file jobs"


class Health(StrEnum):
    """The result of one check."""

    OK = "ok"
    UNKNOWN = "unknown"  # cannot be checked from here
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """The result of a check. `fix` is what to type, or ''."""

    check: str
    health: Health
    says: str
    fix: str = ""


def checked(found: WorkflowInformation) -> Finding:
    """What speaks against a workflow in a pool."""
    name, called = f"workflow {found.id}", f"{found.name} (key {found.key})" if found.key else found.name
    problems = {
        "has a source connector, so it takes no files": found.has_source,
        "has a schedule, so it runs without the stack": found.is_scheduled,
        "is not active": not found.is_active,
        f"has the type {found.kind}, not custom": found.kind not in {"", "custom"},
    }
    wrong = [text for text, applies in problems.items() if applies]
    if wrong:
        says = f"{called} {'; '.join(wrong)}"
        return Finding(check=name, health=Health.FAILED, says=says, fix="workflow-trigger workflows create --name NAME")
    where = "results go to its destination, and may not be available for download" if found.has_destination else ""
    health = Health.UNKNOWN if where else Health.OK
    return Finding(check=name, health=health, says=f"{called}, without a source{where and f'; {where}'}")


def limits(settings: Settings, pool_size: int) -> Iterator[Finding]:
    """Limits that the vendor publishes for jobs with local files; whether they hold for runs is not published."""
    files, largest = settings.max_files_per_run, (settings.selection.max_bytes or 0) / 1_000_000
    says = []
    if pool_size > _RUNNING_JOBS:
        says.append(f"{pool_size} workflows: more than {_RUNNING_JOBS} jobs of an account may wait as SCHEDULED")
    if files > _FILES_OF_A_JOB:
        says.append(f"MaxFilesPerRun is {files}: a job may take only {_FILES_OF_A_JOB} files")
    if not 0 < largest <= _MEGABYTES_OF_A_FILE:
        known = f"{largest:,g}" if largest else "not set"
        says.append(f"MaxMegabytesPerFile is {known}: a file over {_MEGABYTES_OF_A_FILE} MB may be refused")
    for text in says:
        yield Finding(check="limits", health=Health.UNKNOWN, says=f"{text} ({_LIMITS_SOURCE})")
