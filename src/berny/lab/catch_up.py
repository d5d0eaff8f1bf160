"""How fast a pipeline catches up after an outage of everything behind its source's topic."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from berny.controller.placement import spools, stage_units
from berny.controller.progress import Say
from berny.lab import harness
from berny.lab.lab import Lab
from berny.lab.latency import MARGIN_SECONDS, QUIET_SECONDS, read_lines, served
from berny.lab.plan import LabError
from berny.model import names
from berny.model.manifest import load_pipelines

SERVED_PER_SECOND = 1000
"""How fast the observations of the outage are served."""
PAUSE_SECONDS = 2
LIMIT_SECONDS = 3600
SLOW = 10
"""How many times as long as planned serving may take before it is given up."""


@dataclass(frozen=True)
class CatchUp:
    """One outage, and what came after it."""

    rate: float
    """Observations per second during the outage."""
    observations: int
    """How many were waiting when the stages were started again."""
    seconds: float
    """From that start until all of them were stored."""

    @property
    def per_second(self) -> float:
        """Return how many observations were stored per second."""
        return self.observations / self.seconds

    @property
    def times_real_time(self) -> float:
        """Return how many times as fast as they would have been served they were stored."""
        return self.per_second / self.rate


def behind(pipeline: str, groups: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """Return the nodes of each unit of a pipeline that runs all the time and has no spool, by the unit's name."""
    manifest = load_pipelines()[pipeline]
    own = {names.unit(pipeline, stage) for stage in spools(manifest, groups)}
    own |= {names.unit(pipeline, name) for name, stage in manifest.stages.items() if stage.kind == "timer"}
    return {unit: groups.get(on, []) for unit, on in stage_units({pipeline: manifest}).items() if unit not in own}


def measure(lab: Lab, pipeline: str, rate: float, outage: float, say: Say) -> CatchUp:
    """Stop the stages behind the source's topic, serve what would have come meanwhile, and start them again.

    The observations are served faster than ``rate``, so an hour's outage takes some minutes.

    Raises:
        LabError: the simulator serves too slowly, or not all was stored within an hour.
    """
    simulator = lab.simulators[pipeline]
    run, wanted = f"catch-up-{time.time():.0f}", round(rate * outage)
    units = behind(pipeline, lab.plan.groups)
    say("waiting until nothing is in flight")
    simulator.ask("/_simulator/run", {"run": f"{run}-before", "rate": 0})
    time.sleep(QUIET_SECONDS)
    since = time.time() // 1 - MARGIN_SECONDS
    before = harness.stored(lab, pipeline, since)
    try:
        _control(lab, "stop", units)
        start = simulator.ask("/_simulator/stats")["served"]
        simulator.ask("/_simulator/run", {"run": run, "rate": SERVED_PER_SECOND})
        limit = time.monotonic() + QUIET_SECONDS + SLOW * wanted / SERVED_PER_SECOND
        while (done := simulator.ask("/_simulator/stats")["served"] - start) < wanted:
            say(f"{done} of {wanted} observations served")
            if time.monotonic() > limit:
                raise LabError(f"{pipeline}: its simulator served {done} of {wanted} observations; see {simulator.log}")
            time.sleep(PAUSE_SECONDS)
        simulator.ask("/_simulator/run", {"run": f"{run}-after", "rate": 0})
        time.sleep(QUIET_SECONDS)
    finally:
        began = time.time()
        _control(lab, "start --no-block", units)
    waiting = len(served(read_lines(simulator.truth), run, since))
    while (stored := harness.stored(lab, pipeline, since) - before) < waiting:
        say(f"{stored} of {waiting} observations stored")
        if time.time() > began + LIMIT_SECONDS:
            raise LabError(f"{pipeline}: {stored} of {waiting} observations were stored in {LIMIT_SECONDS} s")
        time.sleep(PAUSE_SECONDS)
    return CatchUp(rate, waiting, time.time() - began)


def _control(lab: Lab, verb: str, units: Mapping[str, list[str]]) -> None:
    for unit, nodes in units.items():
        for node in nodes:
            done = lab.run(node, f"sudo systemctl {verb} {unit}")
            if done.returncode:
                raise LabError(f"{node}: systemctl {verb} {unit}: {done.stderr.strip()}")
