"""Observed, computed, stored; what is the oldest that waits; the delay now."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, TopicPartition
from influxdb_client import InfluxDBClient

from berny.pipelines.idfm.influx_consumer import GROUP
from berny.pipelines.idfm.points import MEASUREMENT
from berny.runtime.probe import Cluster, NotServing, get_json

TOKEN = Path("/etc/berny/influxdb/read.token")
REALTIME, PROCESSED = "idfm-realtime", "idfm-processed"
TIMEOUT = 10


def _ends(client: Consumer, topic: str) -> dict[int, tuple[int, int]]:
    partitions = client.list_topics(topic, timeout=TIMEOUT).topics[topic].partitions
    return {p: client.get_watermark_offsets(TopicPartition(topic, p), timeout=TIMEOUT) for p in partitions}


def _oldest(client: Consumer, topic: str, following: dict[int, int], ends: dict[int, tuple[int, int]]) -> float | None:
    """Return the Unix time of the oldest record at or after the offsets ``following``, or None."""
    waiting = [TopicPartition(topic, p, max(following.get(p, 0), low)) for p, (low, high) in ends.items()]
    waiting = [partition for partition in waiting if partition.offset < ends[partition.partition][1]]
    oldest = None
    for partition in waiting:
        client.assign([partition])
        message = client.poll(TIMEOUT)
        if message and not message.error():
            moment = message.timestamp()[1] / 1000
            oldest = min(oldest or moment, moment)
    client.unassign()
    return oldest


def _read_by_analytics(cluster: Cluster) -> dict[int, int]:
    stage = cluster.facts["pipelines"]["idfm"]["stages"]["analytics"]
    try:
        text = str(get_json(cluster.machine(stage["nodes"][0]), stage["metrics_port"], "/metrics"))
    except NotServing:
        return {}
    rows = [line for line in text.splitlines() if line.startswith("berny_input_offset{")]
    return {int(row.split('partition="')[1].split('"')[0]): int(float(row.rsplit(" ", 1)[1])) for row in rows}


def status() -> dict[str, Any]:
    """Return counts of records since the topics' beginning, ages in seconds, and the median delay by direction."""
    cluster = Cluster.load()
    servers = ",".join("{}:{}".format(*cluster.endpoint("kafka", "broker", node)) for node in cluster.nodes("kafka"))
    client = Consumer({"bootstrap.servers": servers, "group.id": GROUP, "enable.auto.commit": False, "log_level": 0})
    observed, computed = _ends(client, REALTIME), _ends(client, PROCESSED)
    committed = client.committed([TopicPartition(PROCESSED, p) for p in computed], timeout=TIMEOUT)
    stored = {partition.partition: max(partition.offset, 0) for partition in committed}
    now = time.time()
    waits = [
        _oldest(client, REALTIME, _read_by_analytics(cluster), observed),
        _oldest(client, PROCESSED, stored, computed),
    ]
    client.close()
    found: dict[str, Any] = {
        "observed": sum(high for _, high in observed.values()),
        "computed": sum(high for _, high in computed.values()),
        "stored": sum(stored.values()),
        "oldest_unprocessed_seconds": max((now - moment for moment in waits if moment), default=0.0),
    }
    return found | _from_influxdb(cluster)


def _from_influxdb(cluster: Cluster) -> dict[str, Any]:
    host, port = cluster.endpoint("influxdb", "http")
    bucket = next(iter(cluster.facts["pipelines"]["idfm"]["resources"]["influxdb"]))
    source = f'from(bucket: "{bucket}") |> range(start: -2h) |> filter(fn: (r) => r._measurement == "{MEASUREMENT}")'
    with InfluxDBClient(f"http://{host}:{port}", TOKEN.read_text().strip(), org="berny", timeout=10_000) as client:
        api = client.query_api()
        newest = api.query(
            f'{source} |> filter(fn: (r) => r._field == "identity") |> group() |> sort(columns: ["_time"]) |> last()'
        )
        delays = api.query(
            f'{source} |> filter(fn: (r) => r._field == "delay") |> range(start: -15m)'
            ' |> group(columns: ["direction"]) |> median()'
        )
    moments = [record.get_time().timestamp() for table in newest for record in table.records]
    return {
        "freshness_seconds": time.time() - max(moments) if moments else None,
        "delay_seconds_by_direction": {
            record.values["direction"]: record.get_value() for table in delays for record in table.records
        },
    }
