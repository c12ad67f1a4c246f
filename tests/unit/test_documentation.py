"""What the documentation says in tables is what the code does."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from bench.report import README, RESULTS, measured, results_page, with_figures
from local.stack import ROOT
from workflow_trigger.domain.retry import POLICIES
from workflow_trigger_cli import advice
from workflow_trigger_cli.advice import Advice

OPERATIONS = ROOT / "docs/operations.md"


def lines(entries: Mapping[Any, Advice], what: str) -> str:
    """A table of advice, as the page has it."""
    places = {
        "stack": "NAME",
        "object": "s3://BUCKET/KEY",
        "version": "VERSION",
        "set_key": "(the output SetApiKeyCommand)",
    }

    def todo(each: Advice) -> str:
        typed = f"`{each.type.format(**places)}`" if each.type else ""
        return ": ".join(filter(None, (each.do, typed))) or "nothing"

    rows = [f"| `{name}` | {each.meaning} | {todo(each)} |" for name, each in entries.items()]
    return "\n".join([f"| {what} | it means | what to type |", "|---|---|---|", *rows])


def with_tables(text: str) -> str:
    """The page, its generated parts made anew."""
    tables = {"statuses": lines(advice.OF_STATUS, "status"), "errors": lines(advice.OF_ERROR, "type")}
    for name, table in tables.items():
        before, _, rest = text.partition(f"<!-- {name} -->\n")
        _, _, after = rest.partition("<!-- end -->")
        text = f"{before}<!-- {name} -->\n{table}\n<!-- end -->{after}"
    return text


def test_tables_of_the_operators_page_are_the_advice_that_the_commands_give() -> None:
    assert OPERATIONS.read_text() == with_tables(OPERATIONS.read_text())


def failures_table() -> str:
    """The retry policies, as the page has them."""
    rows = [
        f"| `{kind.__name__}` | {(kind.__doc__ or '').rstrip('.')} | {each.documents} | {each.workflow} | {each.ends} |"
        for kind, each in POLICIES.items()
    ]
    return "\n".join(["| class | what came back | documents | workflow | end |", "|---|---|---|---|---|", *rows])


def test_page_of_failures_is_the_table_of_the_retry_policies() -> None:
    page = (ROOT / "docs/failures.md").read_text()
    assert page.partition("<!-- policies -->\n")[2].partition("\n<!-- end -->")[0] == failures_table()


def test_figures_in_the_readme_are_those_that_were_measured() -> None:
    assert README.read_text() == with_figures(README.read_text())
    assert (RESULTS / "README.md").read_text() == results_page()
    assert [section.name for section in measured()] == ["relay", "start", "work", "drain", "burst", "scale", "cost"]


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda page: page.name
)
def test_links_lead_somewhere(page: Path) -> None:
    for target in page.read_text().split("](")[1:]:
        name = target.partition(")")[0].partition("#")[0]
        if name and not name.startswith("http"):
            assert (page.parent / name).exists(), name


def test_licence_of_everything_that_runs_is_listed() -> None:
    pinned = re.findall(r"^([a-z0-9-]+)==", (ROOT / "src/requirements.txt").read_text(), re.MULTILINE)
    page = (ROOT / "docs/security.md").read_text()
    assert len(pinned) > 5
    assert [name for name in pinned if name not in page] == []
