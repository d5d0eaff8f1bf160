"""``berny faults``: break a lab on purpose, and prove that nothing is lost."""

from __future__ import annotations

import signal
from fnmatch import fnmatch
from typing import Annotated

import typer

from berny.controller.progress import Steps
from berny.faults import inject
from berny.faults.bench import Outcome, check_again, run_row
from berny.faults.results import PAGE, Results, commit, line, page, summary
from berny.faults.rows import Row, random_row, rows
from berny.lab.cli import Name, as_root, console, told
from berny.lab.lab import Lab
from berny.lab.plan import LabError

app = typer.Typer(no_args_is_help=True, help="Break a lab on purpose, and hold every sink against what was served.")
Rate = Annotated[float, typer.Option(min=1, max=200, help="Observations a second that the source serves.")]
Seed = Annotated[int, typer.Option(help="What is drawn, is drawn from it.")]
RATE = 40.0


@app.command("list")
def list_() -> None:
    """Show all rows: what each breaks, how long, and what has to be acknowledged meanwhile."""
    for row in rows().values():
        console.print(
            f"{row.name}: {row.about}; least {row.minimum}, fresh in {row.fresh:.0f} s", highlight=False, soft_wrap=True
        )


@app.command()
def run(
    names: Annotated[list[str], typer.Argument(help="Rows, or patterns such as 'kill-*'.")],
    name: Name = "lab",
    rate: Rate = RATE,
    seed: Seed = 1,
    resume: Annotated[bool, typer.Option(help="Leave out rows that hold already at this commit.")] = False,
) -> None:
    """Run rows, one after the other; 0 where every one of them holds."""
    as_root()
    with told():
        _finish(_run(Lab.existing(name), _chosen(names), rate, seed, resume))


@app.command("random")
def random_(
    seconds: Annotated[float, typer.Option(min=10, help="How long.")] = 600,
    name: Name = "lab",
    rate: Rate = RATE,
    seed: Seed = 1,
) -> None:
    """Break what is drawn, nothing among it, another every few seconds; then heal, and hold every sink against the truth."""
    as_root()
    with told():
        _finish(_run(Lab.existing(name), [random_row(seconds, seed)], rate, seed, False))


@app.command()
def heal(name: Name = "lab") -> None:
    """Take away whatever a bench that was killed has left on a lab."""
    as_root()
    with told(), Steps(console) as steps, steps.step("heal"):
        inject.heal_all(Lab.existing(name))


@app.command()
def report() -> None:
    """Write docs/faults.md from the outcomes of this commit."""
    of = commit()
    outcomes = Results(of).read()
    PAGE.write_text(page(of, outcomes, rows()))
    console.print(f"{PAGE.name}: {summary(list(outcomes.values()))}; commit {of}", highlight=False)


def _chosen(names: list[str]) -> list[Row]:
    known = rows()
    unknown = [name for name in names if not any(fnmatch(row, name) for row in known)]
    if unknown:
        raise LabError(f"no row is called {', '.join(unknown)}: berny faults list shows them")
    return [row for row in known.values() if any(fnmatch(row.name, name) for name in names)]


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _run(lab: Lab, chosen: list[Row], rate: float, seed: int, resume: bool) -> bool:
    results = Results(commit())
    known = results.read()
    outcomes: list[Outcome] = []
    once_more: list[Outcome] = []
    # Ended from outside, it heals as it does at Ctrl-C.
    signal.signal(signal.SIGTERM, _interrupt)
    with lab.locked():
        inject.heal_all(lab)
        for row in chosen:
            if resume and row.name in known and known[row.name].clean:
                outcomes.append(known[row.name])
                continue
            with Steps(console) as steps, steps.step(row.name) as say:
                outcome = run_row(lab, row, rate, seed, say)
            results.add(outcome)
            outcomes.append(outcome)
            console.print(line(outcome), highlight=False, soft_wrap=True)
            # What a row gave up is missed by the rows before it as well.
            once_more = [] if row.gives_up else [*once_more, outcome]
        if len(once_more) > 1:
            with Steps(console) as steps, steps.step("all of it again") as say:
                outcomes.append(check_again(lab, once_more, say))
            results.add(outcomes[-1])
            console.print(line(outcomes[-1]), highlight=False, soft_wrap=True)
    console.print(summary(outcomes), highlight=False, soft_wrap=True)
    return all(outcome.clean for outcome in outcomes)


def _finish(clean: bool) -> None:
    if not clean:
        raise typer.Exit(1)
