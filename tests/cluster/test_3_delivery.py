"""The set checker over a run without faults, and with each broker in turn away under load."""

from __future__ import annotations

import time

import pytest

from support import Cluster, wait_until

AWAY_SECONDS = 30
RATE = 40


def test_without_faults_every_observation_is_everywhere_once(cluster: Cluster) -> None:
    cluster.load("fault-free", RATE)
    cluster.serve(RATE * 12)
    report = cluster.settle("fault-free")
    # Without a fault not even the topics hold one twice.
    assert " 0 duplicate" in report and report.count(" 0 duplicate") == 5, report
    assert int(report.split(" expected")[0]) > RATE * 10


@pytest.mark.parametrize("node", ["master", pytest.param("worker_2", marks=pytest.mark.second_tier)])
def test_a_broker_away_under_load_loses_nothing(cluster: Cluster, node: str) -> None:
    run = f"without-{node.replace('_', '-')}"
    cluster.load(run, RATE)
    cluster.serve(RATE * 2)
    cluster.sh(node, "sudo systemctl stop kafka")
    try:
        since = time.monotonic()
        before = cluster.status("idfm")["stored"]
        # Acknowledged by InfluxDB while the broker is away, or this proves nothing about the stop.
        wait_until(
            lambda: cluster.status("idfm")["stored"] > before + RATE, AWAY_SECONDS, f"nothing is stored without {node}"
        )
        time.sleep(max(0.0, AWAY_SECONDS - (time.monotonic() - since)))
        assert cluster.sh(node, "systemctl is-active kafka", ok=False).strip() == "inactive"
    finally:
        cluster.sh(node, "sudo systemctl start kafka")
    cluster.serve(RATE * 3)
    cluster.settle(run)
    cluster.sh("master", "sudo berny-probe kafka --wait 90 --want whole")
