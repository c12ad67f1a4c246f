"""What the documentation says in tables is what the code does."""

import re
import tomllib
from pathlib import Path

import pytest

from bench.report import PAGE, RESULTS, measured, results_page, with_figures
from local import docs
from local.pictures import pictures
from local.stack import ROOT
from local.template import template
from workflow_trigger import __version__


def test_tables_of_the_pages_are_made_from_the_code_and_the_template() -> None:
    for path, text in docs.pages().items():
        assert path.read_text() == text, f"{path.name}: make docs"


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


def test_version_is_the_same_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    published = template()["Metadata"]["AWS::ServerlessRepo::Application"]["SemanticVersion"]
    assert {project["version"], published} == {__version__}
    assert f"unstructured_workflow_trigger-{__version__}-" in (ROOT / "docs/deploying.md").read_text()
    assert re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[0] == __version__


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 170


def test_licence_of_everything_that_runs_is_listed() -> None:
    pinned = re.findall(r"^([a-z0-9-]+)==", (ROOT / "src/requirements.txt").read_text(), re.MULTILINE)
    page = (ROOT / "SECURITY.md").read_text()
    assert len(pinned) > 5
    assert [name for name in pinned if name not in page] == []
