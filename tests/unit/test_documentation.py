"""What the documentation says in tables is what the code does."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from bench.report import PAGE, RESULTS, measured, results_page, with_figures
from local.pictures import pictures
from local.stack import ROOT
from tests.integration.harness import template
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


def test_tables_of_the_operators_page_are_the_advice_of_the_commands() -> None:
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


def test_figures_of_the_benchmarks_are_those_that_were_measured() -> None:
    assert PAGE.read_text() == with_figures(PAGE.read_text())
    assert (RESULTS / "README.md").read_text() == results_page()
    assert [section.name for section in measured()] == [
        "relay",
        "start",
        "work",
        "drain",
        "latency",
        "burst",
        "scale",
        "cost",
    ]


def parameters_table() -> str:
    """The parameters of the template, by their groups, as the page has them."""
    found = template()
    rows = []
    for group in found["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]:
        rows += ["", f"## {group['Label']['default']}", "", "| parameter | default | meaning |", "|---|---|---|"]
        for name in group["Parameters"]:
            parameter = found["Parameters"][name]
            default = f"`{parameter['Default']}`" if parameter.get("Default", "") != "" else ""
            allowed = " to ".join(str(parameter[each]) for each in ("MinValue", "MaxValue") if each in parameter)
            meaning = parameter["Description"].strip() + (f" ({allowed})" if allowed else "")
            rows.append(f"| `{name}` | {default} | {meaning} |")
    return "\n".join(rows).strip()


def test_page_of_parameters_is_made_from_the_template() -> None:
    page = (ROOT / "docs/parameters.md").read_text()
    assert page.partition("<!-- parameters -->\n")[2].partition("\n<!-- end -->")[0] == parameters_table()


PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md")), RESULTS / "README.md"]


def anchors_of(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_anchors_lead_somewhere(page: Path) -> None:
    for target in page.read_text().split("](")[1:]:
        name, _, anchor = target.partition(")")[0].partition("#")
        if name.startswith("http"):
            continue
        other = page.parent / name if name else page
        assert other.exists(), name
        assert not anchor or anchor in anchors_of(other), f"{name}#{anchor}"


def test_pictures_show_what_the_commands_print() -> None:
    for path, svg in pictures().items():
        assert path.read_text() == svg, f"{path.name}: make pictures"


# Words of earlier releases, for which docs/glossary.md has others. Not here: attributes of the ledger.
OLD_WORDS = (
    r"AttemptLost|LostRows|find_named|find_ours|token_of|blame\w*|put_off|_set_back|keep_lease|sweep\w*|Follower",
    r"strays|mates|strangers?|[Nn]otices?|announce\w*|Announcer|refusal_of|reason_of|harmless|hidden_in",
    r"OutOfTime|mends?|mended|beside|TypedWrongly|OpsError|UNSURE|held_by|leash\w*|way out|meanwhile|taken for",
    r"by itself",
    r"World|Gate|judge",
)
ALIASES = {"advice.py": {"OutOfTime"}}


def test_words_of_earlier_releases_are_gone() -> None:
    pattern = re.compile(rf"\b({'|'.join(OLD_WORDS)})\b")
    sources = [path for folder in ("src", "local", "bench") for path in (ROOT / folder).rglob("*.py")]
    pages = [page for page in PAGES if page.name != "CHANGELOG.md"]
    found = {
        f"{path.relative_to(ROOT)}: {word}"
        for path in [*sources, *pages, ROOT / "template.yaml"]
        for word in pattern.findall(path.read_text())
        if word not in ALIASES.get(path.name, set())
    }
    assert found == set()


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 170


def test_licence_of_everything_that_runs_is_listed() -> None:
    pinned = re.findall(r"^([a-z0-9-]+)==", (ROOT / "src/requirements.txt").read_text(), re.MULTILINE)
    page = (ROOT / "SECURITY.md").read_text()
    assert len(pinned) > 5
    assert [name for name in pinned if name not in page] == []
