"""`make bench`: every measurement, its table and its picture, into `bench/results/`."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Annotated

import typer
from rich.console import Console
from rich.markdown import Markdown

from bench import burst, cost, drain, latency, relay, scale, start, work
from bench.report import RESULTS, Section, progress, save
from local.stack import Aws, LocalStackError, ministack

console = Console()


def main(
    only: Annotated[
        list[str] | None, typer.Argument(help="relay, start, work, drain, latency, burst, scale, cost; default: all.")
    ] = None,
    repeats: Annotated[int, typer.Option(help="How often what is timed is repeated.")] = 5,
) -> None:
    """Measure, and end with 1 when a figure misses its target."""
    with local_stack() as aws:
        measures: dict[str, Callable[[], Section]] = {
            "relay": lambda: relay.measure(repeats),
            "start": lambda: start.measure(repeats + 2),
            "work": lambda: work.measure(aws()),
            "drain": lambda: drain.measure(aws()),
            "latency": lambda: latency.measure(aws()),
            "burst": lambda: burst.measure(aws()),
            "scale": lambda: scale.measure(aws()),
            "cost": cost.measure,
        }
        unknown = set(only or ()) - set(measures)
        if unknown:
            raise typer.BadParameter(f"{', '.join(unknown)}: there are {', '.join(measures)}")
        sections = []
        for name in only or measures:
            progress(name)
            sections.append(measures[name]())
            save(sections[-1])
            console.print(Markdown(sections[-1].markdown()))
    console.print(f"Written to {RESULTS.parent.name}/{RESULTS.name}")
    missed = [check.what for section in sections for check in section.checks if not check.holds]
    if missed:
        console.print(f"[bold red]Targets missed:[/] {'; '.join(missed)}")
        raise typer.Exit(1)


@contextlib.contextmanager
def local_stack() -> Iterator[Callable[[], Aws]]:
    """The local stack, started when it is first asked for."""
    with contextlib.ExitStack() as ends:
        started: list[Aws] = []

        def aws() -> Aws:
            if not started:
                started.append(ends.enter_context(ministack()))
            return started[0]

        try:
            yield aws
        except LocalStackError as error:
            console.print(f"[bold red]make bench:[/] {error}")
            raise typer.Exit(1) from None


if __name__ == "__main__":
    typer.run(main)
