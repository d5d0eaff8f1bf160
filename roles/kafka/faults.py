"""Fault cases of Kafka: a full and a lost disk, garbage on topics, an expired ZooKeeper session, rolling restarts."""

from __future__ import annotations

from collections.abc import Iterator

from berny.faults import network
from berny.faults.cases import FaultCase, full, killed_convergence, rolling, to, wiped
from berny.faults.inject import shell
from berny.faults.targets import Targets
from berny.lab.harness import PYTHON
from berny.lab.lab import Lab
from berny.model.manifest import Pipeline

SEGMENT_BYTES = "kafka_log_segment_bytes"
OTHER_SEGMENT_BYTES = 33554432
SEND = """
import sys
from confluent_kafka import Producer
p = Producer({'bootstrap.servers': sys.argv[1], 'acks': 'all', 'message.max.bytes': 8000000})
for topic in sys.argv[2:]:
    for value in (b'no json', b'[]', b'', None, bytes(range(256)), b'{\\"identity\\": \\"x', b'x' * 3000000,
                  b'{\\"identity\\": \\"bench\\", \\"recorded_at\\": \\"1999-01-01T00:00:00Z\\"}'):
        p.produce(topic, value)
sys.exit(p.flush(60))
"""


def topics(pipeline: Pipeline) -> list[str]:
    """Return the topics that stages read."""
    read = {topic for stage in pipeline.stages for topic in pipeline.reads(stage, "topics")}
    return [topic for topic in pipeline.resources.get("topics", {}) if topic in read]


def garbage(lab: Lab, targets: Targets) -> None:
    """Write malformed records to all topics: invalid and truncated JSON, nothing, 3 MB, a point older than the retention."""
    brokers = targets.of("kafka")
    port = targets.port("kafka", "broker")
    servers = ",".join(f"{lab.machines[node].node.machine}:{port}" for node in brokers)
    names = [topic for pipeline in targets.pipelines.values() for topic in topics(pipeline)]
    shell(lab, brokers[0], f'{PYTHON} -c "{SEND}" {servers} {" ".join(names)}')


def fault_cases(targets: Targets) -> Iterator[FaultCase]:
    """Yield the cases."""
    brokers = targets.of("kafka")
    yield rolling("kafka", f"{SEGMENT_BYTES}={OTHER_SEGMENT_BYTES}")
    yield killed_convergence(SEGMENT_BYTES, OTHER_SEGMENT_BYTES)
    yield FaultCase(
        "garbage",
        "invalid and truncated JSON, empty records, 3 MB and a point of 1999 on all topics",
        to(garbage, targets),
        hold=10,
    )
    for node in brokers:
        yield full("kafka", node)
    if len(brokers) > 1:
        # The other brokers have copies of what was on it.
        yield wiped("kafka", brokers[-1])
    for zookeeper in targets.of("zookeeper"):
        for broker in [node for node in brokers if node != zookeeper][:1]:
            yield FaultCase(
                "session-zookeeper",
                f"the broker on {broker} does not reach ZooKeeper for 30 s: its session expires",
                to(network.cut_pair, zookeeper, broker, targets.port("zookeeper", "client")),
                network.heal,
                gentle=True,
            )
