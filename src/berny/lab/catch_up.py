"""How fast a pipeline catches up after an outage of everything behind its source's topic."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from berny.controller.placement import spools
from berny.controller.progress import Say
from berny.lab import harness
from berny.lab.lab import Lab
from berny.lab.latency import MARGIN_SECONDS, QUIET_SECONDS, read_lines, served
from berny.lab.plan import LabError
from berny.model import names
from berny.model.manifest import load_pipelines

SERVED_PER_SECOND = 1000
"""How fast the observations of the outage are served by default."""
PAUSE_SECONDS = 2
LAG = "berny_lag_records"
LIMIT_SECONDS = 3600
WAITING = f"""python3 -c '
import urllib.request
lines = urllib.request.urlopen("http://127.0.0.1:{{}}/metrics", timeout=5).read().decode().splitlines()
print(*(line.split()[-1] for line in lines if line.startswith("{LAG} ")))
'"""
"""Prints the metric of the stage at a port."""
SLOW = 10
"""How many times as long as planned serving may take before it is given up."""


@dataclass(frozen=True)
class CatchUp:
    """One outage, and what came after it."""

    rate: float
    """Observations per second during the outage."""
    observations: int
    """How many were waiting when the stages were started again."""
    published_in: float
    """Seconds from the first response until the source's topic had all of them."""
    first: float
    """Seconds from the start of the stages until one of them was stored."""
    seconds: float
    """From that start until all of them were stored."""

    @property
    def published_per_second(self) -> float:
        """Return how many observations were polled and published per second, at most what the source served."""
        return self.observations / self.published_in

    @property
    def per_second(self) -> float:
        """Return how many observations were stored per second."""
        return self.observations / self.seconds

    @property
    def times_real_time(self) -> float:
        """Return how many times as fast as they would have been served they were stored."""
        return self.per_second / self.rate


def behind(pipeline: str, groups: Mapping[str, list[str]], chosen: Collection[str] = ()) -> dict[str, list[str]]:
    """Return the nodes of each unit of a pipeline that runs all the time and has no spool, by the unit's name.

    Args:
        pipeline: the pipeline's name.
        groups: the nodes of each inventory group.
        chosen: only these stages, if any are named.

    Raises:
        LabError: a chosen stage is none of those.
    """
    manifest = load_pipelines()[pipeline]
    polling = spools(manifest, groups)
    found = {
        name: groups.get(stage.on, [])
        for name, stage in manifest.stages.items()
        if stage.kind != "timer" and name not in polling
    }
    if unknown := {*chosen} - found.keys():
        raise LabError(
            f"{pipeline} has no such stage that could wait: {', '.join(sorted(unknown))}; there are {', '.join(found)}"
        )
    return {names.unit(pipeline, name): nodes for name, nodes in found.items() if not chosen or name in chosen}


def measure(
    lab: Lab,
    pipeline: str,
    rate: float,
    outage: float,
    say: Say,
    serve: float = SERVED_PER_SECOND,
    stages: Collection[str] = (),
) -> CatchUp:
    """Stop stages behind the source's topic, serve what would have come meanwhile, and start them again.

    Args:
        lab: a lab that runs the pipeline on its simulator.
        pipeline: the pipeline's name.
        rate: observations per second during the outage.
        outage: its seconds.
        say: is told the progress.
        serve: observations per second that are served instead, so that an hour's outage takes some minutes.
        stages: only these are stopped, if any are named.

    Raises:
        LabError: the simulator serves too slowly, or not all was published or stored within an hour.
    """
    simulator = lab.simulators[pipeline]
    run, wanted = f"catch-up-{time.time():.0f}", round(rate * outage)
    units = behind(pipeline, lab.plan.groups, stages)
    say("waiting until nothing is in flight")
    simulator.ask("/_simulator/run", {"run": f"{run}-before", "rate": 0})
    time.sleep(QUIET_SECONDS)
    since = time.time() // 1 - MARGIN_SECONDS
    before = harness.stored(lab, pipeline, since)
    try:
        _control(lab, "stop", units)
        start = simulator.ask("/_simulator/stats")["served"]
        began = time.time()
        simulator.ask("/_simulator/run", {"run": run, "rate": serve})
        limit = time.monotonic() + QUIET_SECONDS + SLOW * wanted / serve
        while (done := simulator.ask("/_simulator/stats")["served"] - start) < wanted:
            say(f"{done} of {wanted} observations served")
            if time.monotonic() > limit:
                raise LabError(f"{pipeline}: its simulator served {done} of {wanted} observations; see {simulator.log}")
            time.sleep(PAUSE_SECONDS)
        simulator.ask("/_simulator/run", {"run": f"{run}-after", "rate": 0})
        published_in = _published(lab, pipeline, say) - began
        time.sleep(QUIET_SECONDS)
        waiting = len(served(read_lines(simulator.truth), run, since))
    finally:
        began = time.time()
        _control(lab, "start --no-block", units)
    first = 0.0
    while (stored := harness.stored(lab, pipeline, since) - before) < waiting:
        first = first or (time.time() - began if stored else 0.0)
        say(f"{stored} of {waiting} observations stored")
        if time.time() > began + LIMIT_SECONDS:
            raise LabError(f"{pipeline}: {stored} of {waiting} observations were stored in {LIMIT_SECONDS} s")
        time.sleep(PAUSE_SECONDS)
    seconds = time.time() - began
    return CatchUp(rate, waiting, published_in, first or seconds, seconds)


def _published(lab: Lab, pipeline: str, say: Say) -> float:
    """Wait until nothing is left in the spools; return when that was, in Unix seconds."""
    manifest = load_pipelines()[pipeline]
    limit = time.monotonic() + LIMIT_SECONDS
    for name, nodes in spools(manifest, lab.plan.groups).items():
        command = WAITING.format(manifest.stages[name].metrics_port)
        for node in nodes:
            while waiting := float(lab.run(node, command).stdout.strip() or "inf"):
                say(f"{waiting:g} responses are not published")
                if time.monotonic() > limit:
                    raise LabError(
                        f"{node}: {waiting:g} responses of {pipeline} were not published in {LIMIT_SECONDS} s"
                    )
                time.sleep(0.2)
    return time.time()


def _control(lab: Lab, verb: str, units: Mapping[str, list[str]]) -> None:
    for unit, nodes in units.items():
        for node in nodes:
            done = lab.run(node, f"sudo systemctl {verb} {unit}")
            if done.returncode:
                raise LabError(f"{node}: systemctl {verb} {unit}: {done.stderr.strip()}")
