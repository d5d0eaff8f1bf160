"""The export of openweather, from a real PostgreSQL to a real HDFS: each row once, in its day, whoever ends when."""

from __future__ import annotations

import itertools
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg2
import pytest
import weather
from hadoop import NAMENODE, Hdfs
from memory import Crash
from psycopg2.errors import InsufficientPrivilege
from weather import Database, record

from berny.pipelines.openweather import export, steps
from berny.pipelines.openweather.consumer import COLUMNS, row
from berny.pipelines.openweather.export import FILE, Export, Settings
from berny.runtime import timer
from berny.runtime.files import Files, FilesError
from berny.runtime.kafka import Origin

ROOT = "/user/hdfs/weather"
NOON = 1_763_985_600
DAY = 86400
SPRING, AUTUMN = 1_774_746_000, 1_792_890_000
"""2026-03-29 and 2026-10-25, 01:00 UTC."""


@pytest.fixture
def files(hdfs: Hdfs) -> Files:
    """The pipeline's directory, which is empty at first."""
    hdfs.provide(ROOT, "openweather")
    return Files(hdfs.url, "openweather", ROOT)


def settings(database: Database, **other: Any) -> Settings:
    """Return the export's environment."""
    words = {"hdfs_web_url": "http://nowhere:1", "hdfs_user": "openweather", "berny_raw_path": ROOT}
    words |= {"berny_state_dir": Path("/nowhere"), "hdfs_url": "hdfs://nowhere:2"}
    return Settings.model_validate(database.environment("export") | words | other)


def run(database: Database, files: Files) -> int:
    """Run the export; return how many rows it has exported."""
    return sum(step.records for step in Export(settings(database), files).work())


def lines(files: Files) -> dict[str, list[dict[str, Any]]]:
    """Return all lines by day."""
    return {
        day: [
            json.loads(line)
            for name in files.sizes(day)
            if FILE.fullmatch(name)
            for line in files.lines(f"{day}/{name}")
        ]
        for day in files.days()
    }


def exported(files: Files) -> Counter[str]:
    """Return how often each identity is there."""
    return Counter(line["value"]["identity"] for some in lines(files).values() for line in some)


def stored(database: Database) -> Counter[str]:
    """Return the identities of all rows."""
    return Counter(one for (one,) in database.ask("SELECT identity FROM weather"))


def test_rows_are_lines_in_the_folder_of_their_day(database: Database, files: Files) -> None:
    """By the calendar of Paris, whose days have 23, 24 and 25 hours."""
    moments = [
        NOON,
        SPRING - 7201,
        SPRING - 7200,
        SPRING + 75599,
        SPRING + 75600,
        AUTUMN - 10800,
        AUTUMN + 79199,
        AUTUMN + 79200,
    ]
    given = [record("Paris", moment, number) for number, moment in enumerate(moments)]
    database.insert(*given)
    assert run(database, files) == len(given) and exported(files) == stored(database)
    assert {day: [line["value"]["dt"] for line in some] for day, some in lines(files).items()} == {
        "dt=2025-11-24": moments[:1],
        "dt=2026-03-28": moments[1:2],
        "dt=2026-03-29": moments[2:4],
        "dt=2026-03-30": moments[4:5],
        "dt=2026-10-25": moments[5:7],
        "dt=2026-10-26": moments[7:],
    }
    [line] = lines(files)["dt=2025-11-24"]
    assert line == {"date_time": "2025-11-24T13:00:00", "msg_offset": 0, "partition": 0, "value": given[0]}


def test_a_run_continues_after_the_last(database: Database, files: Files) -> None:
    """What came since, and late rows into their own day; a run without new rows leaves everything as it is."""
    assert run(database, files) == 0 and files.days() == {}
    database.insert(*(record("Paris", NOON + number, number) for number in range(5)))
    assert run(database, files) == 5
    before = files.sizes("dt=2025-11-24")
    assert run(database, files) == 0 and files.sizes("dt=2025-11-24") == before
    late = [record("Paris", NOON - DAY, 77), record("Paris", NOON + 60, 78)]
    database.insert(*late, first=5)
    assert run(database, files) == 2
    assert [line["value"] for line in lines(files)["dt=2025-11-23"]] == late[:1]
    assert files.sizes("dt=2025-11-24").items() > before.items() and exported(files) == stored(database)
    assert database.ask("SELECT count(*) FROM ref_date WHERE files IS NULL") == [(0,)]


def test_transaction_that_commits_late_is_not_passed_over(database: Database, files: Files) -> None:
    """It has begun before others that are there already: these wait for it."""
    server = database.server
    database.insert(record("Paris", NOON, 0))
    where = {"host": str(server.folder), "port": server.port, "dbname": "openweather", "user": "postgres"}
    with closing(psycopg2.connect(**where)) as slow, slow.cursor() as cursor:
        cursor.execute(weather.INSERT, row(record("Paris", NOON + 1, 1), Origin("id", 0, 1)))
        database.insert(record("Paris", NOON + 2, 2), first=2)
        assert run(database, files) == 1 and run(database, files) == 0
        slow.commit()
    assert run(database, files) == 2 and exported(files) == stored(database)


def test_nothing_is_missed_while_others_insert(database: Database, files: Files) -> None:
    """Transactions of four writers, which end in another order than they begin, some of them without a row.

    They go on until five runs have ended: a busy machine exports slowly.
    """
    server, enough = database.server, threading.Event()
    where = {"host": str(server.folder), "port": server.port, "dbname": "openweather", "user": "postgres"}

    def writes(writer: int) -> None:
        draw = random.Random(writer)
        with closing(psycopg2.connect(**where)) as one, one.cursor() as cursor:
            for number in itertools.count():
                if enough.is_set() and number >= 150:
                    break
                moment = NOON + draw.randrange(3) * DAY
                cursor.execute(
                    weather.INSERT,
                    row(record("Paris", moment, writer * 1_000_000 + number), Origin("id", writer, number)),
                )
                time.sleep(draw.random() * 0.03)
                one.rollback() if draw.random() < 0.2 else one.commit()

    threads = [threading.Thread(target=writes, args=(writer,)) for writer in range(4)]
    for thread in threads:
        thread.start()
    try:
        for runs in itertools.count(1):
            run(database, files)
            if runs == 5:
                enough.set()
            if not any(thread.is_alive() for thread in threads):
                break
    finally:
        enough.set()
    run(database, files)
    assert sum(stored(database).values()) > 400 and exported(files) == stored(database)


def test_much_is_exported_in_steps(database: Database, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """None has many more rows than it may have; one transaction is never divided."""
    monkeypatch.setattr(steps, "ROWS", 7)
    database.insert(*(record("Paris", NOON + number, number) for number in range(30)))
    many = [row(record("Lyon", NOON + number, 100 + number), Origin("id", 1, number)) for number in range(20)]
    values = ", ".join(f"({', '.join(['%s'] * len(COLUMNS))})" for _ in many)
    database.ask(
        f"INSERT INTO weather ({', '.join(COLUMNS)}) VALUES {values}", *(value for one in many for value in one)
    )
    counts = [step.records for step in Export(settings(database), files).work()]
    assert counts == [7, 7, 7, 7, 2, 20] and exported(files) == stored(database)


def test_what_comes_during_a_run_is_the_next_runs(database: Database, files: Files) -> None:
    """Else a run does not end under steady load, and each step writes small files."""
    database.insert(record("Paris", NOON, 0))
    counts = []
    for step in Export(settings(database), files).work():
        counts.append(step.records)
        database.insert(record("Paris", NOON, len(counts)), first=len(counts))
        if len(counts) == 3:
            break
    assert counts == [1] and run(database, files) == 1


POINTS = ["planned", "sending", "sent", "renamed", "day", "written", "completed"]


@pytest.mark.parametrize("point", POINTS)
def test_run_that_is_killed_is_continued(
    database: Database, files: Files, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    """Wherever it was; what came meanwhile is in the next step."""
    database.insert(*(record("Paris", NOON + number * DAY // 10, number) for number in range(30)))
    ends = {
        "planned": (Export, "_write", True),
        "sending": (export.Lines, "parts", True),
        "sent": (Files, "_write_beside", False),
        "renamed": (Files, "_verify", True), "day": (Files, "replace", False), "written": (steps.Steps, "complete", True),
        "completed": (steps.Steps, "complete", False),
    }  # fmt: skip
    owner, name, at_once = ends[point]
    original = getattr(owner, name)

    def ending(*words: Any) -> Any:
        if not at_once:
            original(*words)
        if name == "parts":
            return broken(original(*words))
        raise Crash

    def broken(parts: Iterator[bytes]) -> Iterator[bytes]:
        yield next(parts)[:100]
        raise Crash

    with monkeypatch.context() as patched:
        patched.setattr(owner, name, ending)
        with pytest.raises(Crash):
            run(database, files)
    database.insert(*(record("Nice", NOON + number, 100 + number) for number in range(3)), first=30)
    run(database, files)
    assert exported(files) == stored(database)
    assert database.ask("SELECT count(*), count(files) FROM ref_date") == [(2, 2)]


def test_run_fails_while_hdfs_is_away(database: Database, files: Files, hdfs: Hdfs) -> None:
    """And is made up for."""
    database.insert(record("Paris", NOON, 0))
    hdfs.end(NAMENODE)
    try:
        with pytest.raises(FilesError):
            run(database, files)
    finally:
        hdfs.start(NAMENODE)
        hdfs.wait(f"{ROOT}/ready", "openweather")
    assert run(database, files) == 1 and exported(files) == stored(database)


def test_rows_that_come_again_into_a_new_table_are_not_exported_again(database: Database, files: Files) -> None:
    """PostgreSQL was lost: its rows come from Kafka again, in other transactions; the first runs see only some of them."""
    given = [record("Paris", NOON + number * DAY // 10, number) for number in range(20)]
    database.insert(*given)
    run(database, files)
    database.server.withdraw("openweather")
    database.provide()
    database.insert(*given[:8])
    assert run(database, files) == 0
    new = [record("Paris", NOON + number, 50 + number) for number in range(3)]
    database.insert(*given[8:], *new, first=8)
    assert run(database, files) == 3
    assert exported(files) == stored(database) and len(exported(files)) == 23


def test_files_that_are_gone_come_again(database: Database, files: Files) -> None:
    """HDFS was restored from an older state; what it still has stays."""
    for number in range(3):
        database.insert(record("Paris", NOON + number * DAY, number), first=number)
        run(database, files)
    before = lines(files)
    [name] = files.sizes("dt=2025-11-25")
    files.remove(f"dt=2025-11-25/{name}")
    files.remove("dt=2025-11-26")
    assert run(database, files) == 2 and lines(files) == before


def test_steps_and_days_are_kept_as_long_as_they_are_of_use(
    database: Database, files: Files, hdfs: Hdfs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Old steps are forgotten, never the last; days go as the manifest says."""
    monkeypatch.setattr(steps, "CHECKED", 2)
    for number in range(5):
        database.insert(record("Paris", NOON + number * DAY, number), first=number)
        run(database, files)
    assert database.ask("SELECT count(*) FROM ref_date") == [(3,)] and run(database, files) == 0
    hdfs.client().set_times(f"{ROOT}/dt=2025-11-24", modification_time=int((time.time() - 9 * DAY) * 1000))
    list(Export(settings(database, berny_raw_keep="8d"), files).work())
    assert sorted(files.days()) == [f"dt=2025-11-{day}" for day in range(25, 29)]


def test_role_of_the_export_writes_no_weather(database: Database) -> None:
    own = database.environment("export")
    for query in ("DELETE FROM weather", "INSERT INTO weather DEFAULT VALUES"):
        with pytest.raises(InsufficientPrivilege):
            database.server.log_in("openweather-export", own["pg_password"], "openweather", query)


def test_settings_have_the_names_of_the_runbook(database: Database) -> None:
    """HDFS_URL is WebHDFS there; the variable of the cluster, which stages get as well, is of another protocol."""
    assert settings(database).files().root == ROOT
    other = settings(database, hdfs_url="http://other:9870", hdfs_base_path="/other").files()
    assert (other.root, other.url) == ("/other", "http://other:9870")
    assert issubclass(Settings, timer.TimerSettings)
