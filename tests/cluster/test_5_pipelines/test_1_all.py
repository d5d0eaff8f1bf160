"""From all sources to all of their sinks under load at the same time, once each, though stages are killed."""

from __future__ import annotations

from berny.model import names
from berny.model.manifest import load_pipelines
from support import Cluster, play

LOAD = 40
OTHERS = ("customers", "openweather")
EXPORT = "berny-openweather-export"


def placed(cluster: Cluster, pipeline: str, kind: str) -> dict[str, str]:
    """Return the node of each unit of a pipeline's stages of a kind."""
    stages = load_pipelines()[pipeline].stages.items()
    return {names.unit(pipeline, name): cluster.groups[stage.on][0] for name, stage in stages if stage.kind == kind}


def test_another_run_changes_nothing(every: Cluster) -> None:
    def lasting() -> dict[tuple[str, str], str]:
        # A timer's process comes and goes.
        timers = {unit for pipeline in OTHERS for unit in placed(every, pipeline, "timer")}
        return {key: process for key, process in every.processes().items() if key[1] not in timers}

    running = lasting()
    again = play("site.yml")
    assert again.recap("changed") == 0, again.tail
    assert lasting() == running


def test_every_observation_is_in_every_sink_once_though_stages_are_killed(every: Cluster, run: str) -> None:
    """Each stage of the other pipelines that runs all the time, and the export, while it works."""
    every.load(run, LOAD)
    every.serve(LOAD, 180)
    for pipeline in OTHERS:
        for unit, node in placed(every, pipeline, "stream").items():
            every.sh(node, f"sudo systemctl kill -s KILL {unit}")
            every.serve(LOAD, 180)
    every.sh("worker_1", f"sudo systemctl start --no-block {EXPORT}; sleep 1")
    every.sh("worker_1", f"sudo systemctl kill -s KILL {EXPORT}", ok=False)
    every.serve(LOAD, 180)
    every.load(f"after-{run}", 0)
    every.sh("worker_1", f"sudo systemctl start {EXPORT}", timeout=300)
    report = every.settle(run, 300)
    assert report.count(" expected") == 1 + len(OTHERS) and " 0 expected" not in report, report
