"""``berny faults``: inject faults into a lab, and prove that nothing is lost."""

from __future__ import annotations

import signal
from fnmatch import fnmatch
from typing import Annotated

import typer

from berny.controller.progress import Steps
from berny.faults.bench import Outcome, check_again, run_case
from berny.faults.cases import FaultCase, fault_cases, heal_all, random_case
from berny.faults.results import PAGE, Results, line, page, several, summary
from berny.faults.targets import Targets, load_targets, targets_of
from berny.lab.cli import Name, as_root, console, reporting_errors
from berny.lab.lab import Lab
from berny.lab.measured import commit
from berny.lab.plan import LabError, load_plan

app = typer.Typer(no_args_is_help=True, help="Inject faults into a lab, and compare every sink with what was served.")
Rate = Annotated[float, typer.Option(min=1, max=200, help="Observations per second that each source serves.")]
Seed = Annotated[int, typer.Option(help="Seed of random choices.")]
RATE = 40.0


@app.command("list")
def list_(name: Name = "lab") -> None:
    """List all fault cases, with what has to be acknowledged during each and how soon points have to be fresh again."""
    for case in fault_cases(_targets(name)).values():
        words = f"{case.name}: {case.about}; at least {case.minimum} acknowledged, fresh in {case.fresh:.0f} s"
        console.print(words, highlight=False, soft_wrap=True)


@app.command()
def run(
    names: Annotated[list[str], typer.Argument(help="Fault cases, or patterns such as 'kill-*'.")],
    name: Name = "lab",
    rate: Rate = RATE,
    seed: Seed = 1,
    resume: Annotated[bool, typer.Option(help="Skip cases that have already passed at this commit.")] = False,
) -> None:
    """Run fault cases, one after the other; exits with 0 if all of them pass."""
    as_root()
    with reporting_errors():
        lab = Lab.existing(name)
        _finish(_run(lab, _chosen(names, targets_of(lab.plan)), rate, seed, resume))


@app.command("random")
def random_(
    seconds: Annotated[float, typer.Option(min=10, help="Duration in seconds.")] = 600,
    name: Name = "lab",
    rate: Rate = RATE,
    seed: Seed = 1,
) -> None:
    """Inject random faults every few seconds; then heal, and compare every sink with the ground truth."""
    as_root()
    with reporting_errors():
        lab = Lab.existing(name)
        _finish(_run(lab, [random_case(seconds, seed, targets_of(lab.plan))], rate, seed, False))


@app.command()
def heal(name: Name = "lab") -> None:
    """Remove everything that a killed bench left on a lab."""
    as_root()
    with reporting_errors(), Steps(console) as steps, steps.step("heal"):
        heal_all(Lab.existing(name))


@app.command()
def report(name: Name = "lab") -> None:
    """Write docs/faults.md from the outcomes of this commit."""
    of = commit()
    outcomes = Results(of).read()
    PAGE.write_text(page(of, outcomes, fault_cases(_targets(name))))
    console.print(f"{PAGE.name}: {summary(outcomes)}; commit {of}", highlight=False)


def _targets(name: str) -> Targets:
    plan = load_plan(name)
    return targets_of(plan) if plan else load_targets()


def _chosen(names: list[str], targets: Targets) -> list[FaultCase]:
    known = fault_cases(targets)
    unknown = [name for name in names if not any(fnmatch(case, name) for case in known)]
    if unknown:
        raise LabError(f"there is no fault case {', '.join(unknown)}: berny faults list shows them")
    return [case for case in known.values() if any(fnmatch(case.name, name) for name in names)]


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _run(lab: Lab, chosen: list[FaultCase], rate: float, seed: int, resume: bool) -> bool:
    results = Results(commit())
    known: dict[str, list[Outcome]] = {}
    for outcome in results.read():
        if outcome.pipeline in lab.simulators:
            known.setdefault(outcome.case, []).append(outcome)
    outcomes: list[Outcome] = []
    once_more: list[Outcome] = []
    # On SIGTERM, heal the lab as on Ctrl-C.
    signal.signal(signal.SIGTERM, _interrupt)
    with lab.locked():
        heal_all(lab)
        for case in chosen:
            held = [outcome for outcome in known.get(case.name, []) if outcome.clean]
            if resume and len(held) == len(lab.simulators):
                outcomes += held
                continue
            with Steps(console) as steps, steps.step(case.name) as say:
                shown = run_case(lab, case, rate, seed, say)
            _keep(results, shown)
            outcomes += shown
            # What a case gave up is also missing for the cases before it.
            once_more = [] if case.gives_up else [*once_more, *shown]
        if len({outcome.case for outcome in once_more}) > 1:
            with Steps(console) as steps, steps.step("final comparison") as say:
                shown = check_again(lab, once_more, say)
            _keep(results, shown)
            outcomes += shown
    console.print(summary(outcomes), highlight=False, soft_wrap=True)
    return all(outcome.clean for outcome in outcomes)


def _keep(results: Results, outcomes: list[Outcome]) -> None:
    for outcome in outcomes:
        results.add(outcome)
        console.print(line(outcome, several(outcomes)), highlight=False, soft_wrap=True)


def _finish(clean: bool) -> None:
    if not clean:
        raise typer.Exit(1)
