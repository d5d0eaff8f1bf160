"""Every command that the catalog lists, run as a person would, on each node that has it."""

from __future__ import annotations

import pytest

from berny.catalog import load_catalog
from support import Cluster

BROKERS = "master:9092,worker_2:9092"
COMMANDS = {
    "hdfs": [
        ("hdfs dfs -ls /data/idfm", "raw_landing.json"),
        ("sudo -u hdfs hdfs dfsadmin -report", "Live datanodes (3)"),
        ("sudo -u hdfs hdfs fsck /", "is HEALTHY"),
    ],
    "kafka-topics.sh": [
        (f"kafka-topics.sh --bootstrap-server {BROKERS} --describe --topic idfm-realtime", "ReplicationFactor: 2"),
    ],
    "kafka-console-consumer.sh": [
        (
            f"kafka-console-consumer.sh --bootstrap-server {BROKERS} --topic idfm-realtime --from-beginning"
            " --max-messages 1 --timeout-ms 30000",
            '"identity"',
        ),
    ],
    "kafka-consumer-groups.sh": [
        (
            f"kafka-consumer-groups.sh --bootstrap-server {BROKERS} --describe --group idfm-influx-consumer",
            "idfm-processed",
        ),
    ],
    "zkCli.sh": [("zkCli.sh -server master:2181 ls /brokers/ids", "[1, 2]")],
    "spark-submit": [("spark-submit --version 2>&1", "4.2.0")],
    "pyspark": [
        # A shell whose input is no terminal is told to be interactive.
        (
            "echo 'print(\"sum\", spark.range(1000).count())'"
            " | PYSPARK_DRIVER_PYTHON_OPTS=-i pyspark --master 'local[1]' 2>&1",
            "sum 1000",
        ),
    ],
}


def test_every_listed_command_is_tested() -> None:
    assert set(COMMANDS) == {name for component in load_catalog().components.values() for name in component.commands}


@pytest.mark.parametrize("command", COMMANDS)
def test_command(cluster: Cluster, command: str) -> None:
    component = next(c for c in load_catalog().components.values() if command in c.commands)
    nodes = {node for service in component.services.values() for node in cluster.groups[service.group]}
    for node in sorted(nodes):
        for line, expected in COMMANDS[command]:
            assert expected in cluster.sh(node, line, timeout=180), (node, line)


def test_an_application_runs_on_the_workers(cluster: Cluster) -> None:
    """Beside the streaming driver: computed by executors, its event log in HDFS."""
    program = "spark.sparkContext.parallelize(range(100), 2).map(lambda n: n * n).sum()"
    script = f"from pyspark.sql import SparkSession as S; spark = S.builder.getOrCreate(); print('squares', {program})"
    cluster.sh("master", f'echo "{script}" > /tmp/squares.py')
    said = cluster.sh("master", "spark-submit --name squares /tmp/squares.py 2>&1", timeout=240)
    assert "squares 328350" in said
    assert "eventlog" in cluster.sh("master", "hdfs dfs -ls /spark/events")


def test_old_event_logs_are_removed_and_young_ones_kept(cluster: Cluster) -> None:
    hdfs = "sudo -u spark hdfs dfs"
    cluster.sh("master", f"{hdfs} -mkdir -p /spark/events/eventlog_v2_old /spark/events/eventlog_v2_young")
    cluster.sh("master", f"{hdfs} -touch -t 20250101:000000 /spark/events/eventlog_v2_old")
    cluster.sh("master", "sudo systemctl start berny-spark-events")
    left = cluster.sh("master", f"{hdfs} -ls /spark/events")
    assert "eventlog_v2_young" in left and "eventlog_v2_old" not in left
