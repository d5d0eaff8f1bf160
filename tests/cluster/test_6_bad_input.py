"""What a source, a person or a broken program can feed in: told, set aside, and nothing else is lost."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from berny.model.topology import CHECKOUT
from support import PYTHON, RATE, Cluster, play, wait_until

GARBAGE = ["no json", '{"identity": 7}', '{"identity": "cut in the mid', "\x00\xff", "[]"]
SEND = """
import sys
from confluent_kafka import Producer
p = Producer({"bootstrap.servers": "master:9092,worker_2:9092", "acks": "all"})
for line in eval(sys.argv[2]):
    p.produce(sys.argv[1], line.encode("utf-8", "surrogateescape"))
assert p.flush(30) == 0
"""


def ends(cluster: Cluster, topic: str) -> int:
    """Return how many records a topic has had."""
    said = cluster.sh("master", f"kafka-topics.sh --bootstrap-server master:9092 --describe --topic {topic}")
    assert "Leader: none" not in said
    code = (
        "import sys; from confluent_kafka import Consumer, TopicPartition as T; "
        "c = Consumer({'bootstrap.servers': 'master:9092', 'group.id': 'test-ends'}); "
        "m = c.list_topics(sys.argv[1], timeout=20).topics[sys.argv[1]].partitions; "
        "print(sum(c.get_watermark_offsets(T(sys.argv[1], p), timeout=20)[1] for p in m))"
    )
    return int(cluster.sh("master", f'{PYTHON} -c "{code}" {topic}'))


@pytest.fixture(scope="module", autouse=True)
def run(cluster: Cluster) -> Iterator[str]:
    """A run over all of these tests, ended by the set checker: whatever was fed in, no observation is lost."""
    run = f"bad-input-{time.time():.0f}"
    cluster.load(run, 5)
    yield run
    cluster.settle(run)


@pytest.mark.parametrize("topic", ["idfm-realtime", "idfm-processed"])
def test_garbage_on_a_topic_goes_to_its_dead_letters(cluster: Cluster, topic: str) -> None:
    before = ends(cluster, f"{topic}.dlq")
    cluster.sh("master", f"cat > /tmp/send.py <<'END'{SEND}END")
    cluster.sh("master", f"{PYTHON} /tmp/send.py {topic} {shlex.quote(repr(GARBAGE))}")
    wait_until(lambda: ends(cluster, f"{topic}.dlq") >= before + len(GARBAGE), 60, "not all garbage is a dead letter")
    letters = cluster.sh(
        "master",
        f"kafka-console-consumer.sh --bootstrap-server master:9092 --topic {topic}.dlq --partition 0 --offset {before}"
        f" --max-messages {len(GARBAGE)} --timeout-ms 30000",
    )
    for line in letters.strip().splitlines():
        letter = json.loads(line)
        assert letter["reason"] and letter["origin"]["topic"] == topic and letter["value_base64"], letter


@pytest.mark.parametrize("kind", ["429", "500", "cut", "empty", "twice", "out_of_order"])
def test_an_answer_that_fails_is_asked_for_again(cluster: Cluster, kind: str) -> None:
    cluster.lab.simulators["idfm"].ask("/_simulator/faults", {"kind": kind, "count": 2})
    served = cluster.lab.simulators["idfm"].ask("/_simulator/stats")["served"]
    ask = cluster.lab.simulators["idfm"].ask
    wait_until(lambda: ask("/_simulator/stats")["served"] > served + 20, 60, f"no answer after {kind}")


def test_a_malformed_answer_is_a_dead_letter(cluster: Cluster) -> None:
    before = ends(cluster, "idfm-realtime.dlq")
    cluster.lab.simulators["idfm"].ask("/_simulator/faults", {"kind": "malformed", "count": 1})
    wait_until(lambda: ends(cluster, "idfm-realtime.dlq") > before, 60, "the malformed answer is nowhere")


def test_a_bad_part_of_an_answer_is_alone_a_dead_letter(cluster: Cluster) -> None:
    """Two visits that are none and a delivery with an error: what is beside them the set checker asks for in the end."""
    before = ends(cluster, "idfm-realtime.dlq")
    cluster.lab.simulators["idfm"].ask("/_simulator/faults", {"kind": "bad_parts", "count": 1})
    wait_until(lambda: ends(cluster, "idfm-realtime.dlq") >= before + 3, 60, "the bad parts are nowhere")
    # What comes after them is published, and they are no more.
    cluster.serve(RATE * 5)
    assert ends(cluster, "idfm-realtime.dlq") == before + 3


def expired(cluster: Cluster) -> float:
    """Return how many records the consumer says were older than the bucket keeps."""
    code = "import urllib.request as u; print(u.urlopen('http://localhost:9302/metrics').read().decode())"
    said = cluster.sh("worker_2", f'{PYTHON} -c "{code}"')
    return sum(float(line.split()[1]) for line in said.splitlines() if line.startswith("berny_expired_records_total "))


def test_what_is_older_than_the_bucket_keeps_is_counted_and_no_dead_letter(cluster: Cluster) -> None:
    letters, before = ends(cluster, "idfm-processed.dlq"), expired(cluster)
    cluster.lab.simulators["idfm"].ask("/_simulator/faults", {"kind": "expired", "count": 1})
    wait_until(lambda: expired(cluster) > before, 60, "none is counted as expired")
    assert ends(cluster, "idfm-processed.dlq") == letters


@pytest.mark.parametrize(("kind", "why"), [("403", "PRIM_API_KEY"), ("400", "Le couple MonitoringRef/LineRef")])
def test_a_refused_call_stops_the_producer_and_says_why(cluster: Cluster, kind: str, why: str) -> None:
    cluster.lab.simulators["idfm"].ask("/_simulator/faults", {"kind": kind, "count": 1})
    unit = "berny-idfm-producer"
    wait_until(lambda: "failed" in cluster.sh("master", f"systemctl is-active {unit}", ok=False), 60, "it runs on")
    assert cluster.sh("master", f"systemctl show -P ExecMainStatus {unit}").strip() == "78"
    assert why in cluster.sh("master", f"sudo journalctl -u {unit} -n 30 --no-pager")
    # Waiting for a restart it would be activating (auto-restart).
    state = cluster.sh("master", f"systemctl show -p ActiveState -p SubState {unit}").split()
    assert sorted(state) == ["ActiveState=failed", "SubState=failed"], f"nobody asked it to go on: {state}"
    assert cluster.sh("master", f"systemctl list-jobs --no-legend {unit}.service") == ""
    if kind == "403":
        play("playbooks/pipelines.yml", "-e", "do=start")
    else:
        cluster.sh("master", f"sudo systemctl start --no-block {unit}")
    wait_until(
        lambda: "active" in cluster.sh("master", f"systemctl is-active {unit}", ok=False).split(), 60, "it is down"
    )


def test_a_wrong_inventory_touches_nothing(cluster: Cluster) -> None:
    before = cluster.processes()
    wrong = play("site.yml", "-e", "kafka_mesage_max_bytes=1", ok=False)
    assert wrong.code != 0 and "did you mean kafka_message_max_bytes?" in wrong.output, wrong.tail
    assert cluster.processes() == before


IMPOSSIBLE = {
    "kafka_heap": "10g",
    "hdfs_replication": 9,
    "firewall_operators": ["203.0.113.7/8"],
    "preflight_allow": ["orphn"],
}


def test_settings_that_cannot_be_touch_nothing(cluster: Cluster) -> None:
    """All that is wrong is told at once: what the inventory says by itself, and what the disks know better."""
    before = cluster.processes()
    wrong = play("site.yml", "-e", json.dumps(IMPOSSIBLE), "-e", "cluster_name=other", ok=False)
    for words in (
        "kafka_heap is 10g: allowed is an integer from 32",
        "hdfs_replication is 9: allowed is an integer from 1 to 3",
        "firewall_operators is ['203.0.113.7/8']: allowed is a list of addresses",
        "preflight_allow is ['orphn']: allowed is a list of any of",
        "hdfs_cluster_id is CID-berny-other, but the data here was created with CID-berny-",
    ):
        assert words in wrong.output, (words, wrong.output[-6000:])
    assert wrong.code != 0 and "PLAY [Converge the cluster]" not in wrong.output, wrong.tail
    assert "{{" not in wrong.output.partition("Nothing was touched")[2], wrong.tail
    assert cluster.processes() == before


def test_a_brokers_number_is_for_life(cluster: Cluster, tmp_path: Path) -> None:
    before = cluster.processes()
    inventory = tmp_path / "inventory"
    shutil.copytree(CHECKOUT / "inventory" / "lab", inventory)
    hosts = inventory / "hosts.yml"
    hosts.write_text(hosts.read_text().replace("kafka_broker_id: 2", "kafka_broker_id: 3"))
    wrong = play("site.yml", ok=False, inventory=str(inventory))
    assert wrong.code != 0, wrong.tail
    assert "worker_2: kafka_broker_id is 3, but the data here was created with 2" in wrong.output, wrong.tail
    assert cluster.processes() == before


@pytest.mark.second_tier
def test_a_taken_port_is_told_before_and_after(cluster: Cluster) -> None:
    """The preflight names who has it; a play without, or one that it is taken under, has host, unit and log line."""
    cluster.sh("master", "sudo systemctl stop zookeeper")
    # Connections that ZooKeeper had closed keep the port from whoever does not say that it may be used again.
    code = (
        "import socket as s, time; taker = s.socket(); taker.setsockopt(s.SOL_SOCKET, s.SO_REUSEADDR, 1);"
        ' taker.bind(("", 2181)); taker.listen(); time.sleep(120)'
    )
    taker = f"python3 -c {shlex.quote(code)}"
    cluster.sh("master", f"sudo systemd-run -q --collect --unit=taker {taker}")
    wait_until(lambda: ":2181" in cluster.sh("master", "ss -ltn"), 10, "the port is not taken")
    try:
        told = play("site.yml", "--tags", "zookeeper", ok=False)
        taken = play("playbooks/cluster.yml", "--tags", "zookeeper", ok=False)
    finally:
        cluster.sh("master", "sudo systemctl stop taker")
    assert told.code != 0 and "Nothing was touched" in told.output, told.tail
    assert re.search(r"master: port 2181 of zookeeper is taken by python3 \(process \d+, taker.service\)", told.output)
    assert taken.code != 0
    assert "zookeeper.service did not come back" in taken.output and "Address already in use" in taken.output, (
        taken.tail
    )
    play("site.yml", "--tags", "zookeeper")
    cluster.sh("master", "sudo berny-probe zookeeper kafka --wait 90 --want healthy")
