"""One row: load with a run of its own, something broken and healed, and every sink held against what was served."""

from __future__ import annotations

import json
import random
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

from berny.controller.progress import Say
from berny.faults import inject
from berny.faults.rows import Row
from berny.faults.watch import Watch
from berny.lab.lab import Lab
from berny.lab.plan import LabError
from berny.model.manifest import load_pipelines
from berny.model.topology import read_mapping

PIPELINE = "idfm"
AGAIN = "again-"
STEADY_SECONDS = 3
WHOLE_SECONDS = 300
FRESH_SECONDS = 300
SETTLE_SECONDS = 300
SETTLED_PAUSE = 3
# An answer may be under way as a row begins, and belong to it; or as something is broken.
SINCE_MARGIN = 60
UNDER_WAY_SECONDS = 5


@dataclass
class Outcome:
    """What a row has shown; times in seconds."""

    row: str
    run: str
    seed: int
    rate: float
    began: float
    """Unix time."""
    expected: int = 0
    acknowledged: int = 0
    """Observations that were served whole while the fault held, and kept."""
    minimum: int = 0
    unspooled: int = 0
    unspooled_answers: int = 0
    """While something was broken."""
    unspooled_elsewhere: int = 0
    """Answers that were not kept though nothing was broken, yet or any more."""
    unspooled_allowed: int = 0
    """Answers; see the row."""
    lost: int = 0
    duplicate: int = 0
    wrong: int = 0
    unexpected: int = 0
    given_up: int = 0
    """Observations that HDFS has no more where the row says that it can't."""
    topic_duplicates: int = 0
    """Counted, and no more: topics are transport."""
    silence: float = 0
    """The longest time without a newer point."""
    fresh: float | None = None
    """From the healing to a point recorded after it; where nobody heals, the longest silence."""
    fresh_bound: float = 0
    caught_up: float | None = None
    """From the healing until every sink held everything; None if that did not happen."""
    whole: float | None = None
    """From the healing until every probe of every node said whole, nobody touching anything; None if that did not happen."""
    words: str = ""
    steps: list[str] = field(default_factory=list)
    """What was drawn from the seed, in its order."""

    @property
    def settled(self) -> bool:
        """Tell whether all sinks agree; answers that were never kept come no more."""
        counts = self.lost + self.duplicate + self.wrong + self.unexpected
        return not counts and not self.unspooled_elsewhere and self.unspooled_answers <= self.unspooled_allowed

    @property
    def clean(self) -> bool:
        """Tell whether the row holds."""
        enough = bool(self.expected) and self.acknowledged >= self.minimum
        return self.settled and enough and None not in (self.caught_up, self.whole)

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return asdict(self)


def wait_for_whole(lab: Lab, say: Say, seconds: float = WHOLE_SECONDS) -> None:
    """Wait until every probe of every node says whole: a row that begins, or ends, on half a cluster proves little.

    Raises:
        LabError: the message has the first probe that does not.
    """
    say("waiting for a whole cluster")

    def ask(node: str) -> str:
        done = lab.run(node, f"sudo berny-probe --all --want whole --wait {seconds:.0f}", seconds + 60)
        if not done.returncode:
            return ""
        lacking = [line for line in done.stdout.splitlines() if ": whole: " not in line]
        return (lacking or [f"{node}: {done.stderr.strip()}"])[0]

    with ThreadPoolExecutor(len(lab.machines)) as pool:
        lacking = [said for said in pool.map(ask, lab.machines) if said]
    if lacking:
        raise LabError(f"after {seconds:.0f} s {lacking[0]}")


def check(lab: Lab, runs: list[str], since: float) -> dict[str, Any]:
    """Hold what spool and sinks got since a Unix time against the truth of some runs; returns the checker's JSON.

    Raises:
        LabError: the spool or a sink does not tell what it holds; the message has the last line.
    """
    groups = read_mapping()
    margin = f"--since {since - SINCE_MARGIN:.0f}"
    python = f"{inject.PYTHON} -m berny.pipelines.{PIPELINE}"
    kept = inject.shell(lab, groups[load_pipelines()[PIPELINE].stages["producer"].on][0], f"{python}.spooled {margin}")
    told = lab.simulator.truth.read_text() + kept
    words = " ".join(f"--run {run}" for run in runs)
    checking = lab.ssh(groups["influxdb"][0], f"{python}.check --truth - {words} {margin} --json")
    done = subprocess.run(checking, input=told, capture_output=True, text=True, timeout=180)
    if not done.stdout.startswith("{"):
        raise LabError((done.stderr.strip() or "the checker says nothing").splitlines()[-1])
    return dict(json.loads(done.stdout))


def served_between(lab: Lab, run: str, since: float, until: float) -> int:
    """Return how many observations of a run were served whole within a span of time, each counted once."""
    whole: set[int] = set()
    found: dict[str, int] = {}
    with lab.simulator.truth.open() as truth:
        for line in truth:
            if f'"run": "{run}"' not in line:
                continue
            entry = json.loads(line)
            if entry.get("served"):
                whole.add(entry["answer"])
            elif since <= entry.get("at", 0) <= until:
                found.setdefault(entry["identity"], entry["answer"])
    return sum(1 for answer in found.values() if answer in whole)


def run_row(lab: Lab, row: Row, rate: float, seed: int, say: Say) -> Outcome:
    """Run a row from load to verdict; whatever happens, the lab is healed. What can't be broken or healed fails the row.

    Raises:
        LabError: the lab is not whole before, or does not come back.
    """
    wait_for_whole(lab, say)
    began = time.time()
    run = f"{row.name}-{began:.0f}"
    outcome = Outcome(row.name, run, seed, rate, began, minimum=row.minimum, fresh_bound=row.fresh)
    outcome.unspooled_allowed = row.unspooled
    ask = lab.simulator.ask
    served = ask("/_simulator/stats")
    try:
        ask("/_simulator/run", {"run": run, "rate": rate})
        with Watch(lab, PIPELINE) as watch:
            if not watch.fresh_after(time.time(), 60):
                raise LabError(
                    "no point under load before anything is broken: berny lab status shows which stage waits"
                )
            time.sleep(STEADY_SECONDS)
            say(row.about)
            injected = time.time()
            row.inject(lab)
            if row.draws:
                outcome.steps, drawn = row.draws(lab, random.Random(f"{row.name}/{seed}"), say)
                outcome.unspooled_allowed += drawn
            _hold(say, row.hold, row.about)
            ended = time.time()
            say("healing")
            row.heal(lab)
            over = time.time()
            healed = injected if row.heals_itself else over
            say("waiting for fresh points")
            fresh = watch.fresh_after(healed, FRESH_SECONDS)
            outcome.fresh = fresh and round(fresh - healed, 1)
            time.sleep(STEADY_SECONDS)
            outcome.silence = round(watch.longest_silence(injected, time.time()), 1)
            if row.heals_itself and outcome.fresh is not None:
                # The first points after the fault may have been under way before it.
                outcome.fresh = outcome.silence
        ask("/_simulator/run", {"run": f"after-{run}", "rate": 0})
        _settle(lab, outcome, row, (injected, over), healed, say)
        try:
            wait_for_whole(lab, say)
            outcome.whole = round(time.time() - healed, 1)
        except LabError as error:
            outcome.words = str(error)
        outcome.acknowledged = max(0, served_between(lab, run, injected, ended) - outcome.unspooled)
    except (LabError, subprocess.TimeoutExpired) as error:
        # The other rows can be run all the same, if the lab is whole again.
        outcome.words = str(error)
    finally:
        ask("/_simulator/run", {"run": served["run"], "rate": served["rate"]})
        inject.heal_all(lab)
    return outcome


def _hold(say: Say, seconds: float, words: str) -> None:
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        say(f"{words}: {left:.0f} s more")
        time.sleep(min(left, 5))


def _settle(lab: Lab, outcome: Outcome, row: Row, broken: tuple[float, float], healed: float, say: Say) -> None:
    """Ask the checker until every sink holds what it should, and keep what it said last."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        try:
            report = check(lab, [outcome.run], outcome.began)
        except (LabError, subprocess.TimeoutExpired) as error:
            report, outcome.words = {}, str(error)
        if report:
            outcome.words = ""
            _count(outcome, report, broken)
            outcome.given_up = report["sinks"]["hdfs"]["lost"] if row.gives_up else 0
            outcome.lost -= outcome.given_up
            if outcome.expected and outcome.settled:
                outcome.caught_up = round(time.time() - healed, 1)
                return
        if time.monotonic() > deadline:
            return
        say(f"{outcome.lost} observations are still on their way{': ' if outcome.words else ''}{outcome.words}")
        time.sleep(SETTLED_PAUSE)


def _count(outcome: Outcome, report: dict[str, Any], broken: tuple[float, float]) -> None:
    sinks = report["sinks"]
    outcome.expected, outcome.unspooled = report["expected"], report["unspooled"]
    within = [broken[0] - UNDER_WAY_SECONDS <= at <= broken[1] for at in report["unspooled_at"]]
    outcome.unspooled_answers, outcome.unspooled_elsewhere = within.count(True), within.count(False)
    transport = [name for name in sinks if name.startswith(f"{PIPELINE}-")]
    outcome.topic_duplicates = sum(sinks[name]["duplicate"] for name in transport)
    outcome.duplicate = sum(sink["duplicate"] for name, sink in sinks.items() if name not in transport)
    for word in ("lost", "wrong", "unexpected"):
        setattr(outcome, word, sum(sink[word] for sink in sinks.values()))


def check_again(lab: Lab, outcomes: list[Outcome], say: Say) -> Outcome:
    """Hold what some rows served, all of it, against the sinks once more: a later fault may take what an earlier one left."""
    first, last = outcomes[0], outcomes[-1]
    outcome = Outcome(f"{AGAIN}{first.run}", "", first.seed, first.rate, first.began)
    outcome.steps = [f"what {len(outcomes)} rows served, {first.row} to {last.row}, held once more after the last"]
    # Each row has judged its own.
    outcome.unspooled_allowed = sum(one.unspooled_answers + one.unspooled_elsewhere for one in outcomes)
    say(outcome.steps[0])
    now = time.time()
    ask = lab.simulator.ask
    served = ask("/_simulator/stats")
    # What is served while the sinks are read would be unexpected in them.
    ask("/_simulator/run", {"run": outcome.row, "rate": 0})
    try:
        _count(outcome, check(lab, [one.run for one in outcomes], first.began), (first.began, now))
        outcome.caught_up = outcome.whole = round(time.time() - now, 1)
    except (LabError, subprocess.TimeoutExpired) as error:
        outcome.words = str(error)
    finally:
        ask("/_simulator/run", {"run": served["run"], "rate": served["rate"]})
    return outcome
