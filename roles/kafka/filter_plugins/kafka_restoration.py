"""Restores Kafka's part of a lost ZooKeeper from the brokers' disks.

A broker's disk has the id of its cluster (``meta.properties``), and for each partition the topic id (``partition.metadata``)
and the leader epochs. An empty ZooKeeper must get the same values before a broker starts, since a broker refuses another
cluster id, another topic id, and a leader epoch that is not newer than its own.
Source of ZooKeeper's paths and JSON: kafka.zk.ZkData, versions 1 to 3.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

OFFSETS = "__consumer_offsets"
OFFSETS_CONFIGURATION = {"cleanup.policy": "compact", "compression.type": "producer", "segment.bytes": "104857600"}
"""The configuration with which the group coordinator creates the topic."""
IDS = 1000
"""Producer ids per block."""


def lost_zookeeper(disks: Mapping[str, Mapping[str, Any]], known: str) -> list[str]:
    """Return the nodes whose disks have topics of a Kafka cluster that ZooKeeper does not have.

    Args:
        disks: results of the module ``kafka_disk`` by node.
        known: ``/cluster/id`` of ZooKeeper; empty if there is none.
    """
    return sorted(node for node, disk in disks.items() if disk["topics"] and disk["cluster_id"] != known)


def kafka_restoration(
    disks: Mapping[str, Mapping[str, Any]], known: str, numbers: Mapping[str, int], now: float | None = None
) -> dict[str, Any]:
    """Return input for ZooKeeper's shell (``commands``), the brokers with data, and those whose disks have to be emptied.

    The leader of a partition is the broker with the most recent data: by leader epoch, then by the last segment. A broker
    without data of the old cluster, whose disk was lost as well, starts empty and replicates.

    Args:
        disks: results of the module ``kafka_disk`` by node.
        known: ``/cluster/id`` of ZooKeeper; empty if there is none.
        numbers: broker ids by node.
        now: Unix time in seconds.

    Raises:
        ValueError: the disks belong to several clusters.
    """
    holders = lost_zookeeper(disks, known)
    clusters = sorted({str(disks[node]["cluster_id"]) for node in holders})
    if len(clusters) != 1:
        raise ValueError(f"{', '.join(holders)} have topics of {len(clusters)} clusters: {', '.join(clusters)}")
    empty = sorted(disks.keys() - set(holders))
    # Producer ids must not be reused: with an id and sequence numbers that are in the logs, new batches count as duplicates.
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
    """Return commands of ZooKeeper's shell that create the nodes; JSON must not contain spaces there."""
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
