"""How results look in a terminal."""

import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.markup import escape
from rich.table import Table

from workflow_trigger.domain.clock import parse_time
from workflow_trigger.domain.model import ALL_ROUTES, FINAL, Status
from workflow_trigger_cli.commands.backfill import Tally
from workflow_trigger_cli.commands.batches import BatchState
from workflow_trigger_cli.commands.find import Findings, Version
from workflow_trigger_cli.commands.findings import Finding, Health
from workflow_trigger_cli.commands.status import StackState, WorkflowState

_COLOURS: Mapping[str, str] = {
    Status.PENDING: "yellow",
    Status.SUBMITTING: "cyan",
    Status.SCHEDULED: "cyan",
    Status.IN_PROGRESS: "cyan",
    Status.COMPLETED: "green",
    Status.FAILED: "red",
    Status.STOPPED: "red",
    Status.REJECTED: "red",
    Status.SUPERSEDED: "dim",
    Status.SKIPPED: "dim",
}
_BAR_CHARACTERS = 48
FINAL_IN_ORDER = [each.value for each in Status if each in FINAL]
_MARKS = {Health.OK: "[green]✓[/]", Health.UNKNOWN: "[yellow]?[/]", Health.FAILED: "[bold red]✗[/]"}


@dataclass(frozen=True, slots=True)
class _Sentence:
    """A text after a mark of one character. A terminal breaks it between its words; piped, it is one line."""

    mark: str
    text: str

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = options.max_width - 2 if options.is_terminal else sys.maxsize
        lines = textwrap.wrap(visible(self.text), width, break_long_words=False, break_on_hyphens=False)
        yield f"{self.mark} {'\n  '.join(lines)}"


def duration(seconds: float) -> str:
    """A duration in at most two units: `3 min 20 s`, `2 h 5 min`, `4 d 1 h`."""
    whole = int(seconds)
    for size, name, smaller, smaller_name in ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            return f"{whole // size} {name} {whole % size // smaller} {smaller_name}"
    return f"{whole} s"


def megabytes(size_bytes: int) -> str:
    """A size with a unit that fits."""
    for size, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if size_bytes >= size:
            return f"{size_bytes / size:,.1f} {name}"
    return f"{size_bytes} bytes"


def route_name(route: str) -> str:
    """A route as people call it."""
    return {ALL_ROUTES: "all routes", "": "all others"}.get(route, visible(route))


def visible(text: object) -> str:
    """A remote text, made safe for a terminal: no control characters and no markup."""
    return escape("".join(character if character.isprintable() else ascii(character)[1:-1] for character in str(text)))


_IDLE_SHOWN = 5  # a pool may have 200 workflows, and a terminal 40 lines


# -- status ------------------------------------------------------------------------------------------------------------


def status_screen(state: StackState) -> RenderableType:
    """The stack at a glance."""
    at = parse_time(state.at)
    moment = f" · {state.region} · {at:%Y-%m-%d %H:%M:%S} UTC" if at else ""
    title = f"[bold]{visible(state.stack)}[/]{moment}"
    wait = duration(state.oldest_waiting_seconds) if state.oldest_waiting_seconds else "none"
    dead = f"[bold red]{state.dead_letters}[/]" if state.dead_letters else "0"
    queues = Table.grid(padding=(0, 2))
    queues.add_row("longest wait", wait)
    for route, seconds in state.routes.items():
        queues.add_row(f"  {route_name(route)}", duration(seconds) if seconds else "none")
    queues.add_row("unregistered events", str(state.unregistered_events))
    queues.add_row("dead letters", dead)
    parts: list[RenderableType] = [title, "", _rows_table(state.rows), "", queues, ""]
    for pause in state.pauses:
        since = parse_time(pause.since)
        lasted = f" for {duration((at - since).total_seconds())}" if at and since else ""
        parts += [f"[bold yellow]{route_name(pause.route)} paused{lasted}:[/] {visible(pause.reason)}", ""]
    idle = [each for each in state.workflows if each.phase == "idle" and not (each.error or each.not_before)]
    left_out = {each.workflow_id for each in idle[_IDLE_SHOWN:]}
    shown = [each for each in state.workflows if each.workflow_id not in left_out]
    parts += [_workflow_lines(each, at or datetime.now(UTC)) for each in shown]
    parts += [f"[dim]and {len(left_out):,} more idle workflows[/]"] if left_out else []
    if state.attention:
        parts += ["", "[bold red]Needs attention:[/]", *(f"  {visible(text)}" for text in state.attention)]
    return Group(*parts)


def batch_screen(state: BatchState) -> RenderableType:
    """A batch at a glance."""
    title = f"[bold]batch {visible(state.batch)}[/] · {state.finished:,} of {state.registered:,} final"
    done = f" · finished {state.finished_at}" if state.finished_at else ""
    return Group(title + done, "", _rows_table(state.rows))


def _rows_table(rows: Mapping[str, int | None]) -> RenderableType:
    """A bar for every status that has documents, and one line for those that have none."""
    table = Table.grid(padding=(0, 2))
    table.add_column(min_width=12)
    table.add_column(justify="right", min_width=9)
    table.add_column()
    most = max((count or 0 for count in rows.values()), default=0)
    for status, count in rows.items():
        colour = _COLOURS[status]
        if count is None:
            table.add_row(f"[dim]{status}[/]", "?")
        elif count:
            bar = "█" * max(round(_BAR_CHARACTERS * count / most), 1)
            table.add_row(f"[{colour}]{status}[/]", f"[{colour}]{count:,}[/]", f"[{colour}]{bar}[/]")
    parts: list[RenderableType] = [table]
    empty = [status for status, count in rows.items() if count == 0]
    parts += [f"[dim]no documents: {', '.join(empty)}[/]"] if empty else []
    if None in rows.values():
        parts.append("[dim]? not counted, because the ledger is large; use --all[/]")
    return Group(*parts)


def _workflow_lines(each: WorkflowState, now: datetime) -> str:
    since, until = parse_time(each.since), parse_time(each.not_before)
    colour = "dim" if each.phase == "idle" else "cyan"
    told = [f"[bold]{visible(each.workflow_id)}[/]", f"[{colour}]{each.phase}[/]"]
    told += [f"{each.files} file{'s' if each.files > 1 else ''}"] if each.files else []
    told += [f"for {duration((now - since).total_seconds())}"] if since else []
    told += [f"paused for {duration((until - now).total_seconds())}"] if until else []
    told += [f"{each.accepted_count:,} accepted"]
    told += [f"route {visible(each.route)}"] if each.route else []
    told += [] if each.is_in_pool else ["[yellow]no longer in the pool[/]"]
    lines = ["  ".join(told)]
    lines += [f"    job {visible(each.job_id)} {visible(each.job_status or '')}"] if each.job_id else []
    lines += [f"    [red]{visible(each.error['type'])}[/] {visible(each.error['message'])}"] if each.error else []
    return "\n".join(lines)


_TABLE_COLUMNS = 120  # of a report; a narrower terminal gets some lines for each group


def report_screen(lines: Sequence[Mapping[str, Any]], by: str, width: int) -> RenderableType:
    """What was processed, by group; outcomes that no group has are left out."""
    outcomes = [each for each in map(str.lower, FINAL_IN_ORDER) if lines[-1][each]]
    cells = [_report_cells(line, outcomes) for line in lines]
    if width < _TABLE_COLUMNS:
        return Group(*map(_report_lines, cells))
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column(by, overflow="fold")
    for name in list(cells[0])[1:]:
        table.add_column(name, justify="right", no_wrap=True)
    for each in cells:
        table.add_row(*each.values())
    return table


def _report_cells(line: Mapping[str, Any], outcomes: Sequence[str]) -> dict[str, str]:
    waits = {"wait p50": line["wait_p50_seconds"], "wait p95": line["wait_p95_seconds"]}
    return {
        "group": visible(line["group"]) or "(none)",
        "documents": f"{line['documents']:,}",
        "size": megabytes(line["bytes"]),
        "pages": f"{line['pages']:,}",
        "jobs": f"{line['jobs']:,}",
        **{each: f"{line[each]:,}" for each in outcomes},
        **{name: "-" if each is None else duration(each) for name, each in waits.items()},
        **({"cost": f"{line['cost']:,.2f}"} if "cost" in line else {}),
    }


def _report_lines(cells: Mapping[str, str]) -> RenderableType:
    counted = [f"{cells['documents']} documents", cells["size"], f"{cells['pages']} pages", f"{cells['jobs']} jobs"]
    others = [f"{name} {value}" for name, value in list(cells.items())[5:]]
    ended = [each for each in others if not each.startswith(("wait", "cost"))]
    lines = [counted, ended, others[len(ended) :]]
    return Group(f"[bold]{cells['group']}[/]", *(_Sentence(" ", ", ".join(each)) for each in lines if each))


# -- find --------------------------------------------------------------------------------------------------------------


def find_screen(findings: Findings) -> RenderableType:
    """All versions of an object."""
    parts: list[RenderableType] = [f"[bold]{visible(findings.object)}[/]"]
    if not findings.versions:
        parts += ["", f"[yellow]{visible(findings.meaning)}[/]", f"  → {visible(findings.todo)}"]
    for version in findings.versions:
        parts += ["", _version(version)]
    return Group(*parts)


def _version(version: Version) -> RenderableType:
    """Lines of any width, so that an address can be copied in one piece."""
    row = version.row
    facts = {**_facts(row), "means": visible(version.meaning)}
    if version.todo:
        facts["to fix"] = f"[bold]{visible(version.todo)}[/]"
    lines = [f"[bold {_COLOURS[row['status']]}]{row['status']}[/]  version {visible(row['version'])}"]
    lines += [f"  [dim]{name:<9}[/] {line}" for name, text in facts.items() for line in text.splitlines()]
    return "\n".join(lines)


def _facts(row: Mapping[str, Any]) -> dict[str, str]:
    error = row.get("error")
    size = row.get("size")
    job = f"{visible(row['job_id'])} {visible(row.get('job_status', ''))}" if "job_id" in row else ""
    results = [f"s3://{entry['bucket']}/{entry['key']}" for entry in row.get("results", []) if "key" in entry]
    results += [f"missing: {entry['missing']}" for entry in row.get("results", []) if "missing" in entry]
    return {
        "uploaded": f"{visible(row.get('uploaded_at', ''))}  {megabytes(int(size))}" if size is not None else "",
        "changed": str(row["updated_at"]),
        "forgotten": str(row.get("forgotten_at", "")),
        "job": job,
        "batch": visible(row.get("batch", "")),
        "workflow": visible(f"{row.get('workflow_name') or ''} {row.get('workflow_id') or ''}".strip()),
        "error": f"[red]{visible(error['type'])}[/] {visible(error['message'])}" if error else "",
        "results": "\n".join(map(visible, results)),
        "earlier": "\n".join(map(_run, reversed(row.get("runs", [])))),
    }


def _run(run: Mapping[str, Any]) -> str:
    error = run.get("error") or {}
    text = f"{run.get('status', '')}  job {run.get('job_id', '-')}  {run.get('updated_at', '')}"
    return visible(f"{text}  {error.get('type', '')} {error.get('message', '')}".rstrip())


# -- doctor, backfill --------------------------------------------------------------------------------------------------


def finding_line(finding: Finding) -> RenderableType:
    """A check on one line, and on the next its fix, which can be copied in one piece."""
    line = _Sentence(_MARKS[finding.health], f"{finding.check}: {finding.says}")
    return Group(line, f"    [bold]{visible(finding.fix)}[/]") if finding.fix else line


def tally_line(tally: Tally) -> str:
    """The progress of a backfill."""
    skipped = f", {tally.skipped:,} skipped" if tally.skipped else ""
    expired = f", {tally.expired:,} possibly expired" if tally.expired else ""
    before = f" ({tally.skipped_before:,} of them SKIPPED, and wanted now)" if tally.skipped_before else ""
    return (
        f"{tally.listed:,} listed{skipped}, {tally.known:,} known{before}{expired}, "
        f"[bold]{tally.new:,} new[/] ({megabytes(tally.new_bytes)})"
    )
