"""`status --html`: one page that needs nothing but itself, for people without credentials."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from html import escape

from workflow_trigger.domain.clock import iso, parse_time
from workflow_trigger.domain.model import Status
from workflow_trigger_cli.commands.report import Group
from workflow_trigger_cli.commands.status import StackState, WorkflowState
from workflow_trigger_cli.views import duration

HOURS = 24
_HEIGHT, _WIDTH = 120, 30  # of the timeline, and of an hour in it, in pixels
_GOOD = (Status.COMPLETED, Status.SKIPPED, Status.SUPERSEDED)
_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; color: #1c2430;
  background: #fff }
h1 { font-size: 1.35rem; margin: 0 0 .2rem } h2 { font-size: 1.05rem; margin: 2rem 0 .5rem } p { margin: .2rem 0 }
table { border-collapse: collapse; width: 100% } td, th { padding: .3rem .6rem .3rem 0; text-align: left;
  vertical-align: top; border-bottom: 1px solid #e3e7ec } td.number, th.number { text-align: right; width: 8rem }
.dim { color: #6b7685 } .bad { color: #b3261e } .paused { color: #8a5a00 } code { overflow-wrap: anywhere }
.bar { background: #4a7bd0; height: .8rem; display: block; margin-top: .35rem } .bar.bad { background: #b3261e }
.chart { overflow-x: auto } .hour { font-size: 10px; text-anchor: middle; fill: #6b7685 }
"""


def page(state: StackState, hours: Iterable[Group]) -> str:
    """The page. `hours` are the groups of the last day, by hour."""
    at = parse_time(state.at)
    parts = [
        f"<h1>{escape(state.stack)}</h1>",
        f'<p class="dim">{escape(state.region)} · {escape(f"{at:%Y-%m-%d %H:%M:%S} UTC" if at else state.at)}</p>',
        _attention(state),
        "<h2>Documents</h2>",
        _counts(state.rows),
        f"<h2>The last {HOURS} hours</h2>",
        _timeline({group.name: group for group in hours}, at) if at else "",
        "<h2>Queue</h2>",
        _queue(state),
        "<h2>Workflows</h2>",
        _workflows(state.workflows, at),
    ]
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(state.stack)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE}</style></head><body>\n" + "\n".join(parts) + "\n</body></html>\n"
    )


def _attention(state: StackState) -> str:
    pauses = [
        f'<p class="paused">{escape(each.route or "all others") if each.route != "*" else "all routes"} paused since '
        f"{escape(each.since)}: {escape(each.reason)}</p>"
        for each in state.pauses
    ]
    if not state.attention:
        failed = sum(state.rows[each] or 0 for each in (Status.FAILED, Status.STOPPED, Status.REJECTED))
        text = (
            f"Nothing is blocked. {failed:,} documents ended without success." if failed else "Nothing needs anybody."
        )
        return "\n".join([*pauses, f"<p>{text}</p>"])
    texts = "".join(f"<li>{escape(text)}</li>" for text in state.attention)
    return "\n".join([*pauses, f'<h2 class="bad">Needs attention</h2><ul>{texts}</ul>'])


def _counts(rows: Mapping[str, int | None]) -> str:
    most = max((count or 0 for count in rows.values()), default=0) or 1
    lines = []
    for status, count in rows.items():
        shown = "?" if count is None else f"{count:,}"
        kind = "bar bad" if status in {Status.FAILED, Status.STOPPED, Status.REJECTED} else "bar"
        bar = f'<span class="{kind}" style="width:{100 * (count or 0) / most:.1f}%"></span>' if count else ""
        lines.append(f'<tr><td style="width:9rem">{status}</td><td class="number">{shown}</td><td>{bar}</td></tr>')
    note = '<p class="dim">? not counted, because the ledger is large; use --all</p>' if None in rows.values() else ""
    return f"<table>{''.join(lines)}</table>{note}"


def _timeline(hours: Mapping[str, Group], at: datetime) -> str:
    """Documents that ended, by hour: those that need nobody below, the others on top."""
    names = [iso(at - timedelta(hours=each))[:13] for each in reversed(range(HOURS))]
    most = max((hours[name].documents for name in names if name in hours), default=0)
    bars = []
    for place, name in enumerate(names):
        group = hours.get(name, Group(name))
        good = sum(group.outcomes[status] for status in _GOOD)
        heights = [_HEIGHT * count / most if most else 0 for count in (good, group.documents - good)]
        bad = group.documents - good
        title = f"{name[11:]}:00 UTC: {group.documents:,} documents, {bad:,} of them not completed"
        x = place * _WIDTH
        label = f'<text x="{x + _WIDTH / 2 - 2}" y="{_HEIGHT + 15}" class="hour">{name[11:]}</text>'
        drawn = _bar(x, _HEIGHT, heights[0], "#4a7bd0") + _bar(x, _HEIGHT - heights[0], heights[1], "#b3261e")
        bars.append(f"<g><title>{title}</title>{drawn}{label}</g>")
    total = sum(hours[name].documents for name in names if name in hours)
    figure = (
        f'<div class="chart"><svg viewBox="0 0 {HOURS * _WIDTH} {_HEIGHT + 20}" width="{HOURS * _WIDTH}" role="img" '
        f'aria-label="Documents that ended, by hour">{"".join(bars)}</svg></div>'
    )
    told = f"{total:,} documents ended; the busiest hour had {most:,}. Red: not completed. Hours are UTC."
    return f'{figure}<p class="dim">{told}</p>'


def _bar(x: float, bottom: float, height: float, colour: str) -> str:
    return f'<rect x="{x}" y="{bottom - height:.1f}" width="{_WIDTH - 4}" height="{height:.1f}" fill="{colour}"/>'


def _queue(state: StackState) -> str:
    wait = duration(state.oldest_waiting_seconds) if state.oldest_waiting_seconds else "none"
    dead = f'<span class="bad">{state.dead_letters:,}</span>' if state.dead_letters else "0"
    lines = [("longest wait", wait)]
    lines += [(escape(name or "all others"), duration(each) if each else "none") for name, each in state.routes.items()]
    lines += [("unregistered events", f"{state.unregistered_events:,}"), ("dead letters", dead)]
    return f"<table>{''.join(f'<tr><td>{name}</td><td>{value}</td></tr>' for name, value in lines)}</table>"


def _workflows(workflows: Iterable[WorkflowState], at: datetime | None) -> str:
    lines = []
    for each in workflows:
        since = parse_time(each.since)
        lasted = f" for {duration((at - since).total_seconds())}" if at and since else ""
        files = f", {each.files} files" if each.files else ""
        error = (
            f'<br><span class="bad">{escape(each.error["type"])}</span> {escape(each.error["message"])}'
            if each.error
            else ""
        )
        job = f"<br>job <code>{escape(each.job_id)}</code> {escape(each.job_status or '')}" if each.job_id else ""
        route = f" · route {escape(each.route)}" if each.route else ""
        lines.append(
            f"<tr><td><code>{escape(each.workflow_id)}</code>{route}</td><td>{escape(each.phase)}{files}{lasted}{job}{error}</td>"
            f'<td class="number">{each.accepted_count:,}</td></tr>'
        )
    return f'<table><tr><th>workflow</th><th></th><th class="number">accepted</th></tr>{"".join(lines)}</table>'
