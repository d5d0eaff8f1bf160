"""What only reads the cluster: every command that the catalog lists, on each node that has it, and a play that only looks."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from berny.artifacts import Store
from berny.artifacts.recipes import load_recipes, not_run
from berny.catalog import load_catalog
from support import Cluster, Play, play

# Most of a command's time is a JVM's start.
AT_ONCE = 3

BROKERS = "master:9092,worker_2:9092"
EXAMPLES = f"/opt/berny/hadoop/lib/hadoop-mapreduce-examples-{load_catalog().components['yarn'].version}.jar"
COMMANDS = {
    "hdfs": [
        ("hdfs dfs -ls /data/idfm", "raw_landing.json"),
        ("sudo -u hdfs hdfs dfsadmin -report", "Live datanodes (3)"),
        ("sudo -u hdfs hdfs fsck /", "is HEALTHY"),
    ],
    "yarn": [
        ("yarn application -list -appStates ALL", "Total number of applications"),
        ("yarn node -list", "Total Nodes:3"),
        ("yarn queue -status default", "State : RUNNING"),
        ("yarn logs -applicationId application_1_0001 2>&1 || true", "application_1_0001"),
        (f"yarn jar {EXAMPLES} 2>&1 || true", "wordcount"),
        ("yarn rmadmin -getGroups yarn", "yarn : yarn"),
    ],
    "mapred": [
        ("mapred job -list all", "Total jobs:"),
        ("mapred queue -list", "Queue Name : default"),
        ("mapred streaming -info 2>&1 || true", "-mapper"),
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
    # Stopping is tested in test_C_control.py.
    "start-dfs.sh": [("sudo start-dfs.sh", "hdfs-datanode on worker_1: active already")],
    "stop-dfs.sh": [("stop-dfs.sh --help", "It stays stopped, over reboots and over site.yml")],
    "start-yarn.sh": [("sudo start-yarn.sh", "yarn-nodemanager on worker_1: active already")],
    "stop-yarn.sh": [("stop-yarn.sh --help", "It stays stopped, over reboots and over site.yml")],
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
    "influx": [
        ("influx version", f"Influx CLI {load_recipes()['influx'].version}"),
        ("influx ping", "OK"),
        # Without the token that root may read, or one of one's own, nobody gets in.
        ("influx query 'buckets()' || echo refused", "refused"),
        ("sudo influx query 'from(bucket: \"idfm_metrics\") |> range(start: -1d) |> count()'", "Table: keys:"),
    ],
}
OPTIONAL = {"influx": "influx"}
"""Commands whose archive is optional, and which it is."""


def test_every_listed_command_is_tested() -> None:
    assert set(COMMANDS) == {
        name for component in load_catalog().components.values() for name in [*component.commands, *component.scripts]
    }


@pytest.fixture(scope="module", autouse=True)
def looked(request: pytest.FixtureRequest, cluster: Cluster) -> Iterator[Future[Play] | None]:
    """``site.yml --check --diff`` beside the commands: neither changes anything."""
    if not any("looked_at" in item.name for item in request.session.items):
        yield None
        return
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(play, "site.yml", "--check", "--diff")


def nodes_with(cluster: Cluster, command: str) -> list[str]:
    """Return the nodes that have a command."""
    catalog = load_catalog()
    component = next(c for c in catalog.components.values() if command in [*c.commands, *c.scripts])
    services = component.services.values()
    if command in component.scripts:
        # On the node of the first service that it drives.
        services = [catalog.services[order[0]] for kind, order in component.control.items() if kind in command]
    return sorted({node for service in services for node in cluster.groups[service.group]})


def absent(command: str) -> bool:
    """Tell whether a command is not there because its archive can't be had."""
    return command in OPTIONAL and not Store().find(OPTIONAL[command])


@pytest.fixture(scope="module")
def printed(request: pytest.FixtureRequest, cluster: Cluster) -> Iterator[dict[tuple[str, str], Future[str]]]:
    """What the commands that are tested print, by node and line: they only read, so some run at once."""
    chosen = [item.callspec.params["command"] for item in request.session.items if hasattr(item, "callspec")
              and "command" in item.callspec.params]  # fmt: skip
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {
            (node, line): pool.submit(cluster.sh, node, line, 240)
            for command in chosen
            if not absent(command)
            for node in nodes_with(cluster, command)
            for line, _ in COMMANDS[command]
        }
        pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("command", COMMANDS)
def test_command(cluster: Cluster, printed: dict[tuple[str, str], Future[str]], command: str) -> None:
    if absent(command):
        pytest.skip(not_run(load_recipes()[OPTIONAL[command]]))
    nodes = nodes_with(cluster, command)
    assert nodes
    for node in nodes:
        for line, expected in COMMANDS[command]:
            assert expected in printed[node, line].result(), (node, line)


def test_it_is_looked_at_in_silence(looked: Future[Play]) -> None:
    """A run that only looks finds nothing to change and shows no difference."""
    found = looked.result()
    assert found.recap("changed") == 0, found.tail
    assert "--- before" not in found.output
    assert "\n+" not in found.output, found.output


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
