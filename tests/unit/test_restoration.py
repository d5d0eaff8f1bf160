"""What ZooKeeper is told of Kafka after its disk was lost: cluster, topics and epochs of the brokers' own disks."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

NUMBERS = {"master": 1, "worker_2": 2}
NOW = 1_800_000_000.0


def reached(epoch: int, offset: int = 0, size: int = 100) -> dict[str, int]:
    return {"epoch": epoch, "offset": offset, "bytes": size}


def disk(cluster: str, **topics: dict[str, dict[str, int]]) -> dict[str, Any]:
    """Return what the module says of a disk; topics by name, partitions by number."""
    return {
        "cluster_id": cluster,
        "topics": {name: {"id": f"id-{name}", "partitions": of} for name, of in topics.items()},
    }


def told(plan: dict[str, Any]) -> dict[str, Any]:
    """Return what is written, by path."""
    words = [line.split(" ") for line in plan["commands"].splitlines()]
    assert all(word[0] == "create" and len(word) in (2, 3) for word in words), "the shell ends a word at a space"
    paths = [word[1] for word in words]
    assert len(paths) == len(set(paths))
    for path in paths:
        above = path.rpartition("/")[0]
        assert not above or above in paths[: paths.index(path)], f"{path} is made before what is above it"
    return {word[1]: json.loads(word[2]) for word in words if len(word) == 3}


@pytest.fixture(scope="module")
def restoration(plugin: Callable[[str], ModuleType]) -> ModuleType:
    """The filters of the role ``kafka``."""
    return plugin("roles/kafka/filter_plugins/kafka_restoration.py")


FRESH = disk("new")
OLD = disk("old", idfm={"0": reached(4), "1": reached(7)}, __consumer_offsets={"0": reached(2)})


def test_nothing_is_lost_where_zookeeper_knows_the_disks_cluster(restoration: ModuleType) -> None:
    assert restoration.lost_zookeeper({"master": OLD, "worker_2": OLD}, "old") == []
    assert restoration.lost_zookeeper({"master": FRESH, "worker_2": disk("")}, "") == []


@pytest.mark.parametrize("known", ["new", ""])
def test_the_disk_of_the_other_broker_tells_all_of_it(restoration: ModuleType, known: str) -> None:
    """The lost broker has come back empty, and may have begun a cluster of its own."""
    plan = restoration.kafka_restoration({"master": FRESH, "worker_2": OLD}, known, NUMBERS, NOW)
    assert (plan["cluster_id"], plan["holders"], plan["empty"]) == ("old", ["worker_2"], ["master"])
    nodes = told(plan)
    assert nodes["/cluster/id"] == {"version": "1", "id": "old"}
    topic = nodes["/brokers/topics/idfm"]
    assert topic["partitions"] == {"0": [2, 1], "1": [2, 1]} and topic["topic_id"] == "id-idfm"
    state = nodes["/brokers/topics/idfm/partitions/1/state"]
    assert (state["leader"], state["isr"], state["leader_epoch"]) == (2, [2], 8), "newer than any epoch on disk"
    assert nodes["/config/topics/__consumer_offsets"]["config"]["cleanup.policy"] == "compact", (
        "or offsets are forgotten"
    )


def test_no_producer_gets_an_id_that_the_logs_know(restoration: ModuleType) -> None:
    """With an id of before, its first batch would pass for one that is there already, and be dropped."""
    block = told(restoration.kafka_restoration({"master": FRESH, "worker_2": OLD}, "", NUMBERS, NOW))[
        "/latest_producer_id_block"
    ]
    assert int(block["block_start"]) == NOW * 1000 and int(block["block_end"]) - int(block["block_start"]) == 999


@pytest.mark.parametrize(
    ("master", "worker", "leader"),
    [
        (reached(5), reached(4, 900), 1),
        (reached(5, 100), reached(5, 200), 2),
        (reached(5, 100, 40), reached(5, 100, 30), 1),
    ],
)
def test_who_came_farthest_leads(
    restoration: ModuleType, master: dict[str, int], worker: dict[str, int], leader: int
) -> None:
    disks = {"master": disk("old", idfm={"0": master}), "worker_2": disk("old", idfm={"0": worker})}
    nodes = told(restoration.kafka_restoration(disks, "", NUMBERS, NOW))
    assert nodes["/brokers/topics/idfm"]["partitions"]["0"] == [leader, 3 - leader]
    assert nodes["/brokers/topics/idfm/partitions/0/state"]["leader_epoch"] == 6


def test_disks_of_several_clusters_are_refused(restoration: ModuleType) -> None:
    other = disk("other", idfm={"0": reached(1)})
    with pytest.raises(ValueError, match="master, worker_2 have topics of 2 clusters: old, other"):
        restoration.kafka_restoration({"master": other, "worker_2": OLD}, "", NUMBERS)


def test_module_reads_a_broker_disk(plugin: Callable[[str], ModuleType], tmp_path: Path) -> None:
    """Folders that Kafka is about to delete, and a file system's own, are no partitions."""
    for name in ("idfm-realtime.dlq-0", "idfm-0.5f3a-delete", "lost+found"):
        (tmp_path / name).mkdir()
    folder = tmp_path / "idfm-realtime.dlq-0"
    (folder / "partition.metadata").write_text("version: 0\ntopic_id: l3CvaKYDQAWfdig2zNmYXw")
    (folder / "leader-epoch-checkpoint").write_text("0\n2\n0 0\n7 40\n")
    (folder / f"{40:020d}.log").write_bytes(b"x" * 12)
    (folder / f"{0:020d}.log").write_bytes(b"x" * 99)
    of = {"epoch": 7, "offset": 40, "bytes": 12}
    found = plugin("roles/kafka/library/kafka_disk.py").topics(tmp_path)
    assert found == {"idfm-realtime.dlq": {"id": "l3CvaKYDQAWfdig2zNmYXw", "partitions": {"0": of}}}
    assert plugin("roles/kafka/library/kafka_disk.py").topics(tmp_path / "none") == {}
