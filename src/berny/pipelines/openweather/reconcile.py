"""Compares aggregates with SQL over the table of rows, and HBase with the aggregates, for the harness."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import Any

from berny.pipelines.openweather import hbase
from berny.pipelines.openweather.days import AGGREGATES, digest
from berny.runtime.batch import SinkAway
from berny.runtime.check import SinkReport
from berny.runtime.files import DAY, Files, FilesError
from berny.runtime.readers import Unreadable
from berny.runtime.rows import Tables
from berny.runtime.sinks.hbase import HBaseTable
from berny.runtime.stage import ConfigurationError

NONE: frozenset[str] = frozenset()
FIELDS = ("temp_avg", "temp_min", "temp_max", "precipitation_1h_sum", "precipitation_3h_sum", "aqi_avg")
# By the columns and the time with its zone, which the job does not see.
SQL = """
SELECT coalesce(city, ''), count(*), avg(temp), min(temp), max(temp), coalesce(sum(precipitation_1h), 0),
       coalesce(sum(precipitation_3h), 0), avg(aqi)
FROM weather
WHERE at >= %s::timestamp AT TIME ZONE 'Europe/Paris'
  AND at < (%s::timestamp + interval '1 day') AT TIME ZONE 'Europe/Paris'
GROUP BY 1
"""


@dataclass
class Compared:
    """What was compared, by ``DAY/CITY``; what waits for a timer is neither right nor wrong."""

    aggregates: int = 0
    wrong: set[str] = field(default_factory=set)
    stored: int = 0
    wrongly_stored: set[str] = field(default_factory=set)
    to_aggregate: int = 0
    """Days whose files are not those that their aggregates were computed from."""
    to_store: int = 0
    """Aggregates that HBase does not have, or not in this state."""

    def reports(self) -> list[SinkReport]:
        """Return the findings."""
        named = [
            ("aggregates", "hdfs", self.aggregates, self.wrong),
            ("hbase", "hbase", self.stored, self.wrongly_stored),
        ]
        return [
            SinkReport(name, found, NONE, 0, frozenset(wrong), NONE, component=component)
            for name, component, found, wrong in named
        ]


def same(one: Any, other: Any) -> bool:
    """Return whether two numbers are the same but for the rounding of sums; or both are None."""
    if one is None or other is None:
        return one is other
    return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-9)


def compare(tables: Tables, files: Files, table: HBaseTable, since: float) -> Compared:
    """Compare the days whose folders were modified since a Unix time.

    Raises:
        Unreadable: PostgreSQL, HDFS or HBase does not respond.
    """
    found = Compared()
    try:
        for day, modified in files.days().items():
            if modified >= since:
                _compare_day(found, tables, files, table, day)
    except (FilesError, SinkAway, ConfigurationError) as error:
        raise Unreadable(str(error)) from None
    return found


def _compare_day(found: Compared, tables: Tables, files: Files, table: HBaseTable, day: str) -> None:
    sizes = files.sizes(day)
    lines = [json.loads(line) for line in files.lines(f"{day}/{AGGREGATES}")] if AGGREGATES in sizes else []
    now = digest(sizes)
    found.to_aggregate += any(one["files"] != now for one in lines) or (bool(now) and AGGREGATES not in sizes)
    date = day.removeprefix(DAY)
    expected = {city: (count, values) for city, count, *values in tables.query(SQL, date, date)}
    for one in lines:
        name = f"{date}/{one['city']}"
        count, values = expected.get(one["city"], (0, []))
        # Rows that came after the export belong to aggregates to come.
        if count == one["observations"]:
            found.aggregates += 1
            if not all(same(one[field_name], value) for field_name, value in zip(FIELDS, values, strict=True)):
                found.wrong.add(name)
        cells = {key: value for key, value in hbase.cells(one).items() if value is not None}
        [(_, stored)] = list(table.scan(hbase.key(one))) or [("", dict[str, bytes]())]
        if stored.get(f"{hbase.FAMILY}:files") != one["files"].encode():
            found.to_store += 1
            continue
        found.stored += 1
        if stored != cells:
            found.wrongly_stored.add(name)
