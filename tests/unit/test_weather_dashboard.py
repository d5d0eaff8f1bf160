"""The dashboard of openweather: git has what the code makes, and each query returns what rows of a real PostgreSQL say."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Any

import pytest
import weather
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard
from weather import Database, record

import dashboards
from berny.pipelines.openweather.consumer import COLUMNS, row
from berny.pipelines.openweather.controller import dashboard
from berny.runtime.kafka import Origin
from berny.runtime.rows import Tables

WHOLE = dashboards.load("openweather")
QUERIES = dashboards.queries(WHOLE)
NOON = 1_763_985_600
STOP = dt.datetime.fromtimestamp(NOON, dt.UTC)
START = STOP - dt.timedelta(hours=6)
INSERT = f"INSERT INTO weather ({', '.join(COLUMNS)}, stored_at) VALUES ({', '.join(['%s'] * (len(COLUMNS) + 1))})"
CITIES = ("Paris", "L'Isle (Adam)", "Lille")


def records() -> list[dict[str, Any]]:
    """Return seven hours of three cities, every ten minutes, some of them absurd, up to a moment before the end."""
    found = []
    for number, moment in enumerate(range(NOON - 7 * 3600, NOON, 600)):
        for city in CITIES:
            absurd = {"main": {"temp": 9999}} if number % 7 == 0 else {}
            one = record("Paris", moment, number, aqi=number % 6, name=city, **absurd)
            found.append(one | {"identity": f"{city}{number}"})
    return found


@pytest.fixture(scope="module")
def tables() -> Iterator[Tables]:
    """The rows, as the role that Grafana has reads them."""
    with weather.Database.running() as database:
        insert(database)
        yield Tables(str(database.server.folder), database.server.port, "openweather", "berny_read")


def insert(database: Database) -> None:
    """Insert each record half a minute after it was measured."""
    for number, one in enumerate(records()):
        stored = dt.datetime.fromtimestamp(one["dt"] + 30, dt.UTC)
        database.ask(INSERT, *row(one, Origin("id", 0, number)), stored)


def ask(tables: Tables, title: str, *cities: str, stop: dt.datetime = STOP) -> list[tuple[Any, ...]]:
    """Return the rows of a panel's query."""
    start = stop - (STOP - START)
    return tables.query(dashboards.in_sql(QUERIES[title], start, stop, city=cities))


def windows(name: str, fold: Any, *cities: str, seconds: int = 900) -> list[tuple[float, str, float]]:
    """Return what a panel with lines should show, from the records."""
    values: dict[tuple[int, str], list[float]] = {}
    for one in records():
        moment, told = one["dt"] + (30 if name == "rows" else 0), one["measured"]
        fallen = told.get("rain_1h", 0) + told.get("snow_1h", 0)
        value = {"temp": told.get("temp"), "aqi": told.get("aqi"), "fallen": fallen, "rows": 1}[name]
        if START.timestamp() <= moment <= NOON and one["name"] in (cities or CITIES) and value is not None:
            values.setdefault((moment // seconds * seconds, one["name"]), []).append(value)
    return [(moment, city, pytest.approx(fold(some))) for (moment, city), some in sorted(values.items())]


def mean(values: list[float]) -> float:
    """Return the average."""
    return sum(values) / len(values)


def test_git_has_what_the_code_makes() -> None:
    """The file is never edited by hand, and the vendor's models read it whole."""
    assert dashboards.FILES["openweather"] == dashboard.FILE
    said = "run: python -m berny.pipelines.openweather.controller.dashboard"
    assert dashboard.FILE.read_text() == dashboard.text(), said
    register_default_plugins()
    again = JSONEncoder(sort_keys=True, indent=2, ensure_ascii=False).encode(Dashboard.from_json(WHOLE))
    assert f"{again}\n" == dashboard.FILE.read_text()
    assert (WHOLE["title"], WHOLE["uid"]) == ("Weather · OpenWeather", "weather-openweather")


def test_queries_are_of_the_format_that_their_panels_take() -> None:
    formats = {panel["title"]: panel["targets"][0]["format"] for panel in WHOLE["panels"]}
    kinds = {panel["title"]: panel["type"] for panel in WHOLE["panels"]}
    assert {(kinds[title], told) for title, told in formats.items()} == {
        ("timeseries", "time_series"),
        ("stat", "table"),
    }
    assert all(panel["targets"][0]["rawQuery"] for panel in WHOLE["panels"])


@pytest.mark.parametrize("cities", [(), ("Paris",), ("L'Isle (Adam)", "Lille"), ("none",)])
def test_lines_show_what_the_rows_say(tables: Tables, cities: tuple[str, ...]) -> None:
    """Of all cities and of chosen ones, whatever their names have; absurd values are in none."""
    wanted = {
        "Temperature": windows("temp", mean, *cities),
        "Precipitation": windows("fallen", max, *cities),
        "Air quality": windows("aqi", mean, *cities),
        "Rows per hour": windows("rows", sum, *cities, seconds=3600),
    }
    for title, expected in wanted.items():
        found = [(float(moment), city, float(value)) for moment, city, value in ask(tables, title, *cities)]
        assert sorted(found) == sorted(expected, key=lambda one: one[:2]), title
        assert bool(found) == (cities != ("none",)), title


def test_numbers_show_what_the_rows_say(tables: Tables) -> None:
    """As of the end of the time range; without rows there is no age, and no number is made of nothing."""
    assert ask(tables, "Age of the newest row") == [(600.0,)]
    assert ask(tables, "Rows in the last hour") == [(18,)]
    assert ask(tables, "Cities in the last hour") == [(3,)]
    long_after = STOP + dt.timedelta(days=2)
    assert ask(tables, "Age of the newest row", stop=long_after) == []
    for title in ("Rows in the last hour", "Cities in the last hour"):
        assert ask(tables, title, stop=long_after) == [(0,)]
    for title in ("Temperature", "Precipitation", "Air quality", "Rows per hour"):
        assert ask(tables, title, stop=long_after) == []
    earlier = STOP - dt.timedelta(hours=3)
    assert ask(tables, "Age of the newest row", stop=earlier) == [(0.0,)]


def test_variable_offers_the_cities_of_the_last_days(tables: Tables) -> None:
    assert tables.query(QUERIES["$city"]) == []
    assert tables.query(QUERIES["$city"].replace("now()", "to_timestamp(%s)"), NOON) == [
        (city,) for city in sorted(CITIES)
    ]


def test_queries_read_by_indexes_and_never_the_records(tables: Tables) -> None:
    """A day of a large table costs a day of it."""
    for title in (panel["title"] for panel in WHOLE["panels"]):
        text = dashboards.in_sql(QUERIES[title], START, STOP)
        assert "value" not in text
        plan = tables.query(f"SET enable_seqscan = off; EXPLAIN {text}")
        assert any("weather_" in line and "Index" in line for (line,) in plan), plan
