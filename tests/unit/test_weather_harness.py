"""The harness of openweather against real stores: what was served is there once, and what is wrong is found."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from hadoop import Hdfs
from hbases import THRIFT, HBase
from simulated import Clock, Served
from weather import Database

from berny.pipelines.openweather import aggregates, consumer, harness, mapreduce, producer, reconcile
from berny.pipelines.openweather import days as openweather_days
from berny.pipelines.openweather import hbase as hbase_stage
from berny.pipelines.openweather.consumer import COLUMNS, EXPIRED
from berny.pipelines.openweather.controller.simulator import Simulator
from berny.pipelines.openweather.days import AGGREGATES
from berny.pipelines.openweather.export import Export
from berny.pipelines.openweather.export import Settings as ExportSettings
from berny.pipelines.openweather.hbase import Store
from berny.pipelines.openweather.openweather import OpenWeather
from berny.pipelines.openweather.reconcile import Compared
from berny.runtime import check
from berny.runtime.batch import SinkAway
from berny.runtime.check import Report, Sink, read_truth
from berny.runtime.files import Files
from berny.runtime.kafka import Origin
from berny.runtime.mapreduce import Job
from berny.runtime.probe import Cluster
from berny.runtime.readers import Unreadable
from berny.runtime.rows import Tables
from berny.runtime.sinks.hbase import HBaseTable
from berny.runtime.sinks.postgresql import PostgresSink
from berny.runtime.spool import Answer

ROOT = harness.FOLDER


@pytest.fixture
def chain(database: Database, hdfs: Hdfs, tmp_path: Path, clock: Clock) -> Iterator[Chain]:
    """A pipeline that has been through ten minutes."""
    hdfs.provide(ROOT, "openweather")
    made = Chain(database, hdfs, tmp_path, clock)
    made.poll(40)
    yield made
    made.served.close()


class Chain:
    """The pipeline without Kafka: polled from the simulator, inserted and exported."""

    def __init__(self, database: Database, hdfs: Hdfs, folder: Path, clock: Clock) -> None:
        self.database, self.clock = database, clock
        self.served = Served(Simulator(1, 10.0, folder / "truth.jsonl", clock))
        self.files = Files(hdfs.url, "openweather", ROOT)
        server = database.server
        self.tables = Tables(str(server.folder), server.port, "openweather", harness.READER)
        words = {
            "hdfs_web_url": hdfs.url,
            "hdfs_user": "openweather",
            "berny_raw_path": ROOT,
            "berny_state_dir": folder,
        }
        self._export = ExportSettings.model_validate(database.environment("export") | words)
        words |= {"kafka_bootstrap_servers": "-"}
        self._consumer = consumer.Settings.model_validate(database.environment("consumer") | words)

    def poll(self, count: int) -> None:
        """Have some observations served, stored and exported."""
        client = OpenWeather(self.served.url, "a key", ["Paris", "Nice", "Lille"])
        sink, offset = PostgresSink(self._consumer, COLUMNS, EXPIRED), self.served.simulator.answers
        for number in range(count):
            self.clock.now += 1200
            answer = Answer(number, self.clock.now, client.poll())
            for identity, record in producer.records(answer, "weather-api", "simulated"):
                assert identity
                sink.write([consumer.row(json.loads(record.value), Origin("id", 0, offset + number))])
        list(Export(self._export, self.files).work())

    def report(self, since: float = 0) -> Report:
        """Return what the checker finds."""
        deadline = time.monotonic() + 10
        while (text := self.served.simulator.truth.read_text()).count('"served"') < text.count('"identity"'):
            # A client may have a response a moment before that is noted.
            assert time.monotonic() < deadline
            time.sleep(0.01)
        sinks = [
            Sink("postgresql", "postgresql", lambda since: harness.rows(self.tables, since)),
            Sink("hdfs", "hdfs", lambda since: harness.lines(self.files, since)),
        ]
        return check.check(sinks, read_truth(text.splitlines(), harness.expected), since)


def counts(report: Report) -> list[tuple[int, int, int, int]]:
    """Return lost, duplicate, wrong and unexpected of PostgreSQL and HDFS."""
    return [(len(one.lost), one.duplicate, len(one.wrong), len(one.unexpected)) for one in report.sinks]


def test_all_that_was_served_is_in_both_once(chain: Chain) -> None:
    """Over midnight as well; what arrived before a moment is not read."""
    report = chain.report()
    assert report.clean and report.expected == 40 and [one.found for one in report.sinks] == [40, 40]
    assert len(chain.files.days()) == 2
    assert counts(chain.report(time.time() + 60)) == [(0, 0, 0, 0)] * 2


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ("DELETE FROM weather WHERE msg_offset % 10 = 3", (4, 0, 0, 0)),
        ("UPDATE weather SET temp = temp + 1 WHERE msg_offset = 3", (0, 0, 1, 0)),
        ("UPDATE weather SET date_time = date_time + interval '1 hour' WHERE msg_offset = 3", (0, 0, 1, 0)),
        ("UPDATE weather SET at = at + interval '1 second' WHERE msg_offset = 3", (0, 0, 1, 0)),
        (
            "UPDATE weather SET value = jsonb_set(value, '{measured,temp}', '1'), temp = 1 WHERE msg_offset = 3",
            (0, 0, 1, 0),
        ),
        ("UPDATE weather SET identity = 'other' WHERE msg_offset = 3", (1, 0, 0, 1)),
    ],
)
def test_what_is_wrong_with_rows_is_found(chain: Chain, change: str, found: tuple[int, ...]) -> None:
    chain.database.ask(change)
    assert counts(chain.report()) == [found, (0, 0, 0, 0)]


def _copy(files: Files, name: str, content: bytes) -> None:
    files.put("dt=2025-11-24/weather_00000000_" + "0" * 20 + "_" + "0" * 20 + ".json", content)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda files, name, content: files.remove(name), None),
        (_copy, "duplicate"),
        (lambda files, name, content: files.put(name.replace("dt=2025-11-24", "dt=2025-11-23"), content), "wrong"),
        (lambda files, name, content: files.put("dt=2025-11-24/aggregates.jsonl", content), "clean"),
        (lambda files, name, content: files.put("dt=2025-11-24/_" + name.rpartition("/")[2], content), "clean"),
    ],
)
def test_what_is_wrong_with_files_is_found(
    chain: Chain, change: Callable[[Files, str, bytes], None], found: str | None
) -> None:
    """A file that is lost, there twice, or in another day; what is no file of rows is passed over."""
    [name] = chain.files.sizes("dt=2025-11-24")
    content = chain.files.read(f"dt=2025-11-24/{name}")
    count = content.count(b"\n")
    assert 0 < count < 40
    change(chain.files, f"dt=2025-11-24/{name}", content)
    postgresql, hdfs = counts(chain.report())
    assert postgresql == (0, 0, 0, 0)
    expected: dict[Any, tuple[int, int, int, int]] = {None: (count, 0, 0, 0), "duplicate": (0, count, 0, 0)}
    expected |= {"wrong": (0, count, count, 0), "clean": (0, 0, 0, 0)}
    assert hdfs == expected[found]


def test_newest_and_stored_are_by_the_time_of_the_weather(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster({}, "here")
    monkeypatch.setattr(harness, "tables", lambda cluster: chain.tables)
    now = chain.clock.now
    assert harness.newest(cluster, now - 60) == int(now) and harness.newest(cluster, now + 1) is None
    assert harness.stored(cluster, now - 1800, now) == 1 and harness.stored(cluster, 0, now + 1) == 40
    assert chain.tables.query(harness.TO_EXPORT) == [(0, None)]
    chain.database.ask("UPDATE ref_date SET files = NULL")
    [(waiting, since)] = chain.tables.query(harness.TO_EXPORT)
    assert waiting == 40 and abs(time.time() - since) < 60


def test_tables_are_only_read_and_tell_who_is_away(chain: Chain) -> None:
    server = chain.database.server
    with pytest.raises(Unreadable, match="read-only transaction"):
        chain.tables.query("DELETE FROM weather RETURNING 1")
    assert chain.tables.query("SELECT count(*) FROM weather") == [(40,)]
    server.stop()
    try:
        for _ in range(2):
            with pytest.raises(Unreadable, match=str(server.port)):
                chain.tables.query("SELECT 1")
    finally:
        server.start()
    assert chain.tables.query("SELECT 1") == [(1,)]


# -- aggregates --------------------------------------------------------------------------------------------------------


@pytest.fixture
def table(hbase: HBase) -> HBaseTable:
    """The pipeline's table, which is empty."""
    if not any(name == b"weather:aggregates" for name in hbase.names()):
        hbase.tables(create={"weather:aggregates": {"families": ["a"], "versions": 1, "ttl": 2**31 - 1}})
    found = HBaseTable("127.0.0.1", hbase.port, "weather:aggregates")
    found.put({key: dict.fromkeys(cells) for key, cells in found.scan()})
    return found


def aggregate(chain: Chain) -> None:
    """Do what the job does."""

    def run(job: Job) -> None:
        days = [path.split("/")[-2] for path in job.inputs]
        lines = [
            line.decode()
            for day in days
            for name in chain.files.sizes(day)
            if name.startswith("weather_")
            for line in chain.files.lines(f"{day}/{name}")
        ]
        made = "".join(f"{json.dumps(one)}\n" for one in aggregates.aggregate(lines))
        outputs.put(f"{job.output.rpartition('/')[2]}/part-00000", made.encode())

    outputs = Files(chain.files.url, "root", "/jobs-of-openweather")
    list(mapreduce.Aggregation(chain.files, "", outputs, "", run).work(None))


def store(chain: Chain, table: HBaseTable, watermark: Any = None, table_id: str = "1") -> tuple[Any, int]:
    """Do what the stage does; return the watermark and how many rows were written."""
    steps = list(Store(chain.files, table, table_id).work(watermark))
    return (json.loads(json.dumps(steps[-1].watermark)) if steps else watermark), sum(step.records for step in steps)


def compared(chain: Chain, table: HBaseTable) -> Compared:
    """Compare all days."""
    return reconcile.compare(chain.tables, chain.files, table, 0)


def test_aggregates_are_in_hbase_as_in_their_files(chain: Chain, table: HBaseTable) -> None:
    """Each once; what has not been aggregated or stored yet is no error, but is told."""
    assert vars(compared(chain, table)) == vars(Compared(to_aggregate=2))
    aggregate(chain)
    count = len([line for day in chain.files.days() for line in chain.files.lines(f"{day}/{AGGREGATES}")])
    assert count == 6 and vars(compared(chain, table)) == vars(Compared(aggregates=count, to_store=count))
    watermark, written = store(chain, table)
    assert written == count
    assert vars(compared(chain, table)) == vars(Compared(aggregates=count, stored=count))
    files = {key: cells for day in chain.files.days() for key, cells in hbase_stage.rows(chain.files, day).items()}
    assert dict(table.scan()) == {
        key: {n: v for n, v in cells.items() if v is not None} for key, cells in files.items()
    }
    chain.poll(10)
    now = compared(chain, table)
    assert now.to_aggregate == 1 and now.aggregates < count and not now.wrong and not now.wrongly_stored
    aggregate(chain)
    store(chain, table, watermark)
    now = compared(chain, table)
    assert (now.aggregates, now.stored, now.to_aggregate, now.to_store) == (count, count, 0, 0)
    assert all(report.clean for report in now.reports())


def test_citys_last_days_are_its_first_rows(chain: Chain, table: HBaseTable) -> None:
    """By the key alone; another city's are not among them."""
    days = ["2025-12-31", "2026-01-01", "2025-11-24", "2026-01-02"]
    made = [{"day": day, "city_id": city, "temp_avg": None} for day in days for city in (2988507, 29, 298850)]
    table.put({hbase_stage.key(one): hbase_stage.cells(one) for one in made})
    found = list(table.scan(f"{2988507:010d}#", limit=3))
    assert [cells["a:day"].decode() for _, cells in found] == ["2026-01-02", "2026-01-01", "2025-12-31"]
    assert found[0][0] == "0002988507#79739897" and {*found[0][1]} == {"a:day", "a:city_id"}


def test_only_changed_days_are_stored_and_another_table_gets_all(
    chain: Chain, table: HBaseTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openweather_days, "SETTLED_SECONDS", -60)
    aggregate(chain)
    watermark, count = store(chain, table)
    assert store(chain, table, watermark) == (watermark, 0)
    assert store(chain, table, watermark, "2")[1] == count > 0


def test_hbase_that_is_away_gets_them_later(chain: Chain, table: HBaseTable, hbase: HBase) -> None:
    """The days that were stored stay so."""
    aggregate(chain)
    hbase.end(THRIFT)
    try:
        with pytest.raises(SinkAway):
            store(chain, table)
        with pytest.raises(Unreadable, match="weather:aggregates of HBase"):
            compared(chain, table)
    finally:
        hbase.start(THRIFT)
        hbase.wait()
    store(chain, table)
    assert compared(chain, table).to_store == 0


def test_what_is_wrong_with_aggregates_is_found(chain: Chain, table: HBaseTable) -> None:
    """Another number in the file, and another cell in HBase."""
    aggregate(chain)
    store(chain, table)
    path = f"dt=2025-11-24/{AGGREGATES}"
    lines = [json.loads(line) for line in chain.files.lines(path)]
    lines[0]["temp_max"] += 0.01
    chain.files.replace(path, "".join(f"{json.dumps(one)}\n" for one in lines).encode())
    key = hbase_stage.key(lines[1])
    table.put({key: {"a:temp_min": b"-99"}})
    found = compared(chain, table)
    assert found.wrong == {f"2025-11-24/{lines[0]['city']}"}
    assert found.wrongly_stored == {f"2025-11-24/{one['city']}" for one in lines[:2]}
    assert [(report.sink, len(report.wrong), report.clean) for report in found.reports()] == [
        ("aggregates", 1, False), ("hbase", 2, False),
    ]  # fmt: skip


def test_hbase_can_be_switched_off(tmp_path: Path) -> None:
    """HBASE_ENABLED: nothing is asked, and what was stored stays on record."""
    words = {
        "hbase_host": "nowhere",
        "hbase_port": "1",
        "hbase_table_id": "1",
        "hbase_enabled": "false",
        "hdfs_user": "x",
    }
    words |= {"berny_state_dir": str(tmp_path), "berny_pipeline": "p", "berny_stage": "s", "berny_metrics_port": "1"}
    own = hbase_stage.Settings.model_validate({**words, "hdfs_web_url": "http://nowhere:1"})
    hbase_stage.run(own, cast(Any, None))
    assert own.hbase_table == "weather:aggregates" and list(tmp_path.iterdir()) == []
