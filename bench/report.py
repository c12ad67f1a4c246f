"""Tables, verdicts and plots: `bench/results/`."""

import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parent.parent / "docs/benchmarks.md"
_ORDER = ("relay", "start", "work", "drain", "latency", "burst", "scale", "cost")
_INTRODUCTION = """# Measured

Written by `make bench`. All that is compared ran side by side in one run on one machine: the ratios hold elsewhere, the
absolute figures do not.

"""
_BEGIN, _END = "<!-- measured -->", "<!-- end of measured -->"


@dataclass(frozen=True, slots=True)
class Check:
    """A figure and its target."""

    what: str
    figure: float
    limit: float
    at_most: bool = True

    @property
    def holds(self) -> bool:
        """Whether it is there."""
        return self.figure <= self.limit if self.at_most else self.figure >= self.limit

    @property
    def line(self) -> str:
        """The cells of its row in a table."""
        bound = "at most" if self.at_most else "at least"
        mark = "yes" if self.holds else "**no**"
        return f"{self.what} | {self.figure:.3g} | {bound} {self.limit:g} | {mark}"


@dataclass(slots=True)
class Section:
    """One measurement: a table, what it proves, and how it was taken."""

    name: str
    title: str
    how: str
    header: Sequence[str]
    rows: list[Sequence[str]] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)
    picture: str | None = None

    def markdown(self) -> str:
        """The section as the page shows it."""
        lines = [f"## {self.title}", "", self.how, ""]
        lines += [f"| {' | '.join(self.header)} |", f"|{'---|' * len(self.header)}"]
        lines += [f"| {' | '.join(row)} |" for row in self.rows]
        if self.checks:
            lines += ["", "| figure | measured | target | met |", "|---|---|---|---|"]
            lines += [f"| {each.line} |" for each in self.checks]
        if self.picture:
            lines += ["", f"![{self.title}]({self.picture})"]
        return "\n".join([*lines, ""])


def progress(text: str) -> None:
    """Say what is being measured, since it takes minutes."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S')}  {text}\n")
    sys.stderr.flush()


def save(section: Section) -> None:
    """Write a section's data, and the pages from all that are there."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{section.name}.json").write_text(json.dumps(asdict(section), indent=1) + "\n")
    (RESULTS / "README.md").write_text(results_page())
    PAGE.write_text(with_figures(PAGE.read_text()))


def measured() -> list[Section]:
    """What has been measured, as it was written down."""
    found = [path for name in _ORDER if (path := RESULTS / f"{name}.json").is_file()]
    return [_loaded(json.loads(path.read_text())) for path in found]


def results_page() -> str:
    """All sections."""
    return _INTRODUCTION + "\n".join(section.markdown() for section in measured())


def with_figures(page: str) -> str:
    """The page of benchmarks, with the figures that have been measured."""
    lines = ["| part | figure | measured | target | met |", "|---|---|---|---|---|"]
    lines += [f"| `{section.name}` | {check.line} |" for section in measured() for check in section.checks]
    before, _, rest = page.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    return f"{before}{_BEGIN}\n" + "\n".join(lines) + f"\n{_END}{after}"


def _loaded(section: Mapping[str, Any]) -> Section:
    return Section(**{**section, "checks": [Check(**check) for check in section["checks"]]})


def plot(name: str, draw: Any) -> str:
    """Draw a picture; `draw` gets matplotlib's axes. Returns its file name."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = name
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7.5, 3.6), layout="constrained")
    draw(axes)
    axes.spines[["top", "right"]].set_visible(False)
    RESULTS.mkdir(exist_ok=True)
    figure.savefig(RESULTS / f"{name}.svg", metadata={"Date": None})
    pyplot.close(figure)
    return f"{name}.svg"
