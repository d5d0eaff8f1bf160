"""The consumer of openweather: rows in a real PostgreSQL, by its own role; times over both clock changes."""

from __future__ import annotations

import datetime as dt
import json
import threading
from pathlib import Path
from signal import SIGKILL
from typing import Any

import pytest
from memory import Crash, Group, Topics
from psycopg2.errors import InsufficientPrivilege
from weather import Database, record

from berny.pipelines.openweather import consumer
from berny.pipelines.openweather.aggregates import measures
from berny.pipelines.openweather.consumer import COLUMNS, EXPIRED, Settings, row
from berny.runtime.batch import BatchConsumer, SinkAway
from berny.runtime.kafka import Origin
from berny.runtime.sinks.postgresql import PostgresSink

NOON = 1_763_985_600
SPRING, AUTUMN = 1_774_746_000, 1_792_890_000
"""2026-03-29 and 2026-10-25, 01:00 UTC: 3 o'clock follows 2, and 2 o'clock comes twice."""


def settings(database: Database, **other: Any) -> Settings:
    """Return the consumer's environment."""
    words = database.environment("consumer") | {"kafka_bootstrap_servers": "-", "berny_state_dir": Path("/nowhere")}
    words |= {"hdfs_web_url": "http://nowhere:1", "hdfs_user": "openweather"}
    return Settings.model_validate(words | {"berny_batch_seconds": 0.01} | other)


def sink(database: Database) -> PostgresSink:
    """Return the consumer's sink."""
    return PostgresSink(settings(database), COLUMNS, EXPIRED)


def consume(
    database: Database, group: Group, topics: Topics | None = None, sink_: Any = None, size: int = 5000
) -> None:
    """Run a consumer until all is committed."""
    stop = threading.Event()
    reader = group.reader()
    commit = reader.commit

    def stopping(batch: Any) -> None:
        commit(batch)
        if group.committed == len(group.values):
            stop.set()

    reader.commit = stopping  # type: ignore[method-assign]
    own = settings(database, berny_batch_records=size)
    BatchConsumer(own, "weather-api", reader, topics or Topics(), sink_ or sink(database), row, stop).run()


def encoded(*records: Any) -> list[bytes | None]:
    """Return values of a topic."""
    return [json.dumps(one).encode() for one in records]


@pytest.mark.parametrize(
    ("moment", "paris"),
    [
        (NOON, "2025-11-24 13:00:00"),
        (SPRING - 1, "2026-03-29 01:59:59"),
        (SPRING, "2026-03-29 03:00:00"),
        (AUTUMN - 3600, "2026-10-25 02:00:00"),
        (AUTUMN - 1, "2026-10-25 02:59:59"),
        (AUTUMN, "2026-10-25 02:00:00"),
        (AUTUMN + 3600, "2026-10-25 03:00:00"),
    ],
)
def test_time_is_that_of_paris_and_unambiguous_beside_it(database: Database, moment: int, paris: str) -> None:
    """Whatever the time zone of the server or the session."""
    database.ask("SELECT 1")
    sink(database).write([row(record("Paris", moment), Origin("id", 0, 7))])
    [(text, at, same)] = database.ask(
        "SELECT date_time::text, extract(epoch FROM at)::bigint, at AT TIME ZONE 'Europe/Paris' = date_time FROM weather"
    )
    assert (text, at, same) == (paris, moment, True)


def test_row_says_what_its_record_says(database: Database) -> None:
    """All of it as it came, where it came from, and what it measures."""
    given = record("Lille", NOON, rain={"1h": 0.5}, snow={"1h": 0.25, "3h": 2})
    consume(database, Group("weather-api", encoded(given)))
    found = database.ask(f"SELECT {', '.join(COLUMNS)} FROM weather")
    assert found == [
        (dt.datetime(2025, 11, 24, 13), 0, 0, given, dt.datetime.fromtimestamp(NOON, dt.UTC), given["identity"], "id",
         "Lille", given["measured"]["temp"], 0.75, 2.0, 2.0)
    ]  # fmt: skip


def test_absurd_values_stay_and_are_not_measured(database: Database) -> None:
    """The weather is what came; the columns that are averaged have nothing."""
    given = record("Lille", NOON, main={"temp": 9999.0}, rain=None, snow=None, aqi=7)
    consume(database, Group("weather-api", encoded(given)))
    [(value, *measured)] = database.ask("SELECT value, temp, precipitation_1h, precipitation_3h, aqi FROM weather")
    assert value["weather"]["main"]["temp"] == 9999.0 and value["flagged"] == {"temp": 9999.0, "aqi": 7}
    assert measured == [None] * 4


@pytest.mark.parametrize(
    ("measured", "temp"),
    [({}, None), (None, None), ([], None), ({"temp": "7"}, None), ({"temp": True}, None), ({"temp": 10**400}, None),
     ({"temp": float("nan")}, None), ({"temp": 0}, 0.0), ({"temp": -3}, -3.0)],
)  # fmt: skip
def test_what_is_no_number_is_not_measured(measured: Any, temp: float | None) -> None:
    assert measures({"measured": measured})["temp"] == temp
    assert measures({})["aqi"] is None


def test_what_is_no_observation_is_a_dead_letter(database: Database) -> None:
    """With reason and origin; its neighbours are rows."""
    good = [record("Paris", NOON + number, number) for number in range(2)]
    bad: list[Any] = [[1], "text", None, 7, {}, {**good[0], "identity": 7}, {**good[0], "dt": "1763985600"}]
    bad += [{**good[0], "dt": True}, {**good[0], "dt": 1 << 60}, {**good[0], "identity": "other", "name": "\0"}]
    topics = Topics()
    consume(database, Group("weather-api", encoded(good[0], *bad, good[1])), topics)
    assert database.ask("SELECT msg_offset FROM weather ORDER BY 1") == [(0,), (len(bad) + 1,)]
    letters = [json.loads(value) for value in topics.values("weather-api.dlq")]
    assert sorted(letter["origin"]["offset"] for letter in letters) == list(range(1, len(bad) + 1))
    assert {letter["reason"] for letter in letters[:4]} == {"not a JSON object"}


def test_replay_and_repetition_leave_one_row(database: Database) -> None:
    """Not committed, published twice, read from a topic of another incarnation; other offsets of it are other rows."""
    records = [record("Paris", NOON + number, number) for number in range(20)]
    group = Group("weather-api", encoded(*records, *records[5:10]))
    group.refuse_commits = 1
    stop = threading.Event()
    reader = group.reader()

    class Ends(PostgresSink):
        """The process ends after it has written."""

        def write(self, items: Any) -> int:
            super().write(items)
            raise Crash

    with pytest.raises(Crash):
        ends = Ends(settings(database), COLUMNS)
        BatchConsumer(settings(database), "weather-api", reader, Topics(), ends, row, stop).run()
    assert group.committed == 0 and database.ask("SELECT count(*) FROM weather") == [(20,)]
    consume(database, group, size=7)
    again = [row(one, Origin("another", 0, number)) for number, one in enumerate(records)]
    sink(database).write([*again, row(record("Paris", NOON + 99, 99), Origin("another", 0, 0))])
    assert database.ask("SELECT count(*), count(DISTINCT identity) FROM weather") == [(21, 21)]


def test_rows_come_later_while_the_server_is_away(database: Database) -> None:
    """Killed between two batches, it has each row once afterwards."""
    records = [record("Nice", NOON + number, number) for number in range(30)]
    server, calls = database.server, []

    class Watched(PostgresSink):
        """Sees the server killed once, and back after two tries."""

        def write(self, items: Any) -> int:
            calls.append(len(items))
            if len(calls) == 2:
                server.stop(SIGKILL)
            try:
                return super().write(items)
            except SinkAway:
                if len(calls) == 3:
                    server.start()
                raise

    consume(database, Group("weather-api", encoded(*records)), sink_=Watched(settings(database), COLUMNS), size=10)
    assert database.ask("SELECT count(*), count(DISTINCT identity) FROM weather") == [(30, 30)]
    assert len(calls) > 4


def test_only_rows_that_were_exported_expire(database: Database) -> None:
    """By when they were stored, and none while nothing was exported."""
    one = sink(database)
    one.write([row(record("Paris", NOON + number, number), Origin("id", 0, number)) for number in range(3)])
    database.ask("UPDATE weather SET stored_at = now() - interval '91 days' WHERE msg_offset < 2")
    for exported, left in ((None, 3), ("0", 3), ("9999999", 1)):
        if exported:
            database.ask("INSERT INTO ref_date VALUES (now(), %s::xid8, %s::xid8)", exported, exported)
        sink(database).check()
        assert database.ask("SELECT count(*) FROM weather") == [(left,)]


def test_role_of_the_consumer_reads_what_was_exported_and_no_more(database: Database) -> None:
    own = database.environment("consumer")
    for query in ("DELETE FROM ref_date", "DROP TABLE weather", "CREATE TABLE mine (number int)"):
        with pytest.raises(InsufficientPrivilege):
            database.server.log_in("openweather-consumer", own["pg_password"], "openweather", query)


def test_settings_have_the_names_of_the_runbook(database: Database) -> None:
    own = settings(database, topic_name="other", bootstrap_servers="kafka:9092")
    assert (own.topic_name, own.kafka_bootstrap_servers, own.pg_table) == ("other", "kafka:9092", "weather")
    assert consumer.GROUP == "openweather-consumer"
