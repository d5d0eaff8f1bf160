"""``berny bench``: measurements of a lab, for docs/figures.md."""

from __future__ import annotations

from statistics import median
from typing import Annotated

import typer

from berny.controller.mapping import MarkersMissing, between
from berny.controller.progress import Steps
from berny.controller.simulate import MAX_RATE
from berny.lab import catch_up, convergence, figures, short
from berny.lab.cli import Name, as_root, console, reporting_errors
from berny.lab.convergence import Converge
from berny.lab.figures import BEGIN, END, PAGE, Sheet
from berny.lab.lab import Lab
from berny.lab.latency import QUANTILES, Latency, measure
from berny.lab.memory import uses
from berny.lab.plan import LabError

HELP = (
    "Measure a lab; each command prints its figures with machine and commit, and keeps them for `berny bench report`."
)
app = typer.Typer(no_args_is_help=True, help=HELP)
RATES = [1.0, 100.0, 1000.0]
ALL: list[str] = []
SHORT = "berny bench short"
TRIES = 2


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

    Meanwhile the pipeline's simulator serves only what is measured.
    """
    as_root()
    with reporting_errors():
        lab = Lab.existing(name)
        chosen = _simulated(lab, pipeline)
        found = []
        for one in rate:
            with (
                lab.simulators[chosen].kept(),
                Steps(console) as steps,
                steps.step(f"latency of {chosen} at {one:g}/s") as say,
            ):
                found.append(measure(lab, chosen, one, seconds, say))
    rates = "".join(f" --rate {one:g}" for one in rate)
    command = f"berny bench latency --pipeline {chosen}{rates} --seconds {seconds:g}"
    _finish(lab, command, [_latencies(found)], failed=any(one.missing for one in found))


def _simulated(lab: Lab, pipeline: str = "") -> str:
    """Return a pipeline that the lab runs on its simulator: the given one, or the first."""
    chosen = pipeline or next(iter(lab.simulators), "")
    if chosen not in lab.simulators:
        known = ", ".join(lab.simulators) or "none"
        raise LabError(f"lab {lab.plan.name} runs no simulator of {chosen or 'any pipeline'} (it runs {known})")
    return chosen


def _latencies(found: list[Latency]) -> Sheet:
    rows = []
    for one in found:
        quantiles = one.quantiles() if one.latencies else {}
        cells = [f"{1000 * quantiles[name]:.0f}" if quantiles else "" for name in QUANTILES]
        rows.append([f"{one.rate:g}/s", str(one.served), str(one.missing), *cells])
    return Sheet("end-to-end latency, ms", ["rate", "served", "not stored", *QUANTILES], rows)


@app.command(name="catch-up")
def catch_up_after(
    outage: Annotated[float, typer.Option(min=1, help="How many seconds of observations wait.")] = 3600,
    rate: Annotated[float, typer.Option(min=1, help="Observations per second during the outage.")] = 100,
    serve: Annotated[
        float, typer.Option(min=1, max=MAX_RATE, help="Observations per second that are served instead of waiting.")
    ] = catch_up.SERVED_PER_SECOND,
    stage: Annotated[list[str], typer.Option(help="Stop only this one; may be repeated.")] = ALL,
    pipeline: Annotated[str, typer.Option(help="By default the first that the lab runs on its simulator.")] = "",
    name: Name = "lab",
) -> None:
    """Measure how fast the observations of an outage are stored once the stages behind the source's topic run again.

    The time includes the start of the stages.
    """
    as_root()
    with reporting_errors():
        lab = Lab.existing(name)
        chosen = _simulated(lab, pipeline)
        with (
            lab.locked(),
            lab.simulators[chosen].kept(),
            Steps(console) as steps,
            steps.step(f"outage of {chosen}, {outage:g} s at {rate:g}/s") as say,
        ):
            found = catch_up.measure(lab, chosen, rate, outage, say, serve, stage)
    head = ["waiting", "published/s", "first stored after, s", "stored in, s", "stored/s", "times real time"]
    values = (found.published_per_second, found.first, found.seconds, found.per_second)
    row = [str(found.observations), *(f"{one:.0f}" for one in values), f"{found.times_real_time:.1f}"]
    stages = "".join(f" --stage {one}" for one in stage)
    command = f"berny bench catch-up --pipeline {chosen} --outage {outage:g} --rate {rate:g} --serve {serve:g}{stages}"
    _finish(lab, command, [Sheet("catching up", head, [row])])


@app.command()
def memory(name: Name = "lab") -> None:
    """Compare the memory that each process has now with its budget in the catalog, or in the manifest of its pipeline.

    Fails where one has more than 125 % of it. A budget also covers the applications that a service starts.
    """
    as_root()
    with reporting_errors():
        lab = Lab.existing(name)
        found = uses(lab)
    rows = [
        [use.node, use.unit, str(use.resident), str(use.budget), f"{use.ratio:.0%}{' !' if use.exceeds else ''}"]
        for use in found
    ]
    sheet = Sheet("resident memory, MiB", ["node", "unit", "resident", "budget", "share"], rows)
    _finish(lab, "berny bench memory", [sheet], failed=any(use.exceeds for use in found))


@app.command()
def converge(
    times: Annotated[int, typer.Option(min=1, help="How often it is measured.")] = 3,
    variable: Annotated[
        str, typer.Option(metavar="NAME=VALUE", help="Each time, converge with this variable, and then without it.")
    ] = "",
    tasks: Annotated[int, typer.Option(min=1, help="How many of the slowest tasks are shown.")] = 12,
    name: Name = "lab",
) -> None:
    """Measure how long site.yml takes, by task: unchanged, or with one variable changed."""
    as_root()
    options = {"unchanged": []} if not variable else {variable: ["-e", variable], f"without {variable}": []}
    found: dict[str, list[Converge]] = {title: [] for title in options}
    with reporting_errors():
        lab = Lab.existing(name)
        with lab.locked(), Steps(console) as steps:
            for number in range(times):
                for title, words in options.items():
                    with steps.step(f"site.yml, {title} ({number + 1} of {times})") as say:
                        found[title].append(convergence.measure(lab, say, *words))
    rows = []
    for title, runs in found.items():
        seconds = sorted(run.seconds for run in runs)
        cells = [f"{one:.1f}" for one in (median(seconds), seconds[0], seconds[-1])]
        rows.append([title, str(len(runs)), *cells, ", ".join(str(run.changed) for run in runs)])
    sheets = [Sheet("duration of site.yml, s", ["run", "times", "median", "from", "to", "changed tasks"], rows)]
    for title, runs in found.items():
        slowest = convergence.slowest(runs, tasks).items()
        rows = [[task, f"{one:.1f}"] for task, one in slowest]
        sheets.append(Sheet(f"slowest tasks of site.yml, {title}, s", ["task", "median"], rows))
    command = f"berny bench converge --times {times}{f' --variable {variable}' if variable else ''}"
    _finish(lab, command, sheets)


@app.command(name="short")
def short_form(
    seconds: Annotated[float, typer.Option(min=10, help="How long the latency is measured.")] = 30, name: Name = "lab"
) -> None:
    """Measure latency, an unchanged site.yml and memory in two minutes, and compare them with docs/figures.md.

    A calibration corrects for the speed of the machine. Fails if a figure is more than twice as bad.
    """
    as_root()
    with reporting_errors():
        lab = Lab.existing(name)
        chosen = _simulated(lab)
        page = short.on_page(PAGE.read_text(), SHORT)
        now: dict[str, float] = {}
        with Steps(console) as steps, lab.simulators[chosen].kept():
            # Other load on the machine can only make figures worse.
            for _ in range(TRIES):
                found = _short(lab, chosen, seconds, steps)
                now = {figure: min(value, now.get(figure, value)) for figure, value in found.items()}
                sides = short.beside(now, page)
                if not any(side.worse for side in sides):
                    break
    rows = [
        [side.name, *(f"{one:.2f}" if one is not None else "" for one in (side.now, side.page, side.ratio))]
        for side in sides
    ]
    figures.show_table(Sheet("beside docs/figures.md", ["figure", "now", "page", "ratio"], rows), console)
    sheet = Sheet("short form", ["figure", "value"], [[key, f"{value:.1f}"] for key, value in now.items()])
    _finish(lab, SHORT, [sheet], failed=any(side.worse for side in sides))


def _short(lab: Lab, pipeline: str, seconds: float, steps: Steps) -> dict[str, float]:
    found = {short.CALIBRATION: short.calibrate()}
    with steps.step(f"latency of {pipeline} at 100/s") as say:
        quantiles = measure(lab, pipeline, 100, seconds, say).quantiles()
    found |= {f"latency at 100/s, {name}, ms": 1000 * quantiles[name] for name in ("p50", "p90")}
    with lab.locked(), steps.step("site.yml, unchanged") as say:
        found["unchanged site.yml, s"] = convergence.measure(lab, say).seconds
    found["memory in total, MiB"] = sum(use.resident for use in uses(lab))
    return found


@app.command()
def report() -> None:
    """Write the newest result of each command to docs/figures.md, between its markers.

    What the page has of commands without a result on this machine stays.
    """
    found = figures.kept()
    page = PAGE.read_text()
    try:
        PAGE.write_text(between(page, BEGIN, END, figures.markdown(found, page)))
    except MarkersMissing as error:
        console.print(f"[red]error:[/] {PAGE}: {error}", highlight=False, soft_wrap=True)
        raise typer.Exit(1) from None
    console.print(f"{PAGE.name}: {len(found)} results", highlight=False)


def _finish(lab: Lab, command: str, sheets: list[Sheet], failed: bool = False) -> None:
    """Print the figures and keep them; end with 1 where what was measured is not as it has to be."""
    found = figures.of(lab, command, sheets)
    figures.show(found, console)
    figures.keep(found)
    if failed:
        raise typer.Exit(1)
