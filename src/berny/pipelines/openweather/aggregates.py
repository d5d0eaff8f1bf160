"""What an observation measures, and aggregates by city and day: the mapper and the reducer of the job.

This file alone is shipped to YARN's containers, so it imports nothing but Python's own library. There it is run as
``aggregates.py map`` and ``aggregates.py reduce``; ``aggregate`` does the same to lines at hand.
"""

from __future__ import annotations

import itertools
import json
import math
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

PARTS = {
    "temp": ("temp",),
    "precipitation_1h": ("rain_1h", "snow_1h"),
    "precipitation_3h": ("rain_3h", "snow_3h"),
    "aqi": ("aqi",),
}
"""By column the entries of ``measured`` that it is the sum of: degrees Celsius, millimetres, index from 1 to 5."""
DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
KEY_FIELDS = 2
SKIPPED = "reporter:counter:openweather,skipped,1\n"
"""Hadoop Streaming counts by lines of standard error."""


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if math.isfinite(found) else None


def measures(record: Mapping[str, Any]) -> dict[str, float | None]:
    """Return each of ``PARTS`` of a record; None where it has no plausible value."""
    measured = record.get("measured")
    given = measured if isinstance(measured, dict) else {}
    found: dict[str, float | None] = {}
    for column, names in PARTS.items():
        numbers = [number for name in names if (number := _number(given.get(name))) is not None]
        found[column] = math.fsum(numbers) if numbers else None
    return found


def mapped(line: str) -> str | None:
    """Return day, number of the city, and a JSON list of what a line of a file measures, with tabs between.

    The list is the time in Unix seconds, the city's name and the values of ``PARTS``. Of a line that is no observation, None.
    """
    try:
        row = json.loads(line)
        day, record = row["date_time"][:10], row["value"]
        city, moment, name = record["city_id"], record["dt"], record.get("name")
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        return None
    numbers = all(isinstance(one, int) and not isinstance(one, bool) for one in (city, moment))
    if not numbers or not isinstance(day, str) or not DAY.fullmatch(day):
        return None
    values = [moment, name if isinstance(name, str) else "", *measures(record).values()]
    return f"{day}\t{city}\t{json.dumps(values)}"


def reduced(lines: Iterable[str]) -> Iterator[str]:
    """Yield an aggregate as JSON for each day and city of mapped lines, which are sorted by these."""
    split = (line.rstrip("\n").split("\t", KEY_FIELDS) for line in lines)
    for (day, city), some in itertools.groupby(split, key=lambda words: (words[0], words[1])):
        yield json.dumps(_aggregate(day, int(city), [json.loads(text) for _, _, text in some]))


def _aggregate(day: str, city: int, values: list[list[Any]]) -> dict[str, Any]:
    """Return the aggregate of what observations measure, in whatever order: sums are exact, then rounded once."""
    temp, one_hour, three_hours, aqi = (
        [value[2 + place] for value in values if value[2 + place] is not None] for place in range(len(PARTS))
    )
    _, name = max((value[0], value[1]) for value in values)
    return {
        "day": day,
        "city_id": city,
        "city": name,
        "observations": len(values),
        "temp_avg": math.fsum(temp) / len(temp) if temp else None,
        "temp_min": min(temp, default=None),
        "temp_max": max(temp, default=None),
        "precipitation_1h_sum": math.fsum(one_hour),
        "precipitation_3h_sum": math.fsum(three_hours),
        "aqi_avg": math.fsum(aqi) / len(aqi) if aqi else None,
    }


def aggregate(lines: Iterable[str]) -> list[dict[str, Any]]:
    """Return the aggregates of lines of files, by day and city."""
    found = [one for one in map(mapped, lines) if one is not None]
    return [json.loads(one) for one in reduced(sorted(found))]


def main(step: str) -> None:
    """Do a step of the job: read standard input, write standard output."""
    lines = (line.decode(errors="replace") for line in sys.stdin.buffer)
    if step == "map":
        for line in lines:
            found = mapped(line)
            if found is None:
                sys.stderr.write(SKIPPED)
            else:
                sys.stdout.write(f"{found}\n")
    else:
        for found in reduced(lines):
            sys.stdout.write(f"{found}\n")


if __name__ == "__main__":
    main(sys.argv[1])
