"""The dashboard of customers: git has what the code makes, and each query returns what rows of a real PostgreSQL say."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Any

import customers
import pytest

import dashboards
from berny.pipelines.customers.controller import dashboard
from berny.runtime.rows import Tables

WHOLE = dashboards.load("customers")
QUERIES = dashboards.queries(WHOLE)
STOP = dt.datetime.fromtimestamp(1_763_985_600, dt.UTC)
START = STOP - dt.timedelta(hours=6)


@pytest.fixture(scope="module")
def tables() -> Iterator[Tables]:
    """Seven hours of rows, one a minute, stored 30 s after the file; each third one is an alert with two reasons."""
    with customers.Database.running() as database:
        for number in range(420):
            stored = STOP - dt.timedelta(minutes=number, seconds=20)
            observed = stored - dt.timedelta(seconds=30 + number % 2)
            if number % 3:
                database.insert("customers", customers.row(number, observed), stored)
            else:
                database.insert("customers_alerts", customers.alert(number, observed, ["a", "b c"]), stored)
        yield Tables(str(database.server.folder), database.server.port, "customers", "berny_read")


def ask(tables: Tables, title: str, *reasons: str, stop: dt.datetime = STOP) -> list[tuple[Any, ...]]:
    """Return the rows of a panel's query."""
    return tables.query(dashboards.in_sql(QUERIES[title], stop - (STOP - START), stop, reason=reasons))


def test_git_has_what_the_code_makes() -> None:
    """The file is never edited by hand."""
    assert dashboards.FILES["customers"] == dashboard.FILE
    said = "run: python -m berny.pipelines.customers.controller.dashboard"
    assert dashboard.FILE.read_text() == dashboard.text(), said
    assert (WHOLE["title"], WHOLE["uid"]) == ("Customers", "customers")


def test_numbers_show_what_the_rows_say(tables: Tables) -> None:
    """As of the end of the time range; without rows there is no age."""
    assert ask(tables, "Age of the newest row") == [(80.0,)]
    assert ask(tables, "Customers in the last hour") == [(40,)] and ask(tables, "Alerts in the last hour") == [(20,)]
    later = STOP + dt.timedelta(days=2)
    assert ask(tables, "Age of the newest row", stop=later) == []
    assert ask(tables, "Customers in the last hour", stop=later) == [(0,)]


def test_lines_show_what_the_rows_say(tables: Tables) -> None:
    """Of both tables, in the time range."""
    for title, wanted in (
        ("Rows stored", {"USA": 240, "alerts": 120}),
        ("Reasons of alerts", {"a": 120, "b c": 120}),
    ):
        sums: dict[str, float] = {}
        for _, name, value in ask(tables, title):
            sums[name] = sums.get(name, 0) + float(value)
        assert sums == wanted, title
    assert {name for _, name, _ in ask(tables, "Reasons of alerts", "b c")} == {"b c"}
    assert {(name, float(value)) for _, name, value in ask(tables, "Lag")} <= {
        (name, seconds) for name in ("USA", "alerts") for seconds in (30.0, 31.0)
    }


def test_variable_offers_the_reasons(tables: Tables) -> None:
    query = QUERIES["$reason"].replace("now()", "to_timestamp(%s)")
    assert tables.query(query, STOP.timestamp()) == [("a",), ("b c",)]
