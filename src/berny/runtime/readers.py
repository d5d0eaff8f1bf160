"""Readers of topics, landed files and buckets, from which harnesses are built."""

from __future__ import annotations

import functools
import itertools
import json
import time
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, TopicPartition
from hdfs import InsecureClient
from influxdb_client import Dialect, InfluxDBClient
from influxdb_client.rest import ApiException
from urllib3.exceptions import HTTPError

from berny.runtime.check import Sink, SinkReport, present, same
from berny.runtime.landing import FILE
from berny.runtime.probe import Cluster, NotReady, get_json
from berny.runtime.spool import look

TIMEOUT = 10
AT_ONCE_SECONDS = 0.2
STALE_SECONDS = 86400
"""A source may serve what it recorded hours ago."""
GROUP = "berny-check"

Identities = Callable[[bytes], Iterable[str]]
"""Returns the identities of the observations in a response, none if it can't be parsed."""


@functools.lru_cache(maxsize=4)
def connected(url: str, token: str, seconds: float) -> InfluxDBClient:
    """Return a client of InfluxDB that keeps its connections: a new one costs more than what it asks for."""
    return InfluxDBClient(url, token, org="berny", timeout=int(seconds * 1000))


class Unreadable(Exception):
    """A sink does not respond; the message says why."""


def addresses(cluster: Cluster, service: str, port: str) -> str:
    """Return host and port of each instance of a service, separated by commas."""
    return ",".join("{}:{}".format(*cluster.endpoint(service, port, node)) for node in cluster.nodes(service))


def url(cluster: Cluster, service: str, port: str) -> str:
    """Return the address of a service's first instance for HTTP."""
    return "http://{}:{}".format(*cluster.endpoint(service, port))


def spooled(path: Path, since: float, identities: Identities) -> Iterator[str]:
    """Yield the identities in the responses that wait in a spool, and those that it remembers as published.

    Raises:
        sqlite3.Error: the file can't be read.
    """
    published, answers = look(path, since)
    yield from published
    for answer in answers:
        yield from identities(answer.body)


# -- topics --------------------------------------------------------------------------------------------------------


class Topic:
    """A topic of JSON records."""

    def __init__(self, servers: str, name: str) -> None:
        self.servers = servers
        self.name = name

    def _client(self, group: str = GROUP) -> Consumer:
        settings = {"bootstrap.servers": self.servers, "group.id": group, "enable.auto.commit": False}
        return Consumer({**settings, "enable.partition.eof": False, "log_level": 0})

    def _ends(self, client: Consumer) -> dict[int, tuple[int, int]]:
        partitions = client.list_topics(self.name, timeout=TIMEOUT).topics[self.name].partitions
        return {p: client.get_watermark_offsets(TopicPartition(self.name, p), timeout=TIMEOUT) for p in partitions}

    def count(self) -> int:
        """Return how many records it has had since it was created."""
        with closing(self._client()) as client:
            return sum(high for _, high in self._ends(client).values())

    def committed(self, group: str) -> dict[int, int]:
        """Return a consumer group's offsets by partition."""
        with closing(self._client(group)) as client:
            partitions = [TopicPartition(self.name, p) for p in self._ends(client)]
            return {one.partition: max(one.offset, 0) for one in client.committed(partitions, timeout=TIMEOUT)}

    def oldest(self, following: dict[int, int]) -> float | None:
        """Return the Unix time of the oldest record at or after the offsets ``following``, or None."""
        oldest = None
        with closing(self._client()) as client:
            for number, (low, high) in self._ends(client).items():
                first = max(following.get(number, 0), low)
                if first >= high:
                    continue
                client.assign([TopicPartition(self.name, number, first)])
                message = client.poll(TIMEOUT)
                if message and not message.error():
                    moment = message.timestamp()[1] / 1000
                    oldest = min(oldest or moment, moment)
        return oldest

    def records(self, since: float = 0) -> Iterator[dict[str, Any]]:
        """Yield every JSON record, from the topic's beginning, or a Unix time, to its current end.

        Raises:
            TimeoutError: no record arrives, although the end was not reached.
        """
        with closing(self._client()) as client:
            ends = self._ends(client)
            asked = [TopicPartition(self.name, p, int(since * 1000)) for p in ends]
            for found in client.offsets_for_times(asked, timeout=TIMEOUT) if since else []:
                # The offset is negative if there is no record since then.
                low, high = ends[found.partition]
                ends[found.partition] = (max(low, found.offset if found.offset >= 0 else high), high)
            left = {p: high for p, (low, high) in ends.items() if high > low}
            client.assign([TopicPartition(self.name, p, ends[p][0]) for p in left])
            last = time.monotonic()
            while left:
                # The call waits for all 1000 until this time is over.
                messages = client.consume(1000, AT_ONCE_SECONDS)
                last = time.monotonic() if messages else last
                if time.monotonic() - last > TIMEOUT:
                    raise TimeoutError(
                        f"{self.name}: no record in {TIMEOUT} s, partitions {sorted(left)} are not read to the end"
                    )
                for message in messages:
                    partition, offset = message.partition(), message.offset()
                    if message.error() or partition is None or offset is None:
                        continue
                    if offset + 1 >= ends[partition][1]:
                        left.pop(partition, None)
                    try:
                        record = json.loads(message.value() or b"null")
                    except ValueError:
                        continue
                    if isinstance(record, dict):
                        yield record

    def sink(
        self,
        values: Callable[[Iterable[dict[str, Any]]], Iterable[tuple[str, Hashable]]],
        expects: Callable[[Any], Hashable] = same,
        chooses: Callable[[Mapping[str, Any]], Mapping[str, Any]] = same,
    ) -> Sink:
        """Return the topic as a sink; ``values`` yields identity and value of the records that have them."""
        return Sink(
            self.name, "kafka", lambda since: values(self.records(since)), expects, transport=True, chooses=chooses
        )


def read_by_query(cluster: Cluster, pipeline: str, stage: str) -> dict[int, int]:
    """Return the offsets of a stage that is a Spark query by partition; empty if it does not respond."""
    facts = cluster.facts["pipelines"][pipeline]["stages"][stage]
    try:
        text = str(get_json(cluster.machine(facts["nodes"][0]), facts["metrics_port"], "/metrics"))
    except NotReady:
        return {}
    lines = [line for line in text.splitlines() if line.startswith("berny_input_offset{")]
    return {int(line.split('partition="')[1].split('"')[0]): int(float(line.rsplit(" ", 1)[1])) for line in lines}


# -- landed files --------------------------------------------------------------------------------------------------


class LandedFiles:
    """Files that ``landing`` has written below an HDFS directory, one response per line."""

    def __init__(self, url: str, user: str, root: str, identities: Identities) -> None:
        self.client = InsecureClient(url, user=user, timeout=30)
        self.root = root
        self.identities = identities
        self._ranges: list[tuple[int, int]] = []
        self._lines: list[bytes] = []

    def read(self, since: float = 0) -> Iterator[tuple[str, bool]]:
        """Yield each identity once. Only files written since a Unix time are read; the names of all are recorded."""
        self._ranges, self._lines = [], []
        client = self.client
        for folder in client.list(self.root) if client.status(self.root, strict=False) else []:
            for name, status in client.list(f"{self.root}/{folder}", status=True):
                match = FILE.fullmatch(name)
                if not match:
                    continue
                self._ranges.append((int(match["first"]), int(match["last"])))
                if status["modificationTime"] < since * 1000:
                    continue
                with client.read(f"{self.root}/{folder}/{name}") as reader:
                    self._lines += reader.read().splitlines()
        # A source repeats observations, so identities recur. Lines must not.
        found = {identity for line in self._lines for identity in self.identities(line)}
        yield from ((identity, True) for identity in found)

    def audit(self) -> list[SinkReport]:
        """Report offsets that are in two files, and lines that occur twice."""
        ranges = sorted(self._ranges)
        doubled = sum(1 for (_, last), (first, _) in itertools.pairwise(ranges) if first <= last)
        doubled += len(self._lines) - len(set(self._lines))
        none: frozenset[str] = frozenset()
        return [SinkReport("hdfs files", len(ranges), none, doubled, none, none, component="hdfs")]

    def sink(self) -> Sink:
        """Return the files as a sink."""
        return Sink("hdfs", "hdfs", self.read, present, audit=self.audit)


# -- buckets -------------------------------------------------------------------------------------------------------


class Bucket:
    """A measurement in an InfluxDB bucket, whose points have their identity as a field."""

    def __init__(self, url: str, token: Path, bucket: str, measurement: str) -> None:
        self.url, self.token, self.bucket, self.measurement = url, token, bucket, measurement

    def flux(self, start: str, *fields: str, stop: str = "now()") -> str:
        """Return the first part of a query: some fields of the points in a range."""
        wanted = " or ".join(f'r._field == "{name}"' for name in fields)
        return (
            f'from(bucket: "{self.bucket}") |> range(start: {start}, stop: {stop})'
            f' |> filter(fn: (r) => r._measurement == "{self.measurement}" and ({wanted}))'
        )

    def query(self, flux: str, seconds: float = TIMEOUT) -> list[Any]:
        """Return the records that a query returns.

        Raises:
            Unreadable: InfluxDB does not respond, or refuses.
        """
        try:
            # The token is read each time: it changes when InfluxDB is restored after the loss of its disk.
            client = connected(self.url, self.token.read_text().strip(), seconds)
            return [record for table in client.query_api().query(flux) for record in table.records]
        except (ApiException, HTTPError) as error:
            raise Unreadable(f"{self.url}: {error}") from None

    def newest(self, field: str, since: float) -> float | None:
        """Return the Unix time of the newest point that has a field, None if there is none since a Unix time."""
        last = ' |> last() |> keep(columns: ["_time"]) |> group() |> max(column: "_time")'
        found = self.query(self.flux(str(int(since)), field) + last, 5)
        return float(found[0].get_time().timestamp()) if found else None

    def count(self, field: str, since: float, until: float) -> int:
        """Return how many points with a field were recorded from a Unix time on and before another."""
        found = self.query(self.flux(f"{since:.0f}", field, stop=f"{until:.0f}") + " |> group() |> count()", 5)
        return int(found[0].get_value()) if found else 0

    def points(self, field: str, tags: Collection[str], since: float = 0) -> Iterator[tuple[str, float | None]]:
        """Yield identity and a field of every point recorded since a Unix time; a point without the field yields None."""
        # The far end of the range includes points of a clock that was ahead.
        flux = self.flux(str(int(since)), field, "identity", stop="2100-01-01T00:00:00Z")
        found: dict[tuple[str, ...], dict[str, str]] = {}
        columns: list[str] = []
        client = connected(self.url, self.token.read_text().strip(), 60)
        # CSV keeps the nanoseconds of times.
        for row in client.query_api().query_csv(flux, dialect=Dialect(header=True, annotations=[])):
            if "_field" in row:
                columns = row
            elif len(row) == len(columns):
                cells = dict(zip(columns, row, strict=True))
                key = tuple(cells.get(name, "") for name in ("_time", *sorted(tags)))
                found.setdefault(key, {})[cells["_field"]] = cells["_value"]
        for fields in found.values():
            if "identity" in fields:
                yield fields["identity"], float(fields[field]) if field in fields else None

    def sink(self, field: str, tags: Collection[str], keep: float) -> Sink:
        """Return the measurement as a sink that keeps points for ``keep`` seconds."""

        def read(since: float) -> Iterator[tuple[str, float | None]]:
            # Points have the time of recording, which may be long before they were served.
            return self.points(field, tags, max(0.0, since - STALE_SECONDS))

        return Sink("influxdb", "influxdb", read, keep=keep)
