"""The interface of lab, tests and fault bench to the pipeline: its sinks, its spool and its status."""

from __future__ import annotations

import json
import time
from collections.abc import Hashable, Iterable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from berny.model import names
from berny.pipelines.openweather import export, openweather, reconcile
from berny.pipelines.openweather.consumer import GROUP
from berny.pipelines.openweather.reconcile import Compared
from berny.runtime import readers
from berny.runtime.check import Sink, SinkReport
from berny.runtime.files import DAY, Files
from berny.runtime.probe import Cluster
from berny.runtime.readers import Topic, Unreadable, addresses, url
from berny.runtime.response import MalformedResponse, Observation
from berny.runtime.rows import DayFiles, Tables
from berny.runtime.sinks.hbase import HBaseTable

PIPELINE = "openweather"
TOPIC = "weather-api"
FOLDER = "/user/hdfs/weather"
SPOOL = Path(names.data(PIPELINE)) / "spool.sqlite"
TABLE = "weather:aggregates"
PENDING_SECONDS = 86400
"""How far back the status searches for days that wait for a timer."""
SOCKET, READER = "/run/postgresql", "berny_read"
# What the columns say is compared with the record beside them here; the record, with the ground truth.
ROWS = """
SELECT identity, (value ->> 'dt')::bigint, value -> 'measured' FROM weather
WHERE stored_at >= to_timestamp(%s)
"""
DIFFERENT = """
SELECT identity FROM weather, LATERAL (
    SELECT value -> 'measured' AS measured, (value ->> 'dt')::bigint AS dt) AS said, LATERAL (
    SELECT (measured ->> 'temp')::float8 AS told_temp, (measured ->> 'aqi')::float8 AS told_aqi) AS told
WHERE stored_at >= to_timestamp(%s) AND (at <> to_timestamp(dt) OR date_time <> at AT TIME ZONE 'Europe/Paris'
    OR identity <> value ->> 'identity' OR temp IS DISTINCT FROM told_temp OR aqi IS DISTINCT FROM told_aqi)
"""
NEWEST = "SELECT extract(epoch FROM max(at))::float8 FROM weather WHERE at >= to_timestamp(%s)"
COUNT = "SELECT count(*) FROM weather WHERE at >= to_timestamp(%s) AND at < to_timestamp(%s)"
TO_EXPORT = """
SELECT count(*), extract(epoch FROM min(stored_at))::float8 FROM weather WHERE xid >= coalesce(
    (SELECT begins FROM ref_date WHERE files IS NULL ORDER BY begins LIMIT 1),
    (SELECT following FROM ref_date ORDER BY begins DESC LIMIT 1), '0'::xid8)
"""


def topic(cluster: Cluster) -> Topic:
    """Return the pipeline's topic."""
    return Topic(addresses(cluster, "kafka", "broker"), TOPIC)


@cache
def _tables(port: int) -> Tables:
    return Tables(SOCKET, port, PIPELINE, READER)


def tables(cluster: Cluster) -> Tables:
    """Return the pipeline's database, over the socket: the harness runs on the server's node."""
    return _tables(cluster.endpoint("postgresql-server", "sql")[1])


def folder(cluster: Cluster) -> Files:
    """Return the pipeline's directory in HDFS."""
    return Files(url(cluster, "hdfs-namenode", "web"), PIPELINE, FOLDER)


def identities(body: bytes) -> set[str]:
    """Return the identity of what a poll has returned; what is no weather has none."""
    try:
        parts = openweather.observations(json.loads(body))
    except (ValueError, RecursionError, MalformedResponse):
        return set()
    return {part.identity for part in parts if isinstance(part, Observation)}


def value(record: dict[str, Any]) -> Hashable:
    """Return what is compared of an observation: the moment, and what is measured of the weather.

    The air is not: it is told beside the weather, and may be another one when that is told again.
    """
    measured = {name: number for name, number in record["measured"].items() if name != "aqi"}
    return record["dt"], tuple(sorted(measured.items()))


def values(records: Iterable[dict[str, Any]]) -> Iterator[tuple[str, Hashable]]:
    """Yield identity and value of the records that have them."""
    for record in records:
        if isinstance(record.get("identity"), str) and isinstance(record.get("measured"), dict):
            yield record["identity"], value(record)


def expected(line: dict[str, Any]) -> tuple[Hashable, float | None]:
    """Return the value, and when it was measured."""
    return value(line), float(line["dt"])


def rows(found: Tables, since: float) -> Iterator[tuple[str, Hashable]]:
    """Yield identity and value of each row stored since a Unix time; where columns and record differ, the value is None."""
    different = {identity for (identity,) in found.query(DIFFERENT, since)}
    for identity, moment, measured in found.query(ROWS, since):
        yield identity, None if identity in different else value({"dt": moment, "measured": measured})


def lines(files: Files, since: float) -> Iterator[tuple[str, Hashable]]:
    """Yield identity and value of each line written since a Unix time; in the folder of another day, the value is None."""
    for day, line in DayFiles(files, export.FILE.pattern).lines(since):
        record = line["value"]
        yield record["identity"], value(record) if day == f"{DAY}{line['date_time'][:10]}" else None


def compared(cluster: Cluster, since: float) -> Compared:
    """Return how aggregates and HBase compare, of days that were written to since a Unix time."""
    return reconcile.compare(
        tables(cluster), folder(cluster), HBaseTable(*cluster.endpoint("hbase-thrift", "thrift"), TABLE), since
    )


class Lines:
    """The lines in HDFS as a sink, with the aggregates of the days that were read."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._since = 0.0

    def read(self, since: float) -> Iterator[tuple[str, Hashable]]:
        """Yield identity and value of each line written since a Unix time."""
        self._since = since
        return lines(folder(self._cluster), since)

    def audit(self) -> list[SinkReport]:
        """Report aggregates that are not those of the rows, and rows of HBase that are not the aggregates."""
        return compared(self._cluster, self._since).reports()


def sinks(cluster: Cluster) -> list[Sink]:
    """Return the topic, PostgreSQL and HDFS."""
    files = Lines(cluster)
    return [
        topic(cluster).sink(values),
        Sink("postgresql", "postgresql", lambda since: rows(tables(cluster), since)),
        Sink("hdfs", "hdfs", files.read, audit=files.audit),
    ]


def spooled(since: float) -> Iterator[str]:
    """Yield the identities that the producer has stored since a Unix time."""
    return readers.spooled(SPOOL, since, identities)


def newest(cluster: Cluster, since: float) -> float | None:
    """Return when the newest row was measured."""
    [(moment,)] = tables(cluster).query(NEWEST, since)
    return None if moment is None else float(moment)


def stored(cluster: Cluster, since: float, until: float) -> int:
    """Return how many rows were measured from a Unix time on and before another."""
    [(count,)] = tables(cluster).query(COUNT, since, until)
    return int(count)


def status(cluster: Cluster) -> dict[str, Any]:
    """Return counts of records since the topic was created, and what waits: ages in seconds, rows, days and aggregates."""
    observed, now = topic(cluster), time.time()
    done = observed.committed(GROUP)
    oldest = observed.oldest(done)
    [(waiting, since)] = tables(cluster).query(TO_EXPORT)
    found = {
        "observed": observed.count(),
        "stored": sum(done.values()),
        "oldest_unprocessed_seconds": now - oldest if oldest else 0.0,
        "to_export": waiting,
        "oldest_to_export_seconds": now - since if since else 0.0,
    }
    # The rest can be told without HBase.
    with suppress(Unreadable):
        aggregates = compared(cluster, now - PENDING_SECONDS)
        found |= {"days_to_aggregate": aggregates.to_aggregate, "aggregates_to_store": aggregates.to_store}
    return found
