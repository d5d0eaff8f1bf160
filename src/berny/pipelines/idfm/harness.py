"""The interface of lab, tests and fault bench to the pipeline: its sinks, its spool and its status."""

from __future__ import annotations

import json
import time
from collections.abc import Hashable, Iterable, Iterator
from pathlib import Path
from typing import Any

from berny.model import names
from berny.model.component import seconds
from berny.pipelines.idfm import prim
from berny.pipelines.idfm.influx_consumer import GROUP
from berny.runtime import readers
from berny.runtime.check import Sink, present
from berny.runtime.probe import Cluster
from berny.runtime.readers import Bucket, LandedFiles, Topic, addresses, url

PIPELINE = "idfm"
REALTIME, PROCESSED = "idfm-realtime", "idfm-processed"
SPOOL = Path(names.data(PIPELINE)) / "spool.sqlite"
TOKEN = Path("/etc/berny/influxdb/read.token")


def declared(cluster: Cluster, kind: str) -> tuple[str, dict[str, Any]]:
    """Return the name of the pipeline's only resource of a kind, and its entry in the manifest."""
    (found,) = cluster.facts["pipelines"][PIPELINE]["resources"][kind].items()
    return str(found[0]), dict(found[1])


def topic(cluster: Cluster, name: str) -> Topic:
    """Return one of the pipeline's topics."""
    return Topic(addresses(cluster, "kafka", "broker"), name)


def bucket(cluster: Cluster) -> Bucket:
    """Return the pipeline's measurement."""
    name, words = declared(cluster, "influxdb")
    return Bucket(url(cluster, "influxdb", "http"), TOKEN, name, words["measurement"])


def identities(body: bytes) -> set[str]:
    """Return the identities of a response's visits; none if it is malformed."""
    try:
        return {prim.identity(visit) for visit in prim.visits(json.loads(body))}
    except (ValueError, RecursionError, prim.MalformedAnswer):
        return set()


def realtime(records: Iterable[dict[str, Any]]) -> Iterator[tuple[str, bool]]:
    """Yield identity, and whether it matches the visit."""
    for record in records:
        if isinstance(record.get("identity"), str) and isinstance(record.get("visit"), dict):
            yield record["identity"], prim.identity(record["visit"]) == record["identity"]


def processed(records: Iterable[dict[str, Any]]) -> Iterator[tuple[str, float | None]]:
    """Yield identity and delay."""
    for record in records:
        if isinstance(record.get("identity"), str) and "delay_sec" in record:
            yield record["identity"], record["delay_sec"]


def expected(line: dict[str, Any]) -> tuple[Hashable, float | None]:
    """Return the delay and the time of recording; a cancelled train has no delay."""
    recorded = prim.moment(line.get("recorded_at"))
    return None if line["cancelled"] else line["delay"], recorded.timestamp() if recorded else None


def sinks(cluster: Cluster) -> list[Sink]:
    """Return HDFS, both topics and InfluxDB."""
    _, points = declared(cluster, "influxdb")
    landed, _ = declared(cluster, "hdfs")
    return [
        LandedFiles(url(cluster, "hdfs-namenode", "web"), PIPELINE, landed, identities).sink(),
        topic(cluster, REALTIME).sink(realtime, present),
        topic(cluster, PROCESSED).sink(processed),
        bucket(cluster).sink("delay", points["tags"], seconds(points["keep"])),
    ]


def spooled(since: float) -> Iterator[str]:
    """Yield the identities that the producer has stored since a Unix time."""
    return readers.spooled(SPOOL, since, identities)


def newest(cluster: Cluster, since: float) -> float | None:
    """Return when the newest point was recorded, by a field that every point has."""
    return bucket(cluster).newest("cancelled", since)


def stored(cluster: Cluster, since: float, until: float) -> int:
    """Return how many points were recorded from a Unix time on and before another."""
    return bucket(cluster).count("identity", since, until)


def status(cluster: Cluster) -> dict[str, Any]:
    """Return counts of records since the topics were created, ages in seconds, and the median delay by direction."""
    observed, computed = topic(cluster, REALTIME), topic(cluster, PROCESSED)
    stored, now = computed.committed(GROUP), time.time()
    waits = [observed.oldest(readers.read_by_query(cluster, PIPELINE, "analytics")), computed.oldest(stored)]
    points = bucket(cluster)
    delays = points.query(points.flux("-15m", "delay") + ' |> group(columns: ["direction"]) |> median()')
    return {
        "observed": observed.count(),
        "computed": computed.count(),
        "stored": sum(stored.values()),
        "oldest_unprocessed_seconds": max((now - moment for moment in waits if moment), default=0.0),
        "delay_seconds_by_direction": {one.values["direction"]: one.get_value() for one in delays},
    }
