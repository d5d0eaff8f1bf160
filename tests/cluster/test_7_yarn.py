"""YARN: jobs of three kinds outlive a NodeManager that is killed, and one a ResourceManager that is restarted."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from berny.model.catalog import load_catalog
from support import Cluster, wait_until

EXAMPLES = f"/opt/berny/hadoop/lib/hadoop-mapreduce-examples-{load_catalog().components['yarn'].version}.jar"
FILES = 3
WORDS = 40
# Slow on purpose: what is killed is killed in the middle.
MAPPER = """#!/usr/bin/python3
import sys, time
for line in sys.stdin:
    time.sleep(0.2)
    print(line.split()[0], 1, sep="\\t", flush=True)
"""
REDUCER = """#!/usr/bin/python3
import sys
from itertools import groupby
for word, lines in groupby(sys.stdin, lambda line: line.split("\\t")[0]):
    print(word, sum(int(line.split("\\t")[1]) for line in lines), sep="\\t")
"""
PROGRAM = """
import time
from pyspark.sql import SparkSession

def slowly(number):
    time.sleep(0.4)
    return number * number

spark = SparkSession.builder.getOrCreate()
print("squares", spark.sparkContext.parallelize(range(100), 4).map(slowly).sum())
"""


def ask(cluster: Cluster, path: str, service: str = "yarn-resourcemanager") -> Any:
    """Return what a REST API on master says."""
    port = load_catalog().services[service].ports["web"]
    code = (
        f"import urllib.request as u; print(u.urlopen('http://master:{port}/ws/v1/{path}', timeout=10).read().decode())"
    )
    return json.loads(cluster.sh("master", f'python3 -c "{code}"'))


@dataclass
class Job:
    """A job that was submitted in the background on a node, as a person does at a shell."""

    cluster: Cluster
    node: str
    name: str
    id: str

    @classmethod
    def submit(cls, cluster: Cluster, node: str, name: str, command: str) -> Job:
        """Submit it, and return when several of its containers run."""
        before = {app["id"] for app in cls.applications(cluster)}
        log = f"/tmp/{name}.log"
        cluster.sh(
            node, f"rm -f {log}; ({command} > {log} 2>&1; echo ended $? >> {log}) > /dev/null 2>&1 < /dev/null &"
        )

        def running() -> str:
            ended = re.search(r"ended [1-9]", cluster.sh(node, f"cat {log}", ok=False))
            assert not ended, cluster.sh(node, f"tail -n 40 {log}")
            new = [app for app in cls.applications(cluster) if app["id"] not in before]
            return next((app["id"] for app in new if app["state"] == "RUNNING" and app["runningContainers"] > 2), "")

        return cls(cluster, node, name, wait_until(running, 240, f"{name} does not run"))

    @staticmethod
    def applications(cluster: Cluster) -> list[dict[str, Any]]:
        """Return what the ResourceManager knows of all applications."""
        found: list[dict[str, Any]] = (ask(cluster, "cluster/apps")["apps"] or {}).get("app", [])
        return found

    def facts(self) -> dict[str, Any]:
        """Return what the ResourceManager knows of it."""
        found: dict[str, Any] = ask(self.cluster, f"cluster/apps/{self.id}")["app"]
        return found

    def attempts(self) -> int:
        """Return how often it was begun."""
        return len(ask(self.cluster, f"cluster/apps/{self.id}/appattempts")["appAttempts"]["appAttempt"])

    def master_node(self) -> str:
        """Return the node that its ApplicationMaster is on."""
        return str(self.facts()["amHostHttpAddress"]).split(":")[0].replace("-", "_")

    def finish(self) -> str:
        """Wait for its end, which has to be a good one, and return its aggregated logs."""
        log = f"/tmp/{self.name}.log"
        said = wait_until(
            lambda: (text := self.cluster.sh(self.node, f"cat {log}")) and "\nended " in text and text,
            400,
            f"{self.name} does not end",
        )
        assert "\nended 0" in said, said[-3000:]
        assert self.facts()["finalStatus"] == "SUCCEEDED"
        seen = ""

        def aggregated() -> bool:
            nonlocal seen
            seen = self.cluster.sh(self.node, f"yarn logs -applicationId {self.id} 2>&1", ok=False)
            return seen.count("Container: ") >= 3

        wait_until(aggregated, 120, f"the logs of {self.id} are not all in HDFS")
        return seen


def main_process(cluster: Cluster, node: str, unit: str) -> str:
    """Return the main process of a unit, 0 where it has none."""
    return cluster.sh(node, f"systemctl show -P MainPID {unit}").strip()


def containers(cluster: Cluster, node: str) -> set[str]:
    """Return the processes that a NodeManager has started, and that are left where it has ended."""
    group = cluster.sh(node, "systemctl show -P ControlGroup yarn-nodemanager").strip()
    files = f"/sys/fs/cgroup/systemd{group}/cgroup.procs /sys/fs/cgroup{group}/cgroup.procs"
    found = set(cluster.sh(node, f"cat {files} 2>/dev/null", ok=False).split())
    return found - {main_process(cluster, node, "yarn-nodemanager")}


def kill_node_manager(cluster: Cluster, node: str) -> set[str]:
    """Kill -9 the NodeManager's process alone; return the processes of containers that ran before and still do."""
    unit = "yarn-nodemanager"
    pid, before = main_process(cluster, node, unit), containers(cluster, node)
    cluster.sh(node, f"sudo kill -9 {pid}")
    wait_until(lambda: main_process(cluster, node, unit) not in (pid, "0"), 60, "it is not started again")
    cluster.sh(node, f"sudo berny-probe {unit} --wait 120 --want healthy", timeout=150)
    return before & containers(cluster, node)


def listening(cluster: Cluster) -> set[int]:
    """Return the ports that containers listen at, on addresses that other machines reach."""
    found = set()
    for node in cluster.groups["nodemanager"]:
        pids = containers(cluster, node)
        for line in cluster.sh(node, "sudo ss -ltnpH").splitlines():
            address, port = line.split()[3].rsplit(":", 1)
            if pids & set(re.findall(r"pid=(\d+)", line)) and "127.0.0.1" not in address and address != "[::1]":
                found.add(int(port))
    return found


@pytest.fixture(scope="module", autouse=True)
def inputs(cluster: Cluster) -> Iterator[None]:
    """Files to count the words of, and what jobs leave."""
    lines = "".join(f"word{number % 7} x\\n" for number in range(WORDS))
    make = f"rm -rf /tmp/in; mkdir /tmp/in; for n in $(seq {FILES}); do printf '{lines}' > /tmp/in/$n; done"
    clean = "hdfs dfs -rm -r -f -skipTrash /tmp/yarn-test"
    cluster.sh(
        "worker_1", f"{make}; {clean}; hdfs dfs -mkdir /tmp/yarn-test && hdfs dfs -put /tmp/in /tmp/yarn-test/in"
    )
    yield
    cluster.sh("worker_1", clean)


def expected() -> dict[str, int]:
    """Return how often each first word of a line is there."""
    numbers = [f"word{number % 7}" for number in range(WORDS)]
    return {word: numbers.count(word) * FILES for word in numbers}


def counted(cluster: Cluster, name: str) -> dict[str, int]:
    """Return what a job has counted."""
    said = cluster.sh("worker_1", f"hdfs dfs -cat '/tmp/yarn-test/{name}/part-*'")
    return {line.split("\t")[0]: int(line.split("\t")[1]) for line in said.splitlines()}


def streaming(cluster: Cluster, name: str) -> Job:
    """Submit a Hadoop Streaming job of two Python programs."""
    cluster.sh("worker_1", f"cat > /tmp/mapper.py <<'END'\n{MAPPER}END\ncat > /tmp/reducer.py <<'END'\n{REDUCER}END")
    cluster.sh("worker_1", "chmod +x /tmp/mapper.py /tmp/reducer.py")
    command = (
        "mapred streaming -files /tmp/mapper.py,/tmp/reducer.py -mapper mapper.py -reducer reducer.py"
        f" -input /tmp/yarn-test/in -output /tmp/yarn-test/{name}"
    )
    return Job.submit(cluster, "worker_1", name, command)


def check_ports(cluster: Cluster) -> None:
    """A job listens somewhere, and nowhere but in the catalog's range."""
    first, last = load_catalog().components["spark"].ephemeral_ports or (0, 0)
    ports = listening(cluster)
    assert ports and all(first <= port <= last for port in ports), ports


def test_mapreduce_outlives_a_node_manager(cluster: Cluster) -> None:
    command = f"yarn jar {EXAMPLES} wordcount -Dmapreduce.job.reduces=2 /tmp/yarn-test/in /tmp/yarn-test/words"
    job = Job.submit(cluster, "worker_1", "words", command)
    kill_node_manager(cluster, job.master_node())
    job.finish()
    assert counted(cluster, "words") == {**expected(), "x": WORDS * FILES}
    assert job.attempts() == 1


@pytest.mark.second_tier
def test_streaming_outlives_a_node_manager(cluster: Cluster) -> None:
    job = streaming(cluster, "streaming")
    check_ports(cluster)
    assert kill_node_manager(cluster, job.master_node()), "no container outlived its NodeManager"
    assert job.facts()["state"] == "RUNNING", "it was over before"
    job.finish()
    assert counted(cluster, "streaming") == expected()
    assert job.attempts() == 1


@pytest.mark.second_tier
def test_spark_outlives_a_node_manager(cluster: Cluster) -> None:
    cluster.sh("worker_1", f"cat > /tmp/slowly.py <<'END'{PROGRAM}END")
    submit = "spark-submit --master yarn --deploy-mode cluster --name slowly /tmp/slowly.py"
    job = Job.submit(cluster, "worker_1", "slowly", submit)
    check_ports(cluster)
    assert kill_node_manager(cluster, job.master_node()), "no container outlived its NodeManager"
    assert job.facts()["state"] == "RUNNING", "it was over before"
    assert "squares 328350" in job.finish()
    assert job.attempts() == 1


@pytest.mark.second_tier
def test_a_job_goes_on_where_it_was_when_the_resource_manager_is_restarted(cluster: Cluster) -> None:
    job = streaming(cluster, "restart")
    cluster.sh(
        "master",
        "sudo systemctl restart yarn-resourcemanager && sudo berny-probe yarn --wait 120 --want healthy",
        timeout=150,
    )
    assert job.facts()["state"] in ("ACCEPTED", "RUNNING"), "it was over before"
    since = time.time()
    job.finish()
    assert counted(cluster, "restart") == expected()
    assert job.attempts() == 1
    number = job.id.removeprefix("application_")
    path = f"history/mapreduce/jobs/job_{number}"
    told = ask(cluster, path, "mapreduce-historyserver")["job"]
    # Each map ran once: nothing was begun anew.
    assert told["successfulMapAttempts"] == told["mapsTotal"] == FILES, told
    assert told["killedMapAttempts"] == told["failedMapAttempts"] == 0, told
    assert told["startTime"] / 1000 < since
