"""PostgreSQL as a sink, asked of a real server: what is there twice, what it refuses, and that it is away."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from databases import Postgres
from memory import Group, Topics

from berny.runtime.batch import BatchConsumer, ItemsRefused, SinkAway
from berny.runtime.kafka import Origin
from berny.runtime.sinks import postgresql
from berny.runtime.sinks.postgresql import Database, PostgresSettings, PostgresSink
from berny.runtime.stage import ConfigurationError

SCHEMA = """
    CREATE TABLE toys (number integer PRIMARY KEY CHECK (number <> 13), value jsonb NOT NULL);
    CREATE ROLE writer LOGIN PASSWORD 'of the writer';
    GRANT SELECT, INSERT, DELETE ON toys TO writer;
    CREATE TABLE others (number integer, value jsonb);
"""


@pytest.fixture(scope="module")
def dsn(postgres: Postgres) -> str:
    """A database with a table, and a role that may insert."""
    made = postgres.database("toys")
    postgres.execute(made, SCHEMA)
    return made


@pytest.fixture
def toys(postgres: Postgres, dsn: str) -> Iterator[Callable[[], list[Any]]]:
    """Return the rows of the table, which is empty at first."""
    postgres.execute(dsn, "TRUNCATE toys")
    yield lambda: postgres.execute(dsn, "SELECT number, value FROM toys ORDER BY number")


def settings(dsn: str, **other: Any) -> PostgresSettings:
    """Return the environment of a consumer."""
    words = {"pg_dsn": f"{dsn} user=writer", "pg_password": "of the writer", "pg_table": "toys", "pg_table_id": "id",
             "berny_state_dir": "/nowhere", "kafka_bootstrap_servers": "-", "berny_batch_seconds": 0.01,
             "berny_pipeline": "p", "berny_stage": "s", "berny_metrics_port": 1}  # fmt: skip
    return PostgresSettings.model_validate(words | other)


def sink(dsn: str, **other: Any) -> PostgresSink:
    """Return a sink of the table, or of what is given instead."""
    return PostgresSink(settings(dsn, **other), ["number", "value"])


def test_rows_that_are_written_again_stay(dsn: str, toys: Callable[[], list[Any]]) -> None:
    """A batch that was not committed comes twice, and may have other neighbours then."""
    one, rows = sink(dsn), [(number, json.dumps({"a": number})) for number in range(3)]
    assert one.write(rows[:2]) == one.write(rows) == 0
    sink(dsn).write([(1, "{}")])
    assert toys() == [(number, {"a": number}) for number in range(3)]
    assert one.id == "id"


@pytest.mark.parametrize(
    ("number", "value"),
    [
        (1, "no JSON"),
        (1, '{"a": NaN}'),
        (1, r'{"a": "\u0000"}'),
        (1, r'{"a": "\ud800"}'),
        (1, "\0"),
        (1, "\ud800"),
        (1, "[" * 100_000),
        (1, None),
        (13, "{}"),
        (1 << 40, "{}"),
        ("text", "{}"),
        ({}, "{}"),
    ],
)
def test_row_that_is_refused_is_told(dsn: str, toys: Callable[[], list[Any]], number: Any, value: Any) -> None:
    """Nothing of its batch is written; without it all else is."""
    one = sink(dsn)
    with pytest.raises(ItemsRefused):
        one.write([(7, "{}"), (number, value)])
    assert toys() == []
    one.write([(7, "{}")])
    assert toys() == [(7, {})]


def test_expired_rows_are_deleted(dsn: str, toys: Callable[[], list[Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Some at a time, with writes and without, by the pipeline's condition; nothing without a retention."""
    rows, old = [(number, "{}") for number in range(20, 30)], "number < %(keep)s"
    sink(dsn).write(rows)
    PostgresSink(settings(dsn), ["number", "value"], old).check()
    PostgresSink(settings(dsn, pg_keep="25s"), ["number", "value"]).check()
    assert len(toys()) == 10
    monkeypatch.setattr(postgresql, "EXPIRED_ROWS", 3)
    one = PostgresSink(settings(dsn, pg_keep="25s"), ["number", "value"], old)
    one.check()
    assert len(toys()) == 7
    one.write([(1, "{}")])
    assert [number for number, _ in toys()] == [25, 26, 27, 28, 29]
    for number in (2, 3):
        one.write([(number, "{}")])
    assert [number for number, _ in toys()] == [3, 25, 26, 27, 28, 29]


def test_refused_rows_of_a_batch_are_dead_letters(dsn: str, toys: Callable[[], list[Any]]) -> None:
    """They alone: the consumer halves what the server refuses."""
    values = [json.dumps({"number": number}).encode() for number in range(40)]
    values[20] = b'{"number": 20, "x": NaN}'
    group, topics, stop = Group("toys", values), Topics(), threading.Event()

    def item(record: dict[str, Any], origin: Origin) -> tuple[int, str]:
        if origin.offset == 39:
            stop.set()
        return record["number"], json.dumps(record)

    BatchConsumer(settings(dsn), "toys", group.reader(), topics, sink(dsn), item, stop).run()
    assert [number for number, _ in toys()] == [number for number in range(40) if number not in (13, 20)]
    letters = [json.loads(value) for value in topics.values("toys.dlq")]
    assert [letter["origin"]["offset"] for letter in letters] == [13, 20] and group.committed == 40
    assert "toys_number_check" in letters[0]["reason"] and "invalid input syntax for type json" in letters[1]["reason"]


@pytest.mark.parametrize(
    ("other", "why"),
    [
        ({"pg_password": "another"}, "password authentication failed"),
        ({"pg_password": ""}, "no password supplied"),
        ({"dsn": "user=nobody"}, "password authentication failed"),
        ({"dsn": "dbname=gone"}, 'database "gone" does not exist'),
        ({"pg_table": "gone"}, 'relation "gone" does not exist'),
        ({"pg_table": "others"}, "permission denied for table others"),
    ],
)
def test_what_is_not_there_needs_a_person(dsn: str, other: dict[str, str], why: str) -> None:
    """With something to write and without; what is to be done is told, the password is not."""
    words = {name: value for name, value in other.items() if name.startswith("pg_")}
    if "dsn" in other:
        words["pg_dsn"] = f"{dsn} user=writer {other['dsn']}"
    for call in (lambda one: one.write([(1, "{}")]), lambda one: one.check()):
        with pytest.raises(ConfigurationError, match=r"run site\.yml, which creates roles and tables") as error:
            call(sink(dsn, **words))
        assert why in str(error.value) and "another" not in str(error.value)
    sink(dsn).check()


def test_server_that_ends_gets_it_later(postgres: Postgres, dsn: str, toys: Callable[[], list[Any]]) -> None:
    """While it is away, and on the connection that it has cut; once it is back the same sink works."""
    one = sink(dsn)
    one.write([(1, "{}")])
    postgres.end()
    try:
        for _ in range(2):
            with pytest.raises(SinkAway):
                one.write([(2, "{}")])
        with pytest.raises(SinkAway, match="refused"):
            one.check()
    finally:
        postgres.start()
    one.write([(2, "{}")])
    assert [number for number, _ in toys()] == [1, 2]


def test_transaction_that_ends_early_leaves_nothing(
    postgres: Postgres, dsn: str, toys: Callable[[], list[Any]]
) -> None:
    """An error of the program, or a connection that is cut in its midst."""
    database = Database(settings(dsn))
    with pytest.raises(KeyError), database.transaction() as found:
        found.execute("INSERT INTO toys VALUES (1, '{}')")
        raise KeyError
    with pytest.raises(SinkAway), database.transaction() as found:
        found.execute("INSERT INTO toys VALUES (2, '{}')")
        postgres.execute(dsn, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'writer'")
    assert toys() == []
    with database.transaction() as found:
        found.execute("INSERT INTO toys VALUES (3, '{}')")
    assert [number for number, _ in toys()] == [3]
    database.close()
