"""Recorded answers through the whole cluster: each visit's delay as recorded. BERNY_RECORDINGS names a folder of others."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from berny.pipelines.idfm.controller.timetable import near, visit
from support import Cluster, wait_until


def record(folder: Path) -> None:
    """Write two answers of the service day, with every kind of train."""
    now = time.time()
    for number in range(2):
        trains = near(seed=77 + number, now=now)
        visits = [visit(train, number, now - 60 + index / 100)[0] for index, train in enumerate(trains)]
        delivery = {"ResponseTimestamp": "2026-01-01T00:00:00.000Z", "Version": "2.0", "Status": "true"}
        service = {"StopMonitoringDelivery": [delivery | {"MonitoredStopVisit": visits}]}
        (folder / f"{number}.json").write_text(json.dumps({"Siri": {"ServiceDelivery": service}}, indent=1))


def test_recorded_answers(cluster: Cluster, tmp_path: Path) -> None:
    recordings = Path(os.environ.get("BERNY_RECORDINGS") or tmp_path)
    if recordings == tmp_path:
        record(tmp_path)
    answers = sorted(recordings.glob("*.json"))
    assert answers, f"{recordings} holds no *.json"
    simulator = cluster.lab.simulators["idfm"]
    simulator.stop()
    simulator.start("--recordings", str(recordings.resolve()), "--run", "recorded")
    visits = sum(path.read_text().count('"MonitoredCall"') for path in answers)
    wait_until(lambda: simulator.ask("/_simulator/stats")["served"] == visits, 60, "the answers are not fetched")
    report = cluster.settle("recorded", 150, "idfm")
    assert report.startswith(f"{visits} expected, 0 unspooled"), report
    simulator.stop()
    simulator.start("--rate", "2")
