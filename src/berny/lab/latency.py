"""End-to-end latency: from a source's complete response to its observations being returned by a query of the last sink.

The ground truth has the time at which each response was complete, and a query on a node counts the stored observations. They
are assumed to be stored in the order in which they were served: an observation counts as stored once as many are stored as
were served up to it.
"""

from __future__ import annotations

import datetime as dt
import json
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from berny.controller.progress import Say
from berny.lab import harness
from berny.lab.lab import Lab
from berny.lab.plan import LabError

QUIET_SECONDS = 5
"""How long nothing is served before a measurement."""
DRAIN_SECONDS = 15
"""How long the last observations are waited for."""
MARGIN_SECONDS = 10
QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999, "max": 1.0}


@dataclass(frozen=True)
class Latency:
    """The latencies of one run, in seconds, in ascending order."""

    rate: float
    """Observations per second."""
    seconds: float
    served: int
    latencies: Sequence[float]

    @property
    def missing(self) -> int:
        """The number of observations that were not stored in time."""
        return self.served - len(self.latencies)

    def quantiles(self) -> dict[str, float]:
        """Return the quantiles of the latency in seconds (nearest rank)."""
        last = len(self.latencies) - 1
        return {name: self.latencies[min(last, int(share * len(self.latencies)))] for name, share in QUANTILES.items()}


def served(truth: Iterable[str], run: str, since: float) -> list[float]:
    """Return when the response of each new observation of a run was complete, in Unix seconds, in ascending order.

    A source may serve an observation again, also one of an earlier run: it is stored once. One that the source has recorded
    before ``since``, a Unix time, is left out, since it is not counted.
    """
    known: set[str] = set()
    answers: dict[int, list[str]] = {}
    moments: list[float] = []
    for line in truth:
        entry = json.loads(line)
        if entry.get("served"):
            new = set(answers.pop(entry["answer"], [])) - known
            known |= new
            moments += [entry["at"]] * len(new) if entry["run"] == run else []
        elif "identity" in entry and not recorded_before(entry, since):
            answers.setdefault(entry["answer"], []).append(entry["identity"])
    return sorted(moments)


def recorded_before(entry: Mapping[str, Any], since: float) -> bool:
    """Return whether the source has recorded an observation of the ground truth before a Unix time, if it says when."""
    try:
        return dt.datetime.fromisoformat(entry["recorded_at"]).timestamp() < since
    except (KeyError, TypeError, ValueError):
        return False


def latencies(moments: Sequence[float], counted: Iterable[tuple[float, int]]) -> list[float]:
    """Return the latency of each observation that was stored, in ascending order.

    Args:
        moments: when each was served, in ascending order.
        counted: Unix times and how many were stored then, in ascending order.
    """
    found: list[float] = []
    for moment, count in counted:
        found += [moment - at for at in moments[len(found) : count]]
    return sorted(found)


def measure(lab: Lab, pipeline: str, rate: float, seconds: float, say: Say) -> Latency:
    """Serve new observations of one pipeline at a rate, and return their latencies.

    Raises:
        LabError: the sink could not be read, or nothing was served.
    """
    simulator = lab.simulators[pipeline]
    run = f"latency-{time.time():.0f}"
    say("waiting until nothing is in flight")
    simulator.ask("/_simulator/run", {"run": f"{run}-before", "rate": 0})
    time.sleep(QUIET_SECONDS)
    since = time.time() // 1 - MARGIN_SECONDS
    words = f"--since {since:.0f} --seconds {seconds + DRAIN_SECONDS + QUIET_SECONDS:.0f}"
    command = lab.ssh(harness.node(lab, pipeline), harness.command(pipeline, "count", words))
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as counting:
        try:
            time.sleep(QUIET_SECONDS)
            simulator.ask("/_simulator/run", {"run": run, "rate": rate})
            say(f"{rate:g} observations/s for {seconds:.0f} s")
            time.sleep(seconds)
        finally:
            simulator.ask("/_simulator/run", {"run": f"{run}-after", "rate": 0})
        out, error = counting.communicate(timeout=DRAIN_SECONDS + QUIET_SECONDS + 60)
    lines = [(float(moment), int(count)) for moment, count in map(str.split, out.splitlines())]
    if counting.returncode or not lines:
        raise LabError(f"{pipeline}: {(error.strip() or 'nothing was counted').splitlines()[-1]}")
    moments = served(read_lines(simulator.truth), run, since)
    if not moments:
        raise LabError(f"{pipeline}: its simulator served nothing; see {simulator.log}")
    # What was stored before is counted in the first line.
    before = lines[0][1]
    return Latency(rate, seconds, len(moments), latencies(moments, [(at, count - before) for at, count in lines]))


def read_lines(truth: Path) -> Iterator[str]:
    """Yield the lines of a simulator's ground truth."""
    with truth.open() as file:
        yield from file
