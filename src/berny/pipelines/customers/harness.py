"""The interface of lab, tests and fault bench to the pipeline: its sinks, its deposit and its status."""

from __future__ import annotations

import json
import time
from collections.abc import Hashable, Iterable, Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

from berny.model import names
from berny.pipelines.customers.records import identity
from berny.runtime import delimited, deposit, readers
from berny.runtime.check import Sink, present
from berny.runtime.compaction import parts
from berny.runtime.files import Files, FilesError
from berny.runtime.parts import STATES, complete
from berny.runtime.probe import Cluster
from berny.runtime.readers import Topic, Unreadable, addresses, url
from berny.runtime.rows import Tables

PIPELINE = "customers"
RAW, USA, ALERTS = "customers-raw", "customers-usa", "customers-alerts"
FOLDERS = {"usa": "/user/maria_dev/customers_usa", "incomplete": "/user/maria_dev/customers_alerts"}
SPOOL = Path(names.data(PIPELINE))
SOCKET, READER = "/run/postgresql", "berny_read"
ROWS = "SELECT identity, customer_id, email, subscription_date::text FROM customers WHERE stored_at >= to_timestamp(%s)"
ALERT_ROWS = "SELECT identity, reasons FROM customers_alerts WHERE stored_at >= to_timestamp(%s)"
NEWEST = "SELECT extract(epoch FROM max(observed_at))::float8 FROM customers WHERE observed_at >= to_timestamp(%s)"
COUNT = "SELECT count(*) FROM customers WHERE observed_at >= to_timestamp(%s) AND observed_at < to_timestamp(%s)"
REASONS = """
SELECT reason, count(*) FROM customers_alerts, unnest(reasons) AS reason
WHERE stored_at >= now() - interval '1 hour' GROUP BY 1 ORDER BY 1
"""

Values = Mapping[str, Any]


def topic(cluster: Cluster, name: str) -> Topic:
    """Return one of the pipeline's topics."""
    return Topic(addresses(cluster, "kafka", "broker"), name)


@cache
def _tables(port: int) -> Tables:
    return Tables(SOCKET, port, PIPELINE, READER)


def tables(cluster: Cluster) -> Tables:
    """Return the pipeline's database, over the socket: the harness runs on the server's node."""
    return _tables(cluster.endpoint("postgresql-server", "sql")[1])


def folder(cluster: Cluster, kind: str) -> Files:
    """Return the directory of a kind of rows."""
    return Files(url(cluster, "hdfs-namenode", "web"), PIPELINE, FOLDERS[kind])


def customer(record: Mapping[str, Any]) -> Hashable:
    """Return what is compared of a customer of the USA."""
    return tuple(record.get(name) for name in ("customer_id", "email", "subscription_date"))


def expected(line: dict[str, Any]) -> tuple[Hashable, float | None]:
    """Return what is to become of a row, and when it was served."""
    what = customer(line) if line["kind"] == "usa" else tuple(sorted(line["reasons"]))
    return (line["kind"], what), float(line["at"])


def of_kind(kind: str, wanted: Values) -> dict[str, Any]:
    """Return what is expected of a kind."""
    return {one: value for one, value in wanted.items() if value[0] == kind}


def last_of_each(wanted: Values) -> dict[str, Any]:
    """Return the last row of each customer of the USA, in the order in which they were served."""
    last = {value[1][0]: one for one, value in wanted.items() if value[0] == "usa"}
    return {one: wanted[one] for one in last.values()}


def value(kind: str, record: Mapping[str, Any]) -> Hashable:
    """Return the value of a record."""
    return kind, customer(record) if kind == "usa" else tuple(sorted(record["reasons"]))


def values(kind: str, records: Iterable[dict[str, Any]]) -> Iterator[tuple[str, Hashable]]:
    """Yield identity and value of records that have them."""
    for record in records:
        if isinstance(record.get("identity"), str):
            yield record["identity"], value(kind, record)


def raw(records: Iterable[dict[str, Any]]) -> Iterator[tuple[str, bool]]:
    """Yield the identities of records."""
    return ((record["identity"], True) for record in records if isinstance(record.get("identity"), str))


def lines(files: Files, since: float) -> Iterator[dict[str, Any]]:
    """Yield the objects of JSON files that were written since a Unix time.

    Raises:
        Unreadable: HDFS does not respond, or refuses.
    """
    try:
        modified = files.modified("")
        for part in parts(modified):
            if modified[part.name] >= since:
                yield from map(json.loads, files.lines(part.name))
    except FilesError as error:
        raise Unreadable(str(error)) from None


def stored_lines(cluster: Cluster, kind: str, since: float) -> Iterator[tuple[str, Hashable]]:
    """Yield identity and value of each line of a directory that was written since a Unix time."""
    return values(kind, lines(folder(cluster, kind), since))


def sinks(cluster: Cluster) -> list[Sink]:
    """Return the topics, both directories and the tables."""
    found = [topic(cluster, RAW).sink(raw, present)]
    for kind, name in (("usa", USA), ("incomplete", ALERTS)):
        chosen = partial(of_kind, kind)
        found.append(topic(cluster, name).sink(partial(values, kind), chooses=chosen))
        label = f"hdfs {FOLDERS[kind].rpartition('/')[2]}"
        found.append(Sink(label, "hdfs", partial(stored_lines, cluster, kind), chooses=chosen))

    def rows(since: float) -> Iterator[tuple[str, Hashable]]:
        for name, *fields in tables(cluster).query(ROWS, since):
            yield name, ("usa", tuple(fields))

    def alerts(since: float) -> Iterator[tuple[str, Hashable]]:
        for name, reasons in tables(cluster).query(ALERT_ROWS, since):
            yield name, ("incomplete", tuple(sorted(reasons)))

    return [
        *found,
        Sink("customers", "postgresql", rows, chooses=last_of_each),
        Sink("customers_alerts", "postgresql", alerts, chooses=partial(of_kind, "incomplete")),
    ]


def spooled(since: float) -> Iterator[str]:
    """Yield the identities of rows in versions that the producer has stored since a Unix time."""
    for version, done in deposit.look(SPOOL, since):
        count = version.row
        if not done:
            coding = delimited.encoding(version.path)
            begin = version.offset or delimited.header(version.path, coding)[1]
            count += sum(1 for _ in delimited.rows(version.path, coding, begin, 0))
        yield from (identity(version.name, number) for number in range(1, count + 1))


def newest(cluster: Cluster, since: float) -> float | None:
    """Return when the newest row of the table was stored by the producer."""
    [(moment,)] = tables(cluster).query(NEWEST, since)
    return None if moment is None else float(moment)


def stored(cluster: Cluster, since: float, until: float) -> int:
    """Return how many rows of the table were stored by the producer from a Unix time on and before another."""
    [(count,)] = tables(cluster).query(COUNT, since, until)
    return int(count)


def status(cluster: Cluster) -> dict[str, Any]:
    """Return counts of records since the topics were created, ages in seconds, and the alerts of an hour by reason."""
    observed, usa, now = topic(cluster, RAW), topic(cluster, USA), time.time()
    done, stored_to = (readers.read_by_query(cluster, PIPELINE, name) for name in ("kafka-hdfs", "db"))
    waits = [observed.oldest(done), usa.oldest(stored_to)]
    states = complete(folder(cluster, "usa").sizes(STATES))
    return {
        "observed": observed.count(),
        "usa": usa.count(),
        "alerts": topic(cluster, ALERTS).count(),
        "stored": sum(stored_to.values()),
        "batches": sum(last + 1 for last in states.values()),
        "oldest_unprocessed_seconds": max((now - moment for moment in waits if moment), default=0.0),
        "alerts_of_an_hour": dict(tables(cluster).query(REASONS)),
    }
