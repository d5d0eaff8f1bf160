"""The probe of a broker, and the check of a pipeline's topics."""

from __future__ import annotations

from typing import Any

from berny.runtime.probe import TIMEOUT, Answer, Cluster, NotReady, Probe


def kafka(cluster: Cluster, node: str) -> Answer:
    """Ready if this broker's metadata say that it is registered and that every partition has a leader."""
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient

    host, port = cluster.endpoint("kafka", "broker", node)
    client = AdminClient({"bootstrap.servers": f"{host}:{port}", "socket.timeout.ms": 4000, "log_level": 0})
    try:
        metadata = client.list_topics(timeout=TIMEOUT)
    except KafkaException as error:
        raise NotReady(f"{host}:{port} metadata: {error.args[0].str()}") from None
    registered = {str(broker.host) for broker in metadata.brokers.values()}
    expected = {cluster.machine(other) for other in cluster.nodes("kafka")}
    if host not in registered:
        raise NotReady(f"{host}:{port} responds, but is not registered; registered: {sorted(registered) or 'none'}")
    partitions = [
        (f"{topic.topic}-{number}", partition)
        for topic in metadata.topics.values()
        for number, partition in topic.partitions.items()
    ]
    leaderless = [name for name, partition in partitions if partition.leader == -1]
    if leaderless:
        raise NotReady(f"{host}:{port} {len(leaderless)} partitions have no leader: {', '.join(leaderless[:3])}")
    behind = [name for name, partition in partitions if set(partition.isrs) != set(partition.replicas)]
    missing = sorted(expected - registered)
    detail = f"{len(registered)} of {len(expected)} brokers, {len(partitions)} partitions, {len(behind)} behind"
    if missing:
        detail += f", away: {', '.join(missing)}"
    return not missing and not behind, detail


def resources(cluster: Cluster, pipeline: dict[str, Any]) -> list[str]:
    """Return the topics of a pipeline that do not exist."""
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient

    servers = ",".join("{}:{}".format(*cluster.endpoint("kafka", "broker", node)) for node in cluster.nodes("kafka"))
    client = AdminClient({"bootstrap.servers": servers, "socket.timeout.ms": 4000, "log_level": 0})
    try:
        known = client.list_topics(timeout=TIMEOUT).topics
    except KafkaException as error:
        raise NotReady(f"{servers} metadata: {error.args[0].str()}") from None
    return [
        f"the topic {topic} does not exist" for topic in pipeline["resources"].get("topics", {}) if topic not in known
    ]


SERVICES: dict[str, Probe] = {"kafka": kafka}
