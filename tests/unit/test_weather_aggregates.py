"""Aggregates of openweather against SQL over the table, on days of 23, 24 and 25 hours; which days are read again."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hadoop import Hdfs
from hypothesis import given
from hypothesis import strategies as st
from memory import Crash
from weather import Database, record

from berny.pipelines.openweather import aggregates, days, mapreduce
from berny.pipelines.openweather.aggregates import aggregate, mapped, reduced
from berny.pipelines.openweather.consumer import PARIS
from berny.pipelines.openweather.days import AGGREGATES
from berny.pipelines.openweather.mapreduce import JOBS, Aggregation, Settings
from berny.runtime import mapreduce as runtime
from berny.runtime.files import Files
from berny.runtime.mapreduce import Job

ROOT = "/user/hdfs/weather"
HOUR = 3600
SPRING, AUTUMN = 1_774_738_800, 1_792_879_200
"""The first seconds of 2026-03-29 and 2026-10-25 in Paris."""
# From the record and the time with its zone; the columns that are made for reading have no say.
SQL = """
WITH told AS (SELECT at, value, value -> 'measured' AS measured FROM weather)
SELECT (at AT TIME ZONE 'Europe/Paris')::date::text, (value ->> 'city_id')::bigint, max(value ->> 'name'), count(*),
       avg((measured ->> 'temp')::numeric)::float8, min((measured ->> 'temp')::numeric)::float8,
       max((measured ->> 'temp')::numeric)::float8,
       sum(coalesce((measured ->> 'rain_1h')::numeric, 0) + coalesce((measured ->> 'snow_1h')::numeric, 0))::float8,
       sum(coalesce((measured ->> 'rain_3h')::numeric, 0) + coalesce((measured ->> 'snow_3h')::numeric, 0))::float8,
       avg((measured ->> 'aqi')::numeric)::float8
FROM told GROUP BY 1, 2 ORDER BY 1, 2
"""
FIELDS = ["day", "city_id", "city", "observations", "temp_avg", "temp_min", "temp_max", "precipitation_1h_sum"]
FIELDS += ["precipitation_3h_sum", "aqi_avg"]


@pytest.fixture
def files(hdfs: Hdfs) -> Files:
    """The pipeline's directory, which is empty at first."""
    for path in (ROOT, "/data/openweather"):
        hdfs.provide(path, "openweather")
    return Files(hdfs.url, "openweather", ROOT)


def line(one: dict[str, Any]) -> str:
    """Return the line of a record."""
    moment = datetime.fromtimestamp(one["dt"], UTC).astimezone(PARIS).replace(tzinfo=None)
    return json.dumps({"date_time": moment.isoformat(), "msg_offset": 1, "partition": 0, "value": one})


def put(files: Files, number: int, *records: dict[str, Any]) -> None:
    """Write records as the export does, as its so many-th step."""
    found: dict[str, list[str]] = {}
    for one in records:
        text = line(one)
        found.setdefault(json.loads(text)["date_time"][:10], []).append(text)
    for day, some in found.items():
        files.put(
            f"dt={day}/weather_00000000_{number:020d}_{number + 1:020d}.json", "".join(f"{x}\n" for x in some).encode()
        )


class Local:
    """Runs jobs without Hadoop, by the programs that it would ship; remembers what they have read."""

    def __init__(self, files: Files) -> None:
        self.files = files
        self.read: list[list[str]] = []
        self.outputs = Files(files.url, "openweather", JOBS)

    def __call__(self, job: Job) -> None:
        read = [path.removeprefix(f"{ROOT}/").rpartition("/")[0] for path in job.inputs]
        self.read.append(read)
        names = [f"{day}/{name}" for day in read for name in self.files.sizes(day) if name.startswith("weather_")]
        text = b"".join(self.files.read(name) for name in names)
        [program] = job.files
        for step in ("map", "reduce"):
            done = subprocess.run([sys.executable, "-I", program, step], input=text, capture_output=True, check=True)
            text = b"".join(sorted(done.stdout.splitlines(keepends=True)))
        self.outputs.put(f"{job.output.removeprefix(f'{JOBS}/')}/part-00000", text)

    def work(self, watermark: Any = None, today: str = "") -> Any:
        """Do a run; return the watermark after it."""
        for step in Aggregation(self.files, "", self.outputs, today, self).work(watermark):
            watermark = json.loads(json.dumps(step.watermark))
        return watermark


@pytest.fixture
def local(files: Files, monkeypatch: pytest.MonkeyPatch) -> Local:
    """Where jobs run; folders are as they seem at once."""
    monkeypatch.setattr(days, "SETTLED_SECONDS", -60)
    return Local(files)


def made(files: Files, day: str) -> list[dict[str, Any]]:
    """Return the aggregates of a day."""
    return [json.loads(text) for text in files.lines(f"dt={day}/{AGGREGATES}")]


# -- what is computed --------------------------------------------------------------------------------------------------


def year() -> list[dict[str, Any]]:
    """Return records of every half hour of days of 23, 24 and 25 hours, some of them absurd, out of order."""
    moments = [first + step * HOUR // 2 for first in (SPRING - 24 * HOUR, AUTUMN) for step in range(2 * 49)]
    found = []
    for number, moment in enumerate(moments):
        for city in ("Paris", "Lille"):
            absurd = {"main": {"temp": 9999.0}, "rain": {"1h": -5}} if number % 11 == 3 else {}
            found.append(record(city, moment, number, number % 6, **absurd))
    return found[::-1]


@pytest.fixture(scope="module")
def independent(weather_database: Database) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Records, and their aggregates as PostgreSQL computes them."""
    return year(), by_sql(weather_database)


def by_sql(database: Database) -> list[dict[str, Any]]:
    """Return the aggregates of the year by SQL."""
    database.insert(*year())
    return [dict(zip(FIELDS, values, strict=True)) for values in database.ask(SQL)]


def assert_same(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    """Compare aggregates; numbers by what their sums may differ in."""
    assert [(one["day"], one["city_id"]) for one in found] == [(one["day"], one["city_id"]) for one in expected]
    for one, other in zip(found, expected, strict=True):
        for name in FIELDS:
            if isinstance(other[name], float):
                assert math.isclose(one[name], other[name], rel_tol=1e-12, abs_tol=1e-12), (name, one, other)
            else:
                assert one[name] == other[name]


def test_aggregates_are_those_of_an_independent_computation(
    independent: tuple[list[dict[str, Any]], list[dict[str, Any]]],
) -> None:
    """By the same functions without Hadoop; the days have as many observations as half hours."""
    records, expected = independent
    found = aggregate(map(line, records))
    assert_same(found, expected)
    counts = {one["day"]: one["observations"] for one in found}
    assert counts == {
        "2026-03-28": 48, "2026-03-29": 46, "2026-03-30": 4, "2026-10-25": 50, "2026-10-26": 48,
    }  # fmt: skip


def test_hadoop_computes_the_same(
    independent: tuple[list[dict[str, Any]], list[dict[str, Any]]], files: Files, hdfs: Hdfs
) -> None:
    """Hadoop Streaming, over files of several steps, with programs that import nothing of ours."""
    records, expected = independent
    for number in range(5):
        put(files, number, *records[number::5])
    files.put("dt=2026-03-29/_weather_00000000_hidden.json", line(record("Nice", SPRING)).encode())

    def runs(job: Job) -> None:
        runtime.run(job, threading.Event(), hdfs.streaming())

    # Without YARN the job runs as the user who starts it.
    hdfs.client().set_permission("/data/openweather", "777")
    outputs = Files(hdfs.url, "root", JOBS)
    steps = list(Aggregation(files, "", outputs, "", runs).work(None))
    assert steps[-1].records == len(expected) and outputs.modified() == {}
    found = [one for day in sorted(files.days()) for one in made(files, day.removeprefix("dt="))]
    assert_same([{name: one[name] for name in FIELDS} for one in found], expected)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "7", "null", "no JSON", "[" * 100_000, '{"date_time": "2026-03-29T00:00:00"}', '{"date_time": 7, "value": {}}',
     '{"date_time": "2026-03-29T00:00:00", "value": {"city_id": "1", "dt": 1}}',
     '{"date_time": "2026-03-29T00:00:00", "value": {"city_id": 1, "dt": true}}',
     '{"date_time": "yesterday!", "value": {"city_id": 1, "dt": 1}}', '{"date_time": "2026-03-29T00:00:00", "value": []}'],
)  # fmt: skip
def test_what_is_no_observation_is_passed_over(text: str) -> None:
    """A row whose JSON is no object, for one."""
    assert mapped(text) is None


def test_program_counts_what_it_passes_over() -> None:
    """And takes bytes that are no UTF-8."""
    given = f"{line(record('Paris', SPRING))}\nno JSON\n".encode() + b"\xff\n"
    done = subprocess.run(
        [sys.executable, "-I", aggregates.__file__, "map"], input=given, capture_output=True, check=True
    )
    assert done.stdout.count(b"\n") == 1 and done.stderr.decode() == aggregates.SKIPPED * 2


@given(st.lists(st.tuples(st.floats(-90, 60), st.floats(0, 500)), min_size=1, max_size=30), st.randoms())
def test_order_has_no_say(values: list[tuple[float, float]], draw: Any) -> None:
    """The job shuffles as it likes."""
    lines = [f"2026-03-29\t1\t{json.dumps([number, 'x', *pair, None, None])}" for number, pair in enumerate(values)]
    [first] = reduced(lines)
    draw.shuffle(lines)
    assert list(reduced(lines)) == [first]


def test_what_is_not_told_is_unknown() -> None:
    """But what falls is told: without it there is none."""
    [one] = aggregate([line(record("Paris", SPRING, main={"temp": 9999}, rain=None, snow=None, aqi=9))])
    assert one["temp_avg"] is one["temp_min"] is one["temp_max"] is one["aqi_avg"] is None
    assert one["precipitation_1h_sum"] == one["precipitation_3h_sum"] == 0


# -- which days --------------------------------------------------------------------------------------------------------


def test_only_days_that_have_changed_are_read(files: Files, local: Local) -> None:
    """A late row changes its day alone; a run without news reads nothing, and neither does what it writes itself."""
    put(files, 1, *(record("Paris", SPRING + day * 24 * HOUR + 12 * HOUR, day) for day in range(3)))
    watermark = local.work()
    assert local.read == [["dt=2026-03-29", "dt=2026-03-30", "dt=2026-03-31"]]
    for _ in range(2):
        watermark = local.work(watermark)
    assert len(local.read) == 1
    put(files, 2, record("Lille", SPRING + 12 * HOUR, 9), record("Lille", SPRING + 96 * HOUR, 10))
    watermark = local.work(watermark)
    assert local.read[1:] == [["dt=2026-03-29", "dt=2026-04-02"]]
    assert [one["city"] for one in made(files, "2026-03-29")] == ["Paris", "Lille"]
    files.remove(f"dt=2026-03-30/{AGGREGATES}")
    watermark = local.work(watermark)
    assert local.read[2:] == [["dt=2026-03-30"]] and len(made(files, "2026-03-30")) == 1
    files.remove("dt=2026-03-31")
    assert "dt=2026-03-31" not in local.work(watermark)


def test_unchanged_days_are_not_even_listed(files: Files, local: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run costs the same after a year."""
    put(files, 1, *(record("Paris", SPRING + day * 24 * HOUR, day) for day in range(5)))
    watermark = local.work(local.work())
    listed: list[str] = []
    original = Files.sizes
    monkeypatch.setattr(Files, "sizes", lambda self, path: listed.append(path) or original(self, path))
    local.work(watermark)
    assert listed == []
    put(files, 2, record("Lille", SPRING + 49 * HOUR, 9))
    local.work(watermark)
    assert [path for path in listed if path.startswith("dt=")] == ["dt=2026-03-31"] * 2


def test_today_alone(files: Files, local: Local) -> None:
    """MR_PROCESS_ONLY_TODAY: other days wait until it is set no longer."""
    put(files, 1, *(record("Paris", SPRING + day * 24 * HOUR, day) for day in range(2)))
    watermark = local.work(today="2026-03-30")
    assert local.read == [["dt=2026-03-30"]]
    assert local.work(watermark, today="2026-04-30") == watermark
    local.work(watermark)
    assert local.read[1:] == [["dt=2026-03-29"]]
    assert mapreduce.today() == datetime.now(PARIS).strftime("%Y-%m-%d")


def test_partition_without_files(files: Files, local: Local) -> None:
    """It stays empty; if its files have gone, it has no aggregates."""
    files.put("dt=2026-03-28/_weather", b"")
    watermark = local.work()
    assert list(files.sizes("dt=2026-03-28")) == ["_weather"] and local.read == []
    put(files, 1, record("Paris", SPRING))
    watermark = local.work(watermark)
    [name] = [name for name in files.sizes("dt=2026-03-29") if name.startswith("weather_")]
    files.remove(f"dt=2026-03-29/{name}")
    local.work(watermark)
    assert made(files, "2026-03-29") == [] and len(local.read) == 1


@pytest.mark.parametrize("point", ["job", "sent", "renamed", "first day"])
def test_run_that_is_killed_is_made_up_for(
    files: Files, local: Local, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    """Wherever it was."""
    put(files, 1, *(record("Paris", SPRING + day * 24 * HOUR, day) for day in range(3)))
    points = {"job": (Local, "__call__"), "sent": (Files, "_write_beside")}
    points |= {"renamed": (Files, "_verify"), "first day": (Files, "replace")}
    owner, name = points[point]
    original = getattr(owner, name)

    def ending(*words: Any) -> Any:
        found = original(*words)
        if point == "job" or AGGREGATES in str(words):
            raise Crash
        return found

    with monkeypatch.context() as patched:
        patched.setattr(owner, name, ending)
        with pytest.raises(Crash):
            local.work()
    local.work()
    assert [len(made(files, f"2026-03-{day}")) for day in (29, 30, 31)] == [1, 1, 1]
    assert local.outputs.modified() == {}


def test_file_that_comes_during_the_job_is_not_missed(files: Files, local: Local) -> None:
    """Whether the job has read it or not, the day is read again."""
    put(files, 1, record("Paris", SPRING))

    def run(job: Job) -> None:
        put(files, 2, record("Lille", SPRING))
        local(job)
        put(files, 3, record("Nice", SPRING))

    steps = list(Aggregation(files, "", local.outputs, "", run).work(None))
    local.work(steps[-1].watermark)
    assert {one["city"] for one in made(files, "2026-03-29")} == {"Paris", "Nice", "Lille"}


def test_what_was_modified_just_now_is_looked_at_again(files: Files, local: Local, monkeypatch: Any) -> None:
    """Two changes may have one time, in milliseconds."""
    put(files, 1, record("Paris", SPRING))
    monkeypatch.setattr(days, "SETTLED_SECONDS", 60)
    watermark = local.work()
    assert watermark["dt=2026-03-29"]["modified"] == 0
    monkeypatch.setattr(days, "SETTLED_SECONDS", -60)
    assert abs(local.work(watermark)["dt=2026-03-29"]["modified"] - time.time()) < 60 and len(local.read) == 1


def test_settings_have_the_names_of_the_runbook(tmp_path: Path) -> None:
    """HDFS_URL is WebHDFS of another cluster, which jobs read as well."""
    words = {"hdfs_web_url": "http://own:9870", "hdfs_user": "openweather", "berny_raw_path": ROOT, "berny_stage": "s"}
    words |= {"berny_state_dir": str(tmp_path), "berny_pipeline": "openweather", "berny_metrics_port": "1"}
    own = Settings.model_validate({**words, "hdfs_url": "hdfs://own:8020", "mr_process_only_today": "true"})
    assert own.scheme == "" and own.mr_process_only_today and own.files().url == "http://own:9870"
    other = Settings.model_validate({**words, "hdfs_url": "http://other:9870/"})
    assert other.scheme == "webhdfs://other:9870" and not other.mr_process_only_today
