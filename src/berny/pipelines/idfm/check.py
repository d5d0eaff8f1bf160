"""Hold every sink of the pipeline against the truth: ``python3 -m berny.pipelines.idfm.check --truth FILE``, on a node."""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from confluent_kafka import Consumer, TopicPartition
from hdfs import InsecureClient
from influxdb_client import Dialect, InfluxDBClient

from berny.model.catalog import seconds
from berny.pipelines.idfm import prim
from berny.pipelines.idfm.points import MEASUREMENT
from berny.pipelines.idfm.status import PROCESSED, REALTIME, TIMEOUT, TOKEN
from berny.runtime.landing import FILE
from berny.runtime.probe import Cluster
from berny.runtime.setcheck import Report, SinkReport, check_sink

Value = float | None
STALE_SECONDS = 86400
AT_ONCE_SECONDS = 0.2


@dataclass
class Truth:
    """What was served: the delay by identity, of some runs and of all; when each was served first, and by which answer."""

    expected: dict[str, Value]
    served: set[str]
    at: dict[str, float]
    answer: dict[str, tuple[str, int]]
    spooled: set[str]
    """What the spool says that it has kept."""
    recorded: dict[str, float]
    """Unix seconds of RecordedAtTime."""

    def kept(self, seconds: float) -> dict[str, Value]:
        """Return what is expected of a sink that takes nothing older than so many seconds."""
        too_old = {one for one, moment in self.recorded.items() if moment < self.at[one] - seconds}
        return {one: value for one, value in self.expected.items() if one not in too_old}


def read_truth(file: TextIO, runs: Collection[str] | None = None) -> Truth:
    """Read the simulator's truth; only answers that were written to the socket whole are expected anywhere.

    The source repeats itself: an observation belongs to the run that told it first. Lines of ``spooled`` may follow.
    """
    answers: dict[tuple[str, int], list[dict[str, Any]]] = {}
    whole: set[tuple[str, int]] = set()
    truth = Truth({}, set(), {}, {}, set(), {})
    for line in file:
        entry = json.loads(line)
        if "spooled" in entry:
            truth.spooled.add(entry["spooled"])
            continue
        key = (entry["run"], entry["answer"])
        if entry.get("served"):
            whole.add(key)
        elif "identity" in entry:
            answers.setdefault(key, []).append(entry)
    first: dict[str, str] = {}
    for key, entries in answers.items():
        for entry in entries:
            truth.served.add(entry["identity"])
            own = first.setdefault(entry["identity"], key[0])
            if key in whole and (runs is None or own in runs):
                truth.expected[entry["identity"]] = None if entry["cancelled"] else entry["delay"]
                truth.at.setdefault(entry["identity"], entry["at"])
                truth.answer.setdefault(entry["identity"], key)
                recorded_at = prim.moment(entry.get("recorded_at"))
                if recorded_at:
                    truth.recorded[entry["identity"]] = recorded_at.timestamp()
    return truth


def topic_records(bootstrap_servers: str, topic: str, since: float = 0) -> Iterator[dict[str, Any]]:
    """Yield every JSON record of a topic, from its beginning, or a Unix time, to where it ends now."""
    settings = {"bootstrap.servers": bootstrap_servers, "group.id": "berny-check", "enable.auto.commit": False}
    client = Consumer({**settings, "enable.partition.eof": False, "log_level": 0})
    partitions = client.list_topics(topic, timeout=TIMEOUT).topics[topic].partitions
    ends = {p: client.get_watermark_offsets(TopicPartition(topic, p), timeout=TIMEOUT) for p in partitions}
    asked = [TopicPartition(topic, p, int(since * 1000)) for p in partitions]
    for found in client.offsets_for_times(asked, timeout=TIMEOUT) if since else []:
        # Where there is none since, the offset is negative.
        low, high = ends[found.partition]
        ends[found.partition] = (max(low, found.offset if found.offset >= 0 else high), high)
    left = {p: high for p, (low, high) in ends.items() if high > low}
    client.assign([TopicPartition(topic, p, ends[p][0]) for p in left])
    last = time.monotonic()
    while left:
        # It waits until it has all of them.
        messages = client.consume(1000, AT_ONCE_SECONDS)
        last = time.monotonic() if messages else last
        if time.monotonic() - last > TIMEOUT:
            raise TimeoutError(
                f"{topic}: no record in {TIMEOUT} s, partitions {sorted(left)} are not read to their ends"
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
    client.close()


def realtime(records: Iterable[dict[str, Any]]) -> Iterator[tuple[str, bool]]:
    """Yield identity, and whether it is the visit's own."""
    for record in records:
        if isinstance(record.get("identity"), str) and isinstance(record.get("visit"), dict):
            yield record["identity"], prim.identity(record["visit"]) == record["identity"]


def processed(records: Iterable[dict[str, Any]]) -> Iterator[tuple[str, Value]]:
    """Yield identity and delay."""
    for record in records:
        if isinstance(record.get("identity"), str) and "delay_sec" in record:
            yield record["identity"], record["delay_sec"]


def landed(url: str, root: str, since: float = 0) -> tuple[set[str], SinkReport]:
    """Return the identities in HDFS, and a report on the files: no offset in two of them, no line twice.

    Names are looked at of all files, contents of those that were written since a Unix time.
    """
    client = InsecureClient(url, user="idfm", timeout=30)
    identities: set[str] = set()
    ranges: list[tuple[int, int]] = []
    lines: list[bytes] = []
    for folder in client.list(root) if client.status(root, strict=False) else []:
        for name, status in client.list(f"{root}/{folder}", status=True):
            match = FILE.fullmatch(name)
            if not match:
                continue
            ranges.append((int(match["first"]), int(match["last"])))
            if status["modificationTime"] < since * 1000:
                continue
            with client.read(f"{root}/{folder}/{name}") as reader:
                own = reader.read().splitlines()
            lines += own
            for line in own:
                # JSON that is no answer is landed as it came.
                with suppress(prim.MalformedAnswer):
                    identities |= {prim.identity(visit) for visit in prim.visits(json.loads(line))}
    ranges.sort()
    doubled = sum(1 for (_, last), (first, _) in itertools.pairwise(ranges) if first <= last)
    doubled += len(lines) - len(set(lines))
    return identities, SinkReport("hdfs files", len(ranges), frozenset(), doubled, frozenset(), frozenset())


def points(url: str, bucket: str, since: float = 0) -> Iterator[tuple[str, Value]]:
    """Yield identity and delay of every point recorded since a Unix time; a point without a delay yields None."""
    flux = (
        f'from(bucket: "{bucket}") |> range(start: {int(since)}, stop: 2100-01-01T00:00:00Z)'
        f' |> filter(fn: (r) => r._measurement == "{MEASUREMENT}" and (r._field == "delay" or r._field == "identity"))'
    )
    found: dict[tuple[str, ...], dict[str, str]] = {}
    columns: list[str] = []
    with InfluxDBClient(url, TOKEN.read_text().strip(), org="berny", timeout=60_000) as client:
        # As CSV, a time keeps its nanoseconds.
        for row in client.query_api().query_csv(flux, dialect=Dialect(header=True, annotations=[])):
            if "_field" in row:
                columns = row
            elif len(row) == len(columns):
                cells = dict(zip(columns, row, strict=True))
                key = tuple(cells.get(name, "") for name in ("_time", "direction", "line", "mission", "slot", "stop"))
                found.setdefault(key, {})[cells["_field"]] = cells["_value"]
    for fields in found.values():
        if "identity" in fields:
            yield fields["identity"], float(fields["delay"]) if "delay" in fields else None


def check(cluster: Cluster, truth: Truth, since: float = 0) -> Report:
    """Return the report over what came into HDFS, both topics and InfluxDB since a Unix time."""
    servers = ",".join("{}:{}".format(*cluster.endpoint("kafka", "broker", node)) for node in cluster.nodes("kafka"))
    resources = cluster.facts["pipelines"]["idfm"]["resources"]
    (root,), ((bucket, keys),) = resources["hdfs"], resources["influxdb"].items()
    hdfs_url = "http://{}:{}".format(*cluster.endpoint("hdfs-namenode", "web"))
    influx_url = "http://{}:{}".format(*cluster.endpoint("influxdb", "http"))
    in_hdfs, files = landed(hdfs_url, root, since)
    in_realtime = list(realtime(topic_records(servers, REALTIME, since)))
    in_processed = list(processed(topic_records(servers, PROCESSED, since)))
    # A train may be told hours after it was recorded.
    in_influxdb = list(points(influx_url, bucket, max(0.0, since - STALE_SECONDS)))
    # The spool forgets in the end: what a sink has was kept as well.
    kept = in_hdfs.union(
        truth.spooled, *({identity for identity, _ in held} for held in (in_realtime, in_processed, in_influxdb))
    )
    unspooled = frozenset(truth.expected.keys() - kept)
    expected = {identity: value for identity, value in truth.expected.items() if identity not in unspooled}
    there = dict.fromkeys(expected, True)
    # A bucket takes nothing that is older than it keeps.
    kept_there = truth.kept(seconds(keys["keep"]))
    reports = [
        check_sink("hdfs", ((identity, True) for identity in in_hdfs), there, truth.served),
        files,
        check_sink(REALTIME, in_realtime, there, truth.served, duplicates_allowed=True),
        check_sink(PROCESSED, in_processed, expected, truth.served, duplicates_allowed=True),
        check_sink(
            "influxdb", in_influxdb, {one: expected[one] for one in kept_there if one in expected}, truth.served
        ),
    ]
    return Report(len(truth.expected), unspooled, reports)


def main() -> int:
    """Print the report; 0 where it is clean."""
    parser = argparse.ArgumentParser(prog="berny-idfm-check", description=__doc__)
    parser.add_argument(
        "--truth", required=True, help="the simulator's truth, with lines of the spool; - for standard input"
    )
    parser.add_argument("--run", action="append", help="only answers of this run, or of these, are expected")
    parser.add_argument("--since", type=float, default=0, help="only what sinks got since this Unix time is read")
    parser.add_argument("--json", action="store_true")
    words = parser.parse_args()
    if words.truth == "-":
        truth = read_truth(sys.stdin, words.run)
    else:
        with Path(words.truth).open() as file:
            truth = read_truth(file, words.run)
    report = check(Cluster.load(), truth, words.since)
    if words.json:
        sinks = {
            sink.sink: {
                "found": sink.found,
                "lost": len(sink.lost),
                "duplicate": sink.duplicate,
                "wrong": len(sink.wrong),
                "unexpected": len(sink.unexpected),
            }
            for sink in report.sinks
        }
        told: dict[str, Any] = {"clean": report.clean, "expected": report.expected, "unspooled": len(report.unspooled)}
        # One moment for each answer that was not kept, in Unix seconds.
        told["unspooled_at"] = sorted({truth.answer[one]: truth.at[one] for one in report.unspooled}.values())
        print(json.dumps(told | {"sinks": sinks}))
    else:
        print(report)
    return 0 if report.clean else 1


if __name__ == "__main__":
    sys.exit(main())
