"""One fault case: load on all pipelines as a run of its own, a fault injected and healed, and every sink of each pipeline
compared with what its source served.
"""

from __future__ import annotations

import json
import random
import subprocess
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from berny.controller.progress import Say
from berny.faults.cases import FaultCase, heal_all
from berny.faults.watch import Watch
from berny.lab import harness
from berny.lab.lab import Lab
from berny.lab.plan import LabError

AGAIN = "again-"
STEADY_SECONDS = 3
HEALTHY_SECONDS = 300
FRESH_SECONDS = 300
SETTLE_SECONDS = 300
SETTLED_PAUSE = 3
# A response may be in flight when a case begins, and belong to it, or when the fault is injected.
SINCE_MARGIN = 60
UNDER_WAY_SECONDS = 5


@dataclass
class Outcome:
    """The outcome of a fault case for one pipeline; times in seconds."""

    case: str
    run: str
    seed: int
    rate: float
    began: float
    """Unix time."""
    pipeline: str = ""
    expected: int = 0
    acknowledged: int = 0
    """Observations that were served completely during the fault, and stored in the spool."""
    minimum: int = 0
    unspooled: int = 0
    unspooled_answers: int = 0
    """During the fault."""
    unspooled_elsewhere: int = 0
    """Responses that were not stored although there was no fault yet, or no longer."""
    unspooled_allowed: int = 0
    """Responses; see the case."""
    lost: int = 0
    duplicate: int = 0
    wrong: int = 0
    unexpected: int = 0
    given_up: int = 0
    """Observations that the sinks of one component lost, as the case permits."""
    topic_duplicates: int = 0
    """Only counted: topics are transport."""
    silence: float = 0
    """The longest time without a newer point."""
    fresh: float | None = None
    """From the healing to a point recorded after it; if nothing is healed, the longest silence."""
    fresh_bound: float = 0
    caught_up: float | None = None
    """From the healing until every sink was complete; None if that did not happen."""
    healthy: float | None = None
    """From the healing until every probe of every node was healthy, without intervention; None if that did not happen."""
    words: str = ""
    steps: list[str] = field(default_factory=list)
    """What was drawn from the seed, in order."""

    @property
    def settled(self) -> bool:
        """Return whether all sinks are complete; responses that were never stored are not expected."""
        counts = self.lost + self.duplicate + self.wrong + self.unexpected
        return not counts and not self.unspooled_elsewhere and self.unspooled_answers <= self.unspooled_allowed

    @property
    def clean(self) -> bool:
        """Return whether the case passed."""
        enough = bool(self.expected) and self.acknowledged >= self.minimum
        return self.settled and enough and None not in (self.caught_up, self.healthy)

    def as_dict(self) -> dict[str, Any]:
        """Return the outcome as JSON data."""
        return asdict(self)


def wait_for_healthy(lab: Lab, say: Say, seconds: float = HEALTHY_SECONDS) -> None:
    """Wait until every probe of every node is healthy, since a case on an unhealthy cluster proves little.

    Raises:
        LabError: they are not; the message has the first one that is not.
    """
    say("waiting for a healthy cluster")

    def ask(node: str) -> str:
        done = lab.run(node, f"sudo berny-probe --all --want healthy --wait {seconds:.0f}", seconds + 60)
        if not done.returncode:
            return ""
        lacking = [line for line in done.stdout.splitlines() if ": healthy: " not in line]
        return (lacking or [f"{node}: {done.stderr.strip()}"])[0]

    with ThreadPoolExecutor(len(lab.machines)) as pool:
        lacking = [said for said in pool.map(ask, lab.machines) if said]
    if lacking:
        raise LabError(f"after {seconds:.0f} s {lacking[0]}")


def check(lab: Lab, pipeline: str, runs: list[str], since: float) -> dict[str, Any]:
    """Compare what spools and sinks received since a Unix time with the ground truth of some runs; return the checker's JSON.

    Raises:
        LabError: a spool or a sink can't be read; the message has the last line of the output.
    """
    return harness.checked(lab, pipeline, runs, since - SINCE_MARGIN)


def load(lab: Lab, run: str, rate: float) -> None:
    """Make all sources serve new observations at a rate, as a run."""
    for simulator in lab.simulators.values():
        simulator.ask("/_simulator/run", {"run": run, "rate": rate})


@contextmanager
def load_kept(lab: Lab) -> Iterator[None]:
    """Restore the run and the rate of all sources afterwards."""
    with ExitStack() as stack:
        for simulator in lab.simulators.values():
            stack.enter_context(simulator.kept())
        yield


def served_between(lab: Lab, pipeline: str, run: str, since: float, until: float) -> int:
    """Return how many observations of a run were served completely within a time span, each counted once."""
    completed: set[int] = set()
    found: dict[str, int] = {}
    with lab.simulators[pipeline].truth.open() as truth:
        for line in truth:
            if f'"run": "{run}"' not in line:
                continue
            entry = json.loads(line)
            if entry.get("served"):
                completed.add(entry["answer"])
            elif since <= entry.get("at", 0) <= until:
                found.setdefault(entry["identity"], entry["answer"])
    return sum(1 for answer in found.values() if answer in completed)


def run_case(lab: Lab, case: FaultCase, rate: float, seed: int, say: Say) -> list[Outcome]:
    """Run a case from load to verdict; returns the outcome of each pipeline of the lab.

    Whatever happens, the lab is healed. A fault that can't be injected or healed fails the case.

    Raises:
        LabError: the lab is not healthy before, or does not recover.
    """
    wait_for_healthy(lab, say)
    began = time.time()
    run = f"{case.name}-{began:.0f}"
    outcomes = [
        Outcome(
            case.name, run, seed, rate, began, pipeline,
            minimum=case.minimum_of(pipeline),
            unspooled_allowed=case.unspooled_of(pipeline),
            fresh_bound=case.fresh,
        )
        for pipeline in lab.simulators
    ]  # fmt: skip
    try:
        with load_kept(lab):
            try:
                load(lab, run, rate)
                injected, ended, over = _break(lab, case, outcomes, seed, say)
                healed = injected if case.heals_itself else over
                load(lab, f"after-{run}", 0)
                _settle(lab, outcomes, case, (injected, over), healed, say)
                _wait_to_be_healthy(lab, outcomes, healed, say)
                for outcome in outcomes:
                    served = served_between(lab, outcome.pipeline, run, injected, ended)
                    outcome.acknowledged = max(0, served - outcome.unspooled)
            except (LabError, subprocess.TimeoutExpired) as error:
                # The other cases can still run if the lab is healthy again.
                for outcome in outcomes:
                    outcome.words = str(error)
    finally:
        heal_all(lab)
    return outcomes


def _break(lab: Lab, case: FaultCase, outcomes: list[Outcome], seed: int, say: Say) -> tuple[float, float, float]:
    """Inject and heal the fault, under load; returns the times of injection, start of healing, and end."""
    with ExitStack() as stack:
        watches = {outcome.pipeline: stack.enter_context(Watch(lab, outcome.pipeline)) for outcome in outcomes}
        now = time.time()
        for pipeline, watch in watches.items():
            if not watch.fresh_after(now, 60):
                raise LabError(
                    f"no point of {pipeline} under load before anything is broken: "
                    "berny lab status shows which stage is waiting"
                )
        time.sleep(STEADY_SECONDS)
        say(case.about)
        injected = time.time()
        case.inject(lab)
        if case.draws:
            steps, drawn = case.draws(lab, random.Random(f"{case.name}/{seed}"), say)
            for outcome in outcomes:
                outcome.steps = steps
                outcome.unspooled_allowed += drawn.get(outcome.pipeline, 0)
        _hold(say, case.hold, case.about)
        ended = time.time()
        say("healing")
        case.heal(lab)
        over = time.time()
        healed = injected if case.heals_itself else over
        say("waiting for fresh points")
        deadline = time.time() + FRESH_SECONDS
        for outcome in outcomes:
            fresh = watches[outcome.pipeline].fresh_after(healed, max(1.0, deadline - time.time()))
            outcome.fresh = fresh and round(fresh - healed, 1)
        time.sleep(STEADY_SECONDS)
        now = time.time()
        for outcome in outcomes:
            outcome.silence = round(watches[outcome.pipeline].longest_silence(injected, now), 1)
            if case.heals_itself and outcome.fresh is not None:
                # The first points after the fault may have been in flight before it.
                outcome.fresh = outcome.silence
    return injected, ended, over


def _hold(say: Say, seconds: float, words: str) -> None:
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        say(f"{words}: {left:.0f} s more")
        time.sleep(min(left, 5))


def _wait_to_be_healthy(lab: Lab, outcomes: list[Outcome], healed: float, say: Say) -> None:
    try:
        wait_for_healthy(lab, say)
    except LabError as error:
        for outcome in outcomes:
            outcome.words = str(error)
        return
    for outcome in outcomes:
        outcome.healthy = round(time.time() - healed, 1)


def _settle(
    lab: Lab, outcomes: list[Outcome], case: FaultCase, broken: tuple[float, float], healed: float, say: Say
) -> None:
    """Run the checker until every sink of each pipeline is complete, and keep its last result."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        for outcome in [one for one in outcomes if one.caught_up is None]:
            try:
                report = check(lab, outcome.pipeline, [outcome.run], outcome.began)
            except (LabError, subprocess.TimeoutExpired) as error:
                outcome.words = str(error)
                continue
            outcome.words = ""
            _count(outcome, report, broken, case.gives_up_in)
            if outcome.expected and outcome.settled:
                outcome.caught_up = round(time.time() - healed, 1)
        waiting = [one for one in outcomes if one.caught_up is None]
        if not waiting or time.monotonic() > deadline:
            return
        words = "; ".join(one.words for one in waiting if one.words)
        count = sum(one.lost for one in waiting)
        say(f"{count} observations are still in flight{': ' if words else ''}{words}")
        time.sleep(SETTLED_PAUSE)


def _count(outcome: Outcome, report: Mapping[str, Any], broken: tuple[float, float], gives_up_in: str = "") -> None:
    sinks = report["sinks"].values()
    outcome.expected, outcome.unspooled = report["expected"], report["unspooled"]
    within = [broken[0] - UNDER_WAY_SECONDS <= at <= broken[1] for at in report["unspooled_at"]]
    outcome.unspooled_answers, outcome.unspooled_elsewhere = within.count(True), within.count(False)
    outcome.topic_duplicates = sum(sink["duplicate"] for sink in sinks if sink["transport"])
    outcome.duplicate = sum(sink["duplicate"] for sink in sinks if not sink["transport"])
    for word in ("lost", "wrong", "unexpected"):
        setattr(outcome, word, sum(sink[word] for sink in sinks))
    outcome.given_up = sum(sink["lost"] for sink in sinks if gives_up_in and sink["component"] == gives_up_in)
    outcome.lost -= outcome.given_up


def check_again(lab: Lab, outcomes: list[Outcome], say: Say) -> list[Outcome]:
    """Compare everything that some cases served with the sinks again: a later fault may destroy what an earlier one left.

    Returns the outcome of each pipeline.
    """
    found = []
    with load_kept(lab):
        # Observations served while the sinks are read would be reported as unexpected.
        load(lab, f"{AGAIN}{outcomes[0].run}", 0)
        for pipeline in dict.fromkeys(outcome.pipeline for outcome in outcomes):
            found.append(_check_again(lab, [one for one in outcomes if one.pipeline == pipeline], say))
    return found


def _check_again(lab: Lab, outcomes: list[Outcome], say: Say) -> Outcome:
    first, last = outcomes[0], outcomes[-1]
    outcome = Outcome(f"{AGAIN}{first.run}", "", first.seed, first.rate, first.began, first.pipeline)
    outcome.steps = [
        f"observations of {len(outcomes)} fault cases, {first.case} to {last.case}, compared again after the last"
    ]
    # Each case has counted its own unspooled responses.
    outcome.unspooled_allowed = sum(one.unspooled_answers + one.unspooled_elsewhere for one in outcomes)
    say(outcome.steps[0])
    now = time.time()
    try:
        report = check(lab, first.pipeline, [one.run for one in outcomes], first.began)
        _count(outcome, report, (first.began, now))
        outcome.caught_up = outcome.healthy = round(time.time() - now, 1)
    except (LabError, subprocess.TimeoutExpired) as error:
        outcome.words = str(error)
    return outcome
