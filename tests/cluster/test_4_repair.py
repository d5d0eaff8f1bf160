"""What slips on a node and what others do there: a converge repairs it, or it repairs itself, and neither is silent."""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Iterator

import pytest

from berny.lab.harness import PYTHON
from support import Cluster, play, wait_until

SUDO_UMASK = "/etc/sudoers.d/zz-umask"
CLOSED = "sudo find /etc/berny /opt/berny /usr/local/lib/berny -type d ! -perm -o=rx"

RETENTION = """
import json, time
from berny.runtime.landing import Landing

landing, now = Landing("{url}", "idfm", "/user/idfm/retention", 300, 1 << 20), time.time
time.time = lambda: now() + 400 * 86400
ahead = landing.drop_expired(90 * 86400)
time.time = now
print(json.dumps([ahead, landing.drop_expired(90 * 86400), landing.drop_expired(90 * 86400)]))
"""


AHEAD = """
import sqlite3, time

with sqlite3.connect("/data/berny-idfm/spool.sqlite", timeout=30) as spool:
    spool.execute("UPDATE calls SET last = ?", (time.time() + 30 * 86400,))
"""


def python(cluster: Cluster, node: str, program: str) -> str:
    """Run a program on a node as stages run."""
    words = base64.b64encode(program.encode()).decode()
    return cluster.sh(node, f"echo {words} | base64 -d | {PYTHON} -")


def test_jars_and_data_that_somebody_took(cluster: Cluster) -> None:
    """One jar of a broker that runs, the other broker's data: both are named, and nothing else is restarted."""
    before = cluster.processes()
    cluster.sh("master", "sudo sh -c 'rm /opt/berny/kafka/lib/kafka-clients-*.jar'")
    cluster.sh("worker_2", "sudo systemctl stop kafka; sudo chown -R root /data/kafka; sudo systemctl start kafka")
    journal = "sudo journalctl -u kafka --since -60s --no-pager -o cat"
    wait_until(lambda: "AccessDenied" in cluster.sh("worker_2", journal), 60, "the broker runs on root's files")
    mended = play("site.yml", "--tags", "kafka", "--diff")
    assert "master: /opt/berny/archives/kafka-" in mended.output, mended.tail
    assert re.search(r": lib/kafka-clients-\S+\.jar is missing", mended.output), mended.tail
    assert "owner root:kafka" in mended.output, mended.tail
    after = cluster.processes()
    assert {key for key in before if after.get(key) != before[key]} == {("master", "kafka"), ("worker_2", "kafka")}
    assert cluster.sh("worker_2", "sudo find /data/kafka -user root ! -name lost+found ! -path '*/lost+found/*'") == ""
    cluster.sh(
        "master", "ls /opt/berny/kafka/lib/kafka-clients-*.jar && sudo berny-probe kafka --wait 60 --want healthy"
    )
    again = play("site.yml", "--tags", "kafka")
    assert again.recap("changed") == 0, again.tail


@pytest.fixture
def umask(cluster: Cluster) -> Iterator[str]:
    """A node whose sudo has the umask 0077."""
    node = "worker_0"
    cluster.sh(
        node, f"echo 'Defaults umask=0077, umask_override' | sudo tee {SUDO_UMASK}; sudo chmod 0440 {SUDO_UMASK}"
    )
    assert cluster.sh(node, "sudo sh -c umask").strip() == "0077"
    yield node
    cluster.sh(node, f"sudo rm -f {SUDO_UMASK}")


@pytest.mark.second_tier
def test_a_umask_of_sudo_closes_nothing(cluster: Cluster, umask: str) -> None:
    """What it closed is opened again, what is made under it is open, and no service runs on defaults meanwhile."""
    folders = "/etc/berny /etc/berny/hdfs* /etc/berny/yarn* $(find /opt/berny /usr/local/lib/berny -type d)"
    cluster.sh(umask, f"sudo sh -c 'chmod 0700 {folders}'")
    cluster.sh(umask, "sudo sh -c 'systemctl restart --no-block yarn-nodemanager; sleep 3'")
    said = cluster.sh(umask, "sudo journalctl -u yarn-nodemanager -n 20 --no-pager -o cat")
    # Even record-start is closed to it; with that open, it says which file it can't read.
    assert "Permission denied" in said or "can't read" in said, said
    assert "activ" in cluster.sh(umask, "systemctl is-active yarn-nodemanager", ok=False)
    assert cluster.sh(umask, "pgrep -f '[n]odemanager.NodeManager'", ok=False) == "", "it runs on Hadoop's defaults"
    cluster.sh(umask, "sudo sh -c 'rm -rf /etc/berny/yarn-nodemanager /opt/berny/archives/hadoop-*'")
    mended = play("site.yml", "--tags", "node,hdfs,yarn", "--diff")
    assert "mode 0700" in mended.output
    assert cluster.sh(umask, CLOSED).split() == []
    cluster.sh(umask, "sudo berny-probe yarn-nodemanager hdfs-datanode --wait 60 --want healthy")
    port = cluster.lab.plan.nodes[umask].address
    assert port in cluster.sh(umask, "ss -Hltn"), "the NodeManager's own settings name its address"
    again = play("site.yml", "--tags", "node,hdfs,yarn")
    assert again.recap("changed") == 0, again.tail


def test_own_lines_of_hosts_stay_and_the_clusters_come_back(cluster: Cluster) -> None:
    """A template that is written over all of it, with the machine's own name at another address, as cloud-init's is."""
    node, address = "worker_1", cluster.lab.plan.nodes["worker_1"].address
    names = "getent ahostsv4 worker-1 master worker_1 | cut -d' ' -f1 | sort -u"
    before = cluster.sh(node, names)
    kept = cluster.sh(node, "cat /etc/hosts")
    lines = "127.0.0.1 localhost\\n127.0.1.1 worker-1.example.org worker-1\\n192.0.2.9 printer\\n"
    cluster.sh(node, f"printf '{lines}' | sudo tee /etc/hosts")
    try:
        wait_until(lambda: cluster.sh(node, names, ok=False) == before, 10, lambda: cluster.sh(node, "cat /etc/hosts"))
        assert cluster.sh(node, "getent ahostsv4 worker-1 | cut -d' ' -f1 | sort -u").strip() == address
        assert "192.0.2.9" in cluster.sh(node, "getent hosts printer")
        assert "127.0.1.1" in cluster.sh(node, "getent hosts worker-1.example.org")
        unchanged = play("site.yml", "--tags", "node")
        assert unchanged.recap("changed") == 0, unchanged.tail
        assert "192.0.2.9 printer" in cluster.sh(node, "cat /etc/hosts")
    finally:
        words = base64.b64encode(kept.encode()).decode()
        cluster.sh(node, f"echo {words} | base64 -d | sudo tee /etc/hosts")


def test_a_call_on_record_for_next_month_stops_no_poll(cluster: Cluster) -> None:
    """In the spool of the producer that runs; how many are polled is the source's to tell."""
    cluster.sh("master", "sudo systemctl stop berny-idfm-producer")
    python(cluster, "master", AHEAD)
    cluster.sh("master", "sudo systemctl start berny-idfm-producer")
    cluster.serve(10)
    journal = "sudo journalctl -u berny-idfm-producer --since -120s --no-pager -o cat"
    assert "the recorded time of the last call is in the future" in cluster.sh("master", journal)
    cluster.sh("master", "sudo berny-probe berny-idfm-producer --wait 30 --want healthy")


def test_a_clock_that_is_far_ahead_drops_no_raw_day(cluster: Cluster) -> None:
    """HDFS's own record of when a day was written to is what counts: by that what is over age goes, and nothing else."""
    root = "/user/idfm/retention"
    day = 86400
    touched = [
        f"hdfs dfs -touch -t {time.strftime('%Y%m%d:%H%M%S', time.gmtime(time.time() - age * day))} {root}/dt=age-{age}"
        for age in (0, 1, 89, 92)
    ]
    folders = " ".join(f"{root}/dt=age-{age}" for age in (0, 1, 89, 92))
    cluster.sh("master", f"sudo runuser -u idfm -- sh -c 'hdfs dfs -mkdir -p {folders} && {' && '.join(touched)}'")
    url = cluster.sh("master", "sudo grep -h ^HDFS_WEB_URL /etc/berny/berny-idfm-producer/stage.env").strip()
    said = python(cluster, "master", RETENTION.format(url=url.partition("=")[2].strip("'\"")))
    assert json.loads(said.splitlines()[-1]) == [["dt=age-92"], [], []]
    cluster.sh("master", f"sudo runuser -u idfm -- hdfs dfs -rm -r -skipTrash {root}")
