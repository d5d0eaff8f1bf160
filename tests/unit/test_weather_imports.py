"""A new table gets its rows from HDFS again: each once, as they were, however often that is cut off."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hadoop import NAMENODE, Hdfs
from memory import Crash
from weather import Database, record

from berny.pipelines.openweather import consumer
from berny.pipelines.openweather.consumer import Settings
from berny.pipelines.openweather.export import Export
from berny.pipelines.openweather.export import Settings as ExportSettings
from berny.pipelines.openweather.imports import Import
from berny.runtime.files import Files, FilesError
from berny.runtime.sinks.postgresql import PostgresSink

ROOT = "/user/hdfs/weather"
NOON, DAY = 1_763_985_600, 86400
ROWS = "SELECT identity, date_time, msg_offset, partition, value::text, at, city, temp, aqi FROM weather ORDER BY 1"


@pytest.fixture
def files(hdfs: Hdfs) -> Files:
    """The pipeline's directory, which is empty at first."""
    hdfs.provide(ROOT, "openweather")
    return Files(hdfs.url, "openweather", ROOT)


def environment(database: Database, hdfs_url: str, folder: Path, stage: str) -> dict[str, Any]:
    """Return a stage's environment; what the table keeps is left open, since the days of the tests are long past."""
    words = {"hdfs_web_url": hdfs_url, "hdfs_user": "openweather", "berny_state_dir": folder}
    return database.environment(stage) | words | {"kafka_bootstrap_servers": "nowhere:1", "pg_keep": ""}


def imports(database: Database, files: Files, folder: Path, **other: Any) -> Import:
    """Return the import of the consumer."""
    return consumer.imports(Settings.model_validate(environment(database, files.url, folder, "consumer") | other))


def export(database: Database, files: Files, folder: Path) -> int:
    """Run the export; return how many rows it has exported."""
    own = ExportSettings.model_validate(environment(database, files.url, folder, "export"))
    return sum(step.records for step in Export(own, files).work())


def lose(database: Database) -> None:
    """Have the tables be new ones."""
    database.server.withdraw("openweather")
    database.provide()


def test_rows_of_a_lost_table_come_again(database: Database, files: Files, tmp_path: Path) -> None:
    """As they were; where the topic has brought one first, that one stays. The export does not export them again."""
    given = [record("Paris", NOON + number * DAY // 10, number) for number in range(30)]
    database.insert(*given)
    assert export(database, files, tmp_path) == 30
    before = database.ask(ROWS)
    lose(database)
    database.insert(*given[25:], first=25)
    imports(database, files, tmp_path).work(threading.Event())
    assert database.ask(ROWS) == before
    assert database.ask("SELECT count(*) FROM weather WHERE topic_id = 'id'") == [(5,)]
    assert export(database, files, tmp_path) == 0


def test_a_table_gets_them_once(database: Database, files: Files, tmp_path: Path) -> None:
    """Rows that were deleted since do not come again."""
    database.insert(record("Paris", NOON, 1))
    export(database, files, tmp_path)
    for one in range(2):
        lose(database)
        imports(database, files, tmp_path).work(threading.Event())
        assert database.ask("SELECT count(*) FROM weather") == [(1,)], one
        database.ask("DELETE FROM weather")
        imports(database, files, tmp_path).work(threading.Event())
        assert database.ask("SELECT count(*) FROM weather") == [(0,)], one


def test_days_that_the_table_does_not_keep_stay_away(database: Database, files: Files, tmp_path: Path) -> None:
    """A day more or less does not matter: rows go by when they were stored."""
    now = int(time.time())
    database.insert(record("Paris", now - 10 * DAY, 1), record("Paris", now - 2 * DAY, 2))
    export(database, files, tmp_path)
    lose(database)
    imports(database, files, tmp_path, pg_keep="5d").work(threading.Event())
    assert database.ask("SELECT at > now() - interval '5 days' FROM weather") == [(True,)]


def test_import_that_is_killed_is_continued(
    database: Database, files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Days that it has are not read again."""
    database.insert(*(record("Paris", NOON + number * DAY, number) for number in range(4)))
    export(database, files, tmp_path)
    before = database.ask(ROWS)
    lose(database)
    write, calls = PostgresSink.write, []

    def ending(sink: PostgresSink, items: Any) -> int:
        calls.append(items)
        if len(calls) == 3:
            raise Crash
        return write(sink, items)

    monkeypatch.setattr(PostgresSink, "write", ending)
    with pytest.raises(Crash):
        imports(database, files, tmp_path).work(threading.Event())
    imports(database, files, tmp_path).work(threading.Event())
    assert database.ask(ROWS) == before and len(calls) == 5


def test_lines_that_are_no_rows_keep_no_other_away(
    database: Database, files: Files, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """They are named; PostgreSQL refuses a NUL."""
    database.insert(*(record("Paris", NOON + number, number) for number in range(3)))
    export(database, files, tmp_path)
    before = database.ask(ROWS)
    lose(database)
    odd = [
        b"no json",
        b"[]",
        b'{"value": {}}',
        b'{"value": {"identity": "x", "dt": 1e99}, "partition": 0, "msg_offset": 1}',
    ]
    odd.append(b'{"value": {"identity": "\\u0000", "dt": 1763985600}, "partition": 0, "msg_offset": 1}')
    name = f"weather_{'0' * 8}_{'0' * 20}_{'1' * 20}.json"
    files.replace(f"dt=2025-11-24/{name}", b"\n".join(odd))
    imports(database, files, tmp_path).work(threading.Event())
    assert database.ask(ROWS) == before
    assert caplog.text.count("a line is no row") == 4 and caplog.text.count("refuses a row") == 1


def test_hdfs_that_is_away_is_waited_for(
    database: Database, files: Files, hdfs: Hdfs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The topic's rows do not wait: the import has a thread of its own."""
    database.insert(record("Paris", NOON, 1))
    export(database, files, tmp_path)
    lose(database)
    monkeypatch.setattr("berny.pipelines.openweather.imports.RETRY_SECONDS", 0.2)
    stop = threading.Event()
    importing = threading.Thread(target=imports(database, files, tmp_path).run, args=(stop,))
    hdfs.end(NAMENODE)
    try:
        with pytest.raises(FilesError):
            imports(database, files, tmp_path).work(stop)
        importing.start()
        time.sleep(1)
        assert importing.is_alive()
    finally:
        hdfs.start(NAMENODE)
        hdfs.wait(f"{ROOT}/ready", "openweather")
    importing.join(60)
    assert not importing.is_alive() and database.ask("SELECT count(*) FROM weather") == [(1,)]


def test_origin_says_that_a_row_is_from_hdfs(database: Database, files: Files, tmp_path: Path) -> None:
    """Two topics of one name have the same offsets: both rows come."""
    database.insert(record("Paris", NOON, 1))
    database.ask("UPDATE weather SET topic_id = 'former'")
    database.insert(record("Paris", NOON + 1, 2))
    export(database, files, tmp_path)
    lose(database)
    imports(database, files, tmp_path).work(threading.Event())
    assert database.ask("SELECT count(*), count(*) FILTER (WHERE topic_id LIKE 'hdfs:%%') FROM weather") == [(2, 2)]
