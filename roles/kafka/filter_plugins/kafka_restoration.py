"""What a lost disk held, from what others still hold: Kafka's part of ZooKeeper, from the brokers' own disks.

A broker's disk names its cluster (``meta.properties``), and each partition's topic (``partition.metadata``) and leader
epochs. ZooKeeper, which is empty, has to say the same before a broker starts: a broker refuses another cluster, a partition
of another topic, and an epoch that is no newer than what it has seen.
The paths and JSON of ZooKeeper are those of kafka.zk.ZkData, versions 1 to 3.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

OFFSETS = "__consumer_offsets"
OFFSETS_CONFIGURATION = {"cleanup.policy": "compact", "compression.type": "producer", "segment.bytes": "104857600"}
"""What the group coordinator gives the topic that it makes."""
IDS = 1000
"""Producer ids of a block."""


def lost_zookeeper(disks: Mapping[str, Mapping[str, Any]], known: str) -> list[str]:
    """Return the nodes whose disks hold topics of a Kafka cluster that ZooKeeper does not know.

    Args:
        disks: by node, what the module ``kafka_disk`` returns.
        known: ``/cluster/id`` of ZooKeeper; empty where there is none.
    """
    return sorted(node for node, disk in disks.items() if disk["topics"] and disk["cluster_id"] != known)


def kafka_restoration(
    disks: Mapping[str, Mapping[str, Any]], known: str, numbers: Mapping[str, int], now: float | None = None
) -> dict[str, Any]:
    """Return what ZooKeeper's shell is to be told (``commands``), which brokers hold it and which are to be emptied.

    A partition is led by the disk that has come farthest: by leader epoch, then by its last segment. A broker that does not
    hold the old cluster, as one whose disk was lost as well, begins empty and copies.

    Args:
        disks: by node, what the module ``kafka_disk`` returns.
        known: ``/cluster/id`` of ZooKeeper; empty where there is none.
        numbers: each node's broker id.
        now: Unix time in seconds.

    Raises:
        ValueError: the disks are of several clusters.
    """
    holders = lost_zookeeper(disks, known)
    clusters = sorted({str(disks[node]["cluster_id"]) for node in holders})
    if len(clusters) != 1:
        raise ValueError(f"{', '.join(holders)} hold topics of {len(clusters)} clusters: {', '.join(clusters)}")
    empty = sorted(disks.keys() - set(holders))
    # Ids given out before are in the logs, with the numbers of their batches: given out again, new batches pass for old ones.
    first = int((time.time() if now is None else now) * 1000)
    block = {"version": 1, "broker": numbers[holders[0]], "block_start": str(first), "block_end": str(first + IDS - 1)}
    nodes: list[tuple[str, Any]] = [
        ("/cluster/id", {"version": "1", "id": clusters[0]}),
        ("/latest_producer_id_block", block),
    ]
    for topic in sorted({topic for node in holders for topic in disks[node]["topics"]}):
        held = {node: disks[node]["topics"][topic] for node in holders if topic in disks[node]["topics"]}
        partitions, states = {}, {}
        for number in sorted({number for one in held.values() for number in one["partitions"]}, key=int):
            reached = {
                node: tuple(one["partitions"][number][word] for word in ("epoch", "offset", "bytes"))
                for node, one in held.items()
                if number in one["partitions"]
            }
            order = sorted(reached, key=lambda node: reached[node], reverse=True)
            replicas = [numbers[node] for node in order]
            replicas += [numbers[node] for node in empty][: max(0, 2 - len(replicas))]
            partitions[number] = replicas
            epoch = max(epoch for epoch, _, _ in reached.values()) + 1
            states[number] = {
                "controller_epoch": 1, "leader": replicas[0], "version": 1, "leader_epoch": epoch, "isr": replicas[:1],
            }  # fmt: skip
        identity = next(one["id"] for one in held.values() if one["id"])
        told = {"removing_replicas": {}, "partitions": partitions, "topic_id": identity, "adding_replicas": {}}
        configuration = OFFSETS_CONFIGURATION if topic == OFFSETS else {}
        nodes.append((f"/config/topics/{topic}", {"version": 1, "config": configuration}))
        nodes.append((f"/brokers/topics/{topic}", {**told, "version": 3}))
        nodes += [(f"/brokers/topics/{topic}/partitions/{number}/state", state) for number, state in states.items()]
    return {"cluster_id": clusters[0], "holders": holders, "empty": empty, "commands": _commands(nodes)}


def _commands(nodes: list[tuple[str, Any]]) -> str:
    """Return what makes the nodes, for ZooKeeper's shell, which ends a word at a space."""
    made: set[str] = set()
    lines = []
    for path, value in nodes:
        parts = path.split("/")
        for above in ("/".join(parts[:end]) for end in range(2, len(parts))):
            if above not in made:
                lines.append(f"create {above}")
                made.add(above)
        lines.append(f"create {path} {json.dumps(value, separators=(',', ':'))}")
        made.add(path)
    return "\n".join(lines) + "\n"


class FilterModule:
    """The filters by name."""

    def filters(self) -> dict[str, Any]:
        """Return the filters of this file."""
        return {"kafka_restoration": kafka_restoration, "lost_zookeeper": lost_zookeeper}
