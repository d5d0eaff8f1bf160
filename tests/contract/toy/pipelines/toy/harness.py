"""How lab, tests and fault bench know the pipeline: its sinks, its spool, and what flows now."""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterable, Iterator
from pathlib import Path
from typing import Any

from berny.pipelines.toy import source
from berny.pipelines.toy.keeper import GROUP, TOPIC
from berny.runtime import readers
from berny.runtime.check import Sink
from berny.runtime.probe import Cluster, get_json
from berny.runtime.readers import LandedFiles, Topic, addresses, url
from berny.runtime.response import MalformedResponse, Observation

SHELF, RAW = "toy_latest", "/data/toy/raw"
SPOOL = Path("/data/berny-toy/spool.sqlite")


def identities(body: bytes) -> set[str]:
    """Return the identities of a response's items; what is no response has none."""
    try:
        parts = source.observations(json.loads(body))
    except (ValueError, RecursionError, MalformedResponse):
        return set()
    return {part.identity for part in parts if isinstance(part, Observation)}


def numbers(records: Iterable[dict[str, Any]]) -> Iterator[tuple[str, int]]:
    """Yield identity and number of the records that have them."""
    for record in records:
        if isinstance(record.get("identity"), str) and isinstance(record.get("item"), dict):
            yield record["identity"], record["item"]["number"]


def shelf(cluster: Cluster, query: str) -> dict[str, Any]:
    """Return items of the shelf by their identities."""
    host, port = cluster.endpoint("shelf", "http")
    return dict(get_json(host, port, f"/shelves/{SHELF}?{query}"))


def shelved(cluster: Cluster, since: float) -> Iterator[tuple[str, int]]:
    """Yield identity and number of what the shelf got since a Unix time."""
    for identity, item in shelf(cluster, f"since={since}").items():
        yield identity, item["value"]["number"]


def topic(cluster: Cluster) -> Topic:
    """Return the pipeline's topic."""
    return Topic(addresses(cluster, "kafka", "broker"), TOPIC)


def expected(line: dict[str, Any]) -> tuple[Hashable, float | None]:
    """Return the number, and when it was recorded."""
    return line["number"], line["recorded"]


def sinks(cluster: Cluster) -> list[Sink]:
    """Return HDFS, the topic and the shelf."""
    return [
        LandedFiles(url(cluster, "hdfs-namenode", "web"), "toy", RAW, identities).sink(),
        topic(cluster).sink(numbers),
        Sink("shelf", "shelf", lambda since: shelved(cluster, since)),
    ]


def spooled(since: float) -> Iterator[str]:
    """Yield what the collector has kept since a Unix time."""
    return readers.spooled(SPOOL, since, identities)


def newest(cluster: Cluster, since: float) -> float | None:
    """Return when the newest of the items that were stored last was recorded."""
    found = [float(item["value"]["at"]) for item in shelf(cluster, "last=200").values()]
    return max((moment for moment in found if moment >= since), default=None)


def stored(cluster: Cluster, since: float, until: float) -> int:
    """Return how many items of the shelf were recorded from a Unix time on and before another."""
    found = [float(item["value"]["at"]) for item in shelf(cluster, f"since={since}").values()]
    return sum(since <= moment < until for moment in found)


def status(cluster: Cluster) -> dict[str, Any]:
    """Return counts of records since the topic's beginning."""
    observed = topic(cluster)
    return {"observed": observed.count(), "stored": sum(observed.committed(GROUP).values())}
