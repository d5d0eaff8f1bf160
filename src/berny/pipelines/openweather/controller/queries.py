"""The queries of the dashboard, in PostgreSQL's SQL with Grafana's macros. They read columns, not the records' JSON."""

from __future__ import annotations

from berny.controller.sql import before_the_end

# All is `.*`. In dollar quotes, names such as L'Isle-Adam need no escapes.
CHOSEN = "city ~ $q$^${city:regex}$$q$"
CITY = "SELECT DISTINCT city FROM weather WHERE at > now() - interval '7 days' AND city IS NOT NULL ORDER BY 1"


def by_city(column: str, value: str, where: str = "true") -> str:
    """Return SQL for one line per city: a value of each window."""
    return f"""SELECT $__timeGroupAlias(at, $__interval), city, {value} AS {column}
FROM weather
WHERE $__timeFilter(at) AND {CHOSEN} AND {where}
GROUP BY 1, 2
ORDER BY 1, 2"""


TEMPERATURE = by_city("temperature", "avg(temp)", "temp IS NOT NULL")
# What is reported for the last hour, several times within it; without a report nothing falls.
PRECIPITATION = by_city("precipitation", "max(coalesce(precipitation_1h, 0))")
AQI = by_city("aqi", "avg(aqi)", "aqi IS NOT NULL")
ROWS = f"""SELECT $__timeGroupAlias(stored_at, 1h), city, count(*) AS rows
FROM weather
WHERE $__timeFilter(stored_at) AND {CHOSEN}
GROUP BY 1, 2
ORDER BY 1, 2"""

# Without rows there is no row, which is shown as missing data.
AGE = f"""SELECT extract(epoch FROM $__timeTo()::timestamptz - max(at))::float8 AS age
FROM weather
WHERE {before_the_end("at", "1 day")}
HAVING count(*) > 0"""
HEARTBEAT = f"""SELECT count(*) AS rows
FROM weather
WHERE {before_the_end("stored_at", "1 hour")}"""
CITIES = f"""SELECT count(DISTINCT city) AS cities
FROM weather
WHERE {before_the_end("at", "1 hour")}"""
