"""``berny bench``: measurements of a lab, for docs/figures.md."""

from __future__ import annotations

from statistics import median
from typing import Annotated

import typer
from rich.table import Table

from berny.controller.progress import Steps
from berny.lab import convergence
from berny.lab.cli import Name, as_root, console, told
from berny.lab.convergence import Converge
from berny.lab.lab import Lab
from berny.lab.latency import QUANTILES, Latency, measure
from berny.lab.measured import commit, machine
from berny.lab.memory import budgets, compare
from berny.lab.plan import LabError
from berny.lab.summary import probes
from berny.model.catalog import load_catalog
from berny.model.manifest import load_pipelines

app = typer.Typer(no_args_is_help=True, help="Measure a lab; each command prints machine and commit with its figures.")
RATES = [1.0, 100.0, 1000.0]


@app.callback()
def bench() -> None:
    """Measure a lab; each command prints machine and commit with its figures."""


@app.command()
def latency(
    rate: Annotated[
        list[float], typer.Option(min=0.1, help="Observations per second; several rates are measured in turn.")
    ] = RATES,
    seconds: Annotated[float, typer.Option(min=10, help="How long each rate is measured.")] = 300,
    pipeline: Annotated[str, typer.Option(help="By default the first that the lab runs on its simulator.")] = "",
    name: Name = "lab",
) -> None:
    """Measure the time from a source's complete response to its observations being returned by a query of the last sink.

    Meanwhile the pipeline's simulator serves only what is measured. An observation that its source says was recorded hours
    before counts as not stored, and delays those after it: measure again at another time of day.
    """
    as_root()
    with told():
        lab = Lab.existing(name)
        chosen = pipeline or next(iter(lab.simulators), "")
        if chosen not in lab.simulators:
            known = ", ".join(lab.simulators) or "none"
            raise LabError(f"lab {name} runs no simulator of {chosen or 'any pipeline'} (it runs {known})")
        found = []
        for one in rate:
            with (
                lab.simulators[chosen].kept(),
                Steps(console) as steps,
                steps.step(f"latency of {chosen} at {one:g}/s") as say,
            ):
                found.append(measure(lab, chosen, one, seconds, say))
    console.print(_table(found))
    console.print(f"{machine()}; commit {commit()}", highlight=False, soft_wrap=True)
    if any(one.missing for one in found):
        raise typer.Exit(1)


@app.command()
def memory(name: Name = "lab") -> None:
    """Compare the memory that each process has now with its budget in the catalog, or in the manifest of its pipeline.

    Fails where one has more than 125 % of it. A budget also covers the applications that a service starts.
    """
    as_root()
    with told():
        lab = Lab.existing(name)
        found = compare(probes(lab), budgets(load_catalog(), load_pipelines()))
    table = Table("node", "unit", "resident", "budget", "share", title="memory, MiB", title_justify="left")
    for use in found:
        share = f"{use.ratio:.0%}"
        row = (use.node, use.unit, str(use.resident), str(use.budget))
        table.add_row(*row, f"[red]{share}[/]" if use.exceeds else share)
    console.print(table)
    console.print(f"{machine()}; commit {commit()}", highlight=False, soft_wrap=True)
    if any(use.exceeds for use in found):
        raise typer.Exit(1)


@app.command()
def converge(
    times: Annotated[int, typer.Option(min=1, help="How often it is measured.")] = 3,
    variable: Annotated[
        str, typer.Option(metavar="NAME=VALUE", help="Each time, converge with this variable, and then without it.")
    ] = "",
    tasks: Annotated[int, typer.Option(min=0, help="How many of the slowest tasks are shown.")] = 12,
    name: Name = "lab",
) -> None:
    """Measure how long site.yml takes, by task: unchanged, or with one variable changed."""
    as_root()
    options = {"unchanged": []} if not variable else {variable: ["-e", variable], f"without {variable}": []}
    found: dict[str, list[Converge]] = {title: [] for title in options}
    with told():
        lab = Lab.existing(name)
        with lab.locked(), Steps(console) as steps:
            for number in range(times):
                for title, words in options.items():
                    with steps.step(f"site.yml, {title} ({number + 1} of {times})") as say:
                        found[title].append(convergence.measure(lab, say, *words))
    table = Table("", "runs", "median", "from", "to", "changed tasks", title="converge, s", title_justify="left")
    for title, runs in found.items():
        seconds = sorted(run.seconds for run in runs)
        figures = (f"{one:.1f}" for one in (median(seconds), seconds[0], seconds[-1]))
        table.add_row(title, str(len(runs)), *figures, ", ".join(str(run.changed) for run in runs))
    console.print(table)
    for title, runs in found.items():
        rows = Table("task", "median", title=f"slowest tasks, {title}, s", title_justify="left")
        for task, one in convergence.slowest(runs, tasks).items():
            rows.add_row(task, f"{one:.1f}")
        console.print(rows)
    console.print(f"{machine()}; commit {commit()}", highlight=False, soft_wrap=True)


def _table(found: list[Latency]) -> Table:
    table = Table("rate", "served", "not stored", *QUANTILES, title="end-to-end latency, ms", title_justify="left")
    for one in found:
        quantiles = [f"{1000 * value:.0f}" for value in one.quantiles().values()] if one.latencies else []
        table.add_row(f"{one.rate:g}/s", str(one.served), str(one.missing), *quantiles)
    return table
