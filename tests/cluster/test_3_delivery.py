"""The set checker over a run without faults, and with each broker in turn away under load."""

from __future__ import annotations

import time

import pytest

from berny.lab.harness import PYTHON
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


def controller(cluster: Cluster) -> str:
    """Return the node of the broker that is the controller."""
    ask = "from confluent_kafka.admin import AdminClient; import sys; a = AdminClient({'bootstrap.servers': sys.argv[1]}); "
    ask += "c = a.list_topics(timeout=9); print(c.brokers[c.controller_id].host)"
    host = cluster.sh("master", f'{PYTHON} -c "{ask}" master:9092,worker-2:9092').strip()
    return next(name for name, machine in cluster.lab.machines.items() if machine.node.machine == host)


def stages_cpu(cluster: Cluster) -> int:
    """Return the CPU seconds that the running stages of idfm have used, their drivers included."""
    used = cluster.each("ps -C python3,java -o user=,cputimes=")
    return sum(
        int(line.split()[1]) for lines in used.values() for line in lines.splitlines() if line.startswith("idfm ")
    )


@pytest.mark.parametrize("broker", ["controller", pytest.param("other", marks=pytest.mark.second_tier)])
def test_a_broker_away_under_load_loses_nothing(cluster: Cluster, broker: str) -> None:
    leader = controller(cluster)
    node = leader if broker == "controller" else ({"master", "worker_2"} - {leader}).pop()
    run = f"without-{broker}"
    cluster.load(run, RATE)
    cluster.serve(RATE * 2)
    cluster.sh(node, "sudo systemctl stop kafka")
    try:
        since, used = time.monotonic(), stages_cpu(cluster)
        before = cluster.status("idfm")["stored"]
        # Acknowledged by InfluxDB while the broker is away, or this proves nothing about the stop.
        wait_until(
            lambda: cluster.status("idfm")["stored"] > before + RATE, AWAY_SECONDS, f"nothing is stored without {node}"
        )
        time.sleep(max(0.0, AWAY_SECONDS - (time.monotonic() - since)))
        assert cluster.sh(node, "systemctl is-active kafka", ok=False).strip() == "inactive"
        # A client that reconnects without a pause takes all the CPU time of a node, and this from the other broker.
        used, passed = stages_cpu(cluster) - used, time.monotonic() - since
        assert used < passed / 2, f"stages used {used} s of CPU time in {passed:.0f} s"
    finally:
        cluster.sh(node, "sudo systemctl start kafka")
    cluster.serve(RATE * 3)
    cluster.settle(run)
    cluster.sh("master", "sudo berny-probe kafka --wait 90 --want healthy")
