"""Health sees what a user misses: resources deleted by hand, records that were never read, processes nobody knows of."""

from __future__ import annotations

import io
import json
import re
import shlex
import time
from typing import Any

import pytest
import yaml
from rich.console import Console

from berny.lab import memory, summary
from berny.pipelines.idfm.influx_consumer import GROUP
from support import PYTHON, Cluster, play, wait_until

RATE = 40
CONSUMER, ANALYTICS, PRODUCER = (f"berny-idfm-{stage}" for stage in ("influx-consumer", "analytics", "producer"))
BOOTSTRAP = "--bootstrap-server master:9092"
READER = """
import sys, tempfile, threading, time
from pathlib import Path
from confluent_kafka import KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from berny.runtime.kafka import Reader
from berny.runtime.skipped import Skipped

SERVERS = {"bootstrap.servers": "master:9092,worker_2:9092"}
TOPIC = sys.argv[1]
admin, stop, folder = AdminClient(SERVERS), threading.Event(), Path(tempfile.mkdtemp())

def create(deadline=60):
    until = time.time() + deadline
    while True:
        try:
            return [made.result() for made in admin.create_topics([NewTopic(TOPIC, 2, 2)]).values()]
        except KafkaException:
            assert time.time() < until
            time.sleep(0.5)

def delete():
    [gone.result() for gone in admin.delete_topics([TOPIC]).values()]

def remove(**before):
    partitions = [TopicPartition(TOPIC, int(name[1:]), offset) for name, offset in before.items()]
    [gone.result() for gone in admin.delete_records(partitions).values()]

def put(count, tag):
    producer = Producer(SERVERS | {"acks": "all"})
    for number in range(count):
        producer.produce(TOPIC, f"{tag}{number}".encode(), partition=number % 2)
    assert producer.flush(30) == 0

def reader(sink="one"):
    return Reader(SERVERS["bootstrap.servers"], "test-" + TOPIC, TOPIC, sink, Skipped(folder))

def read(source, wanted, deadline=60):
    got, until = [], time.time() + deadline
    while set(got) != set(wanted):
        assert time.time() < until, (sorted(got), sorted(wanted))
        batch = source.take(100, 0.3, stop)
        got += [message.value().decode() for message in batch]
        source.commit(batch)

def named(tag, count):
    return [f"{tag}{number}" for number in range(count)]

create()
try:
    put(10, "a")
    source = reader()
    read(source, named("a", 10))
    delete(); create(); put(30, "b")
    read(source, named("b", 30))
    source.close()
    source = reader("another sink")
    read(source, named("b", 30))
    source.close()
    delete(); create(); put(40, "c")
    source = reader("another sink")
    read(source, named("c", 40))
    source.close()
    put(20, "d"); remove(p0=25, p1=-1); put(2, "e")
    source = reader("another sink")
    read(source, ["d10", "d12", "d14", "d16", "d18", "e0", "e1"])
    gaps = {(gap.partition, gap.first, gap.last) for gap in Skipped(folder).open()}
    assert gaps == {(0, 20, 24), (1, 20, 29)}, gaps
    remove(p0=-1, p1=-1); put(4, "f")
    read(source, named("f", 4))
    assert len(Skipped(folder).open()) == 2
    source.close()
finally:
    delete()
print("each record that was there was read")
"""


def health(cluster: Cluster, node: str, *units: str) -> dict[str, dict[str, Any]]:
    """Return what the probe says of units, asked on a node."""
    found = json.loads(cluster.sh(node, f"sudo berny-probe {' '.join(units)} --json", ok=False))
    return {one["service"]: one for one in found}


def wait_for_healthy(cluster: Cluster, seconds: float = 120) -> None:
    """Wait until all stages are healthy."""
    for node, units in (("master", f"{ANALYTICS} {PRODUCER}"), ("worker_2", CONSUMER)):
        cluster.sh(node, f"sudo berny-probe {units} --want healthy --wait {seconds}", timeout=seconds + 60)


def topic(cluster: Cluster, words: str) -> str:
    """Call kafka-topics.sh."""
    return cluster.sh("master", f"kafka-topics.sh {BOOTSTRAP} {words}")


def end(cluster: Cluster, name: str) -> int:
    """Return the sum of a topic's end offsets."""
    said = cluster.sh("master", f"kafka-get-offsets.sh {BOOTSTRAP} --topic {name}")
    return sum(int(line.rsplit(":", 1)[1]) for line in said.splitlines())


def lag(cluster: Cluster, group: str) -> int:
    """Return how many records a consumer group has not read."""
    said = cluster.sh("master", f"kafka-consumer-groups.sh {BOOTSTRAP} --describe --group {group} 2> /dev/null")
    return sum(int(line.split()[5]) for line in said.splitlines() if line.startswith(group))


def remove_all_records(cluster: Cluster, name: str) -> None:
    """Remove all records of a topic, as ``kafka-delete-records.sh`` does with the offset -1."""
    code = (
        "import sys; from confluent_kafka import TopicPartition as T; from confluent_kafka.admin import AdminClient; "
        "a = AdminClient({'bootstrap.servers': 'master:9092,worker_2:9092'}); "
        "m = a.list_topics(sys.argv[1], timeout=20).topics[sys.argv[1]].partitions; "
        "[f.result() for f in a.delete_records([T(sys.argv[1], p, -1) for p in m]).values()]"
    )
    cluster.sh("master", f'{PYTHON} -c "{code}" {name}')


def test_a_reader_knows_which_topic_it_reads(cluster: Cluster) -> None:
    """Topics and sinks are replaced while it runs and while it is away, and records are gone before they are read."""
    name = f"test-reader-{time.time():.0f}"
    cluster.sh("master", f"cat > /tmp/reader.py <<'END'{READER}END")
    said = cluster.sh("master", f"{PYTHON} /tmp/reader.py {name} 2>&1", timeout=400)
    assert "each record that was there was read" in said
    assert "reading from the beginning" in said


def test_a_topic_deleted_by_hand(cluster: Cluster) -> None:
    """The stages say so; created again, it is read from its beginning, without a restart by hand."""
    run = f"topic-{time.time():.0f}"
    cluster.load(run, RATE)
    cluster.serve(RATE * 3)
    cluster.settle(run)
    topic(cluster, "--delete --topic idfm-processed")

    def told() -> bool:
        found = health(cluster, "worker_2", CONSUMER)[CONSUMER]
        return not found["ready"] and "the topic idfm-processed does not exist; site.yml creates it" in found["detail"]

    wait_until(told, 30, lambda: str(health(cluster, "worker_2", CONSUMER)))
    assert not health(cluster, "master", PRODUCER)[PRODUCER]["healthy"]
    play("playbooks/cluster.yml", "--tags", "kafka")
    run += "-again"
    cluster.load(run, RATE)
    cluster.serve(RATE * 3)
    cluster.settle(run)
    wait_for_healthy(cluster)


@pytest.mark.parametrize(
    ("node", "stage", "name"),
    [
        pytest.param("master", ANALYTICS, "idfm-realtime", marks=pytest.mark.second_tier),
        ("worker_2", CONSUMER, "idfm-processed"),
    ],
)
def test_records_that_were_gone_before_they_were_read(cluster: Cluster, node: str, stage: str, name: str) -> None:
    """The stage goes on after them, counts them, and is not healthy until they are acknowledged."""
    cluster.sh(node, f"sudo systemctl stop {stage}")
    try:
        begin = ends = end(cluster, name)
        cluster.load(f"gone-{time.time():.0f}", RATE)
        cluster.serve(RATE * 3)
        cluster.load(f"none-{time.time():.0f}", 0)

        def arrived() -> bool:
            """Tell whether what is on its way is there: nothing comes any more."""
            nonlocal ends
            before, ends = ends, end(cluster, name)
            return ends == before and ends >= begin + RATE * 2

        wait_until(arrived, 60, cluster.told)
        unread = lag(cluster, GROUP) if stage == CONSUMER else None
        remove_all_records(cluster, name)
    finally:
        cluster.sh(node, f"sudo systemctl start --no-block {stage}")

    def missing() -> tuple[int, str]:
        """How many records the stage says that it missed so far, each partition when it comes to it."""
        said = cluster.sh(node, f"sudo berny-probe {stage} --wait 30", ok=False)
        counts = re.findall(rf"(\d+) records of {name} were gone before they were read", said)
        return sum(map(int, counts)), said

    wait_until(lambda: missing()[0] >= (unread or RATE * 2), 120, lambda: f"{unread} unread. {missing()[1]}")
    missed, found = missing()
    assert unread in (None, missed), found
    assert "-e pipeline=idfm -e do=acknowledge" in found
    assert ": ready: " in cluster.sh(node, f"sudo berny-probe {stage} --want healthy; [ $? = 1 ]")
    port = 9301 if stage == ANALYTICS else 9302
    code = f"import urllib.request as u; print(u.urlopen('http://localhost:{port}/metrics').read().decode())"
    metrics = cluster.sh(node, f'python3 -c "{code}"')
    samples = re.findall(rf'berny_skipped_records{{[^}}]*topic="{name}"[^}}]*}} (\S+)', metrics)
    assert sum(map(float, samples)) == missed
    shown = Console(file=io.StringIO(), width=1000)
    summary.show(cluster.lab, shown)
    assert f"records of {name} were gone before they were read" in shown.file.getvalue()  # type: ignore[attr-defined]
    # It goes on all the same.
    run = f"after-{time.time():.0f}"
    cluster.load(run, RATE)
    cluster.serve(RATE * 3)
    cluster.settle(run)
    cluster.sh(node, f"sudo systemctl restart {stage}")
    assert "were gone before" in cluster.sh(node, f"sudo berny-probe {stage} --wait 120", timeout=150)
    acknowledged = play("playbooks/pipelines.yml", "-e", "pipeline=idfm", "-e", "do=acknowledge")
    assert acknowledged.output.count(f"acknowledged: {name} partition ") == len(samples), acknowledged.tail
    wait_for_healthy(cluster, 30)
    again = play("playbooks/pipelines.yml", "-e", "pipeline=idfm", "-e", "do=acknowledge")
    assert again.recap("changed") == 0


@pytest.mark.second_tier
def test_records_gone_under_a_running_query(cluster: Cluster) -> None:
    """It fails, is started again, and goes on after them."""

    def signal(name: str) -> None:
        """Send a signal to the executors, which read without the driver."""
        for node in ("worker_1", "worker_2"):
            cluster.sh(node, f"sudo pkill -{name} -f [C]oarseGrainedExecutorBackend", ok=False)

    signal("STOP")
    try:
        cluster.load(f"gone-{time.time():.0f}", RATE)
        cluster.serve(RATE * 3)
        cluster.load(f"none-{time.time():.0f}", 0)
        time.sleep(5)
        remove_all_records(cluster, "idfm-realtime")
    finally:
        signal("CONT")
    run = f"after-{time.time():.0f}"
    cluster.load(run, RATE)
    cluster.serve(RATE * 3)
    cluster.settle(run)
    assert "were gone before they were read" in health(cluster, "master", ANALYTICS)[ANALYTICS]["detail"]
    play("playbooks/pipelines.yml", "-e", "pipeline=idfm", "-e", "do=acknowledge")
    wait_for_healthy(cluster)


@pytest.mark.second_tier
def test_a_directory_deleted_by_hand(cluster: Cluster) -> None:
    """What the login user's trash or a job's staging needs, and nothing writes by itself."""
    cluster.sh("master", "sudo -u hdfs hdfs dfs -rm -r -skipTrash /user/idfm")
    found = health(cluster, "master", PRODUCER)[PRODUCER]
    assert found["ready"] and not found["healthy"], found
    assert "the directory /user/idfm of HDFS does not exist; site.yml creates it" in found["detail"]
    play("playbooks/deploy.yml")
    wait_for_healthy(cluster)


@pytest.mark.second_tier
def test_a_bucket_deleted_by_hand(cluster: Cluster) -> None:
    """Its consumer ends, and says why; in the new one the points are made again from the topic."""
    run = f"bucket-{time.time():.0f}"
    cluster.load(run, RATE)
    cluster.serve(RATE * 3)
    cluster.settle(run)
    token = yaml.safe_load((cluster.lab.plan.folder / "secrets.yml").read_text())["influxdb_admin_token"]
    code = (
        "import sys; from influxdb_client import InfluxDBClient; "
        "api = InfluxDBClient('http://worker_2:8086', sys.argv[1], org='berny').buckets_api(); "
        "api.delete_bucket(api.find_bucket_by_name('idfm_metrics'))"
    )
    cluster.sh("worker_2", f'{PYTHON} -c "{code}" {token}')

    def told() -> bool:
        found = health(cluster, "worker_2", CONSUMER)[CONSUMER]
        return not found["ready"] and "the bucket idfm_metrics with its token does not exist" in found["detail"]

    wait_until(told, 60, lambda: str(health(cluster, "worker_2", CONSUMER)))
    assert "run site.yml" in cluster.sh("worker_2", f"sudo journalctl -u {CONSUMER} -n 20 --no-pager")
    play("site.yml", "--tags", "influxdb,pipeline")
    wait_for_healthy(cluster)
    wait_until(lambda: cluster.check(run)[0], 120, lambda: cluster.check(run)[1])


@pytest.mark.second_tier
def test_a_stage_waits_for_kafka_and_not_for_the_broker_beside_it(cluster: Cluster) -> None:
    cluster.sh("worker_2", "sudo systemctl stop kafka")
    try:
        cluster.sh("worker_2", f"sudo systemctl restart --no-block {CONSUMER}")
        cluster.sh("worker_2", f"sudo berny-probe {CONSUMER} --wait 45", timeout=60)
        assert cluster.sh("worker_2", "systemctl is-active kafka", ok=False).strip() == "inactive"
        run = f"neighbour-{time.time():.0f}"
        cluster.load(run, RATE)
        before = cluster.status("idfm")["stored"]
        wait_until(lambda: cluster.status("idfm")["stored"] > before + RATE, 45, cluster.told)
    finally:
        cluster.sh("worker_2", "sudo systemctl start kafka")
    cluster.settle(run)
    cluster.sh("master", "sudo berny-probe kafka --wait 90 --want healthy", timeout=120)


@pytest.mark.second_tier
def test_a_registration_is_held_against_the_running_process(cluster: Cluster) -> None:
    """A NodeManager that can't register is not the one before it, though that one still counts as running."""
    ports = "{ 8031 }"
    rule = f"add table inet berny_test; add chain inet berny_test out {{ type filter hook output priority 0; }}; \
add rule inet berny_test out tcp dport {ports} reject"
    cluster.sh("worker_0", f"sudo nft {shlex.quote(rule)}")
    try:
        cluster.sh("worker_0", "sudo systemctl restart yarn-nodemanager")

        def told() -> bool:
            found = health(cluster, "worker_0", "yarn-nodemanager")["yarn-nodemanager"]
            return "by an earlier process, not the current one" in found["detail"] and not found["ready"]

        wait_until(told, 60, lambda: str(health(cluster, "worker_0", "yarn-nodemanager")))
    finally:
        cluster.sh("worker_0", "sudo nft delete table inet berny_test")
    cluster.sh("worker_0", "sudo berny-probe yarn-nodemanager --want healthy --wait 120", timeout=150)


def test_no_process_takes_much_more_memory_than_its_budget(cluster: Cluster) -> None:
    """After everything that was done to it until now."""
    found = memory.uses(cluster.lab)
    assert len(found) > 10 and not [use for use in found if use.exceeds]
