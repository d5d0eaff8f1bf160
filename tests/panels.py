"""The dashboard's queries as Grafana would ask them, and what they should answer, computed from the points in Python."""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
import re
import statistics
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

DASHBOARD = Path(__file__).resolve().parents[1] / "src" / "berny" / "pipelines" / "idfm" / "dashboard.json"
ALL = ".*"
NUMBERS = {"double": float, "long": int}


def dashboard() -> dict[str, Any]:
    """Return the dashboard as git has it."""
    return dict(json.loads(DASHBOARD.read_text()))


def queries() -> dict[str, str]:
    """Return the query of each panel by title, and of each variable by ``$name``."""
    found = {panel["title"]: panel["targets"][0]["query"] for panel in dashboard()["panels"]}
    return found | {f"${one['name']}": one["query"] for one in dashboard()["templating"]["list"]}


@dataclass(frozen=True)
class Asked:
    """What a person has chosen: the time range, and values of the variables (none: all)."""

    start: dt.datetime
    stop: dt.datetime
    direction: tuple[str, ...] = ()
    mission: tuple[str, ...] = ()

    def browser(self, query: str) -> str:
        """Return the query with what the browser replaces: variables, and the time range's end in milliseconds."""

        def regex(match: re.Match[str]) -> str:
            values = [re.sub(r"[\\^$*+?.()|\[\]{}/]", r"\\\g<0>", one) for one in getattr(self, match[1])]
            return ALL if not values else values[0] if len(values) == 1 else f"({'|'.join(values)})"

        query = re.sub(r"\$\{(\w+):regex\}", regex, query)
        return query.replace("${__to}", str(int(self.stop.timestamp() * 1000)))

    def server(self, query: str, bucket: str, window: str = "1m0s") -> str:
        """Return the query with what Grafana's server replaces as well."""
        known = {
            "timeRangeStart": self.start.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "timeRangeStop": self.stop.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "windowPeriod": window,
            "defaultBucket": f'"{bucket}"',
        }
        asked = re.sub(r"\bv\.(\w+)", lambda match: known[match[1]], self.browser(query))
        assert "${" not in asked, asked
        return asked


@dataclass
class Influx:
    """InfluxDB by its query API, with the token that only reads."""

    url: str
    token: str
    bucket: str = "idfm_metrics"

    def ask(self, query: str) -> list[dict[str, Any]]:
        """Return the rows; a cell is None where it is empty."""
        body = {"query": query, "type": "flux", "dialect": {"header": True, "annotations": ["datatype"]}}
        headers = {"Authorization": f"Token {self.token}", "Accept": "application/csv"}
        answer = requests.post(f"{self.url}/api/v2/query?org=berny", json=body, headers=headers, timeout=60)
        assert answer.status_code == 200, f"{answer.status_code} {answer.text[:500]}\n{query}"
        rows: list[dict[str, Any]] = []
        types: list[str] = []
        names: list[str] = []
        for cells in csv.reader(io.StringIO(answer.text)):
            if not cells:
                names = []
            elif cells[0].startswith("#datatype"):
                types, names = cells, []
            elif not names:
                names = cells
            else:
                assert names[1] != "error", f"{cells}\n{query}"
                pairs = zip(names[3:], types[3:], cells[3:], strict=True)
                rows.append({n: NUMBERS.get(t, str)(cell) if cell else None for n, t, cell in pairs})
        return rows

    def points(self) -> list[Point]:
        """Return every point of the last days, unchanged."""
        query = f'from(bucket: "{self.bucket}") |> range(start: -3d) |> filter(fn: (r) => r._measurement == "health")'
        found: dict[tuple[str, ...], Point] = {}
        for row in self.ask(query):
            tags = {name: row[name] for name in ("line", "direction", "mission", "stop", "slot")}
            one = found.setdefault((row["_time"], *tags.values()), Point(moment(row["_time"]), tags))
            text = row["_value"]
            one.fields[row["_field"]] = text == "true" if row["_field"] == "cancelled" else text
        return list(found.values())


@dataclass
class Point:
    """One point with its fields."""

    time: float
    tags: dict[str, str]
    fields: dict[str, Any] = field(default_factory=dict)


def moment(text: str) -> float:
    """Return Unix seconds of a time as InfluxDB writes it; nanoseconds are cut."""
    return dt.datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text)).timestamp()


def chosen(points: Iterable[Point], asked: Asked) -> Iterator[Point]:
    """Yield the points of the trains that a person has chosen, before the end of the time range."""
    for one in points:
        if one.time < asked.stop.timestamp() and all(
            not values or one.tags[name] in values
            for name, values in (("direction", asked.direction), ("mission", asked.mission))
        ):
            yield one


def newest(points: Iterable[Point], since: float) -> list[Point]:
    """Return the newest point of each journey from a moment on."""
    found: dict[str, Point] = {}
    for one in points:
        journey = one.fields["journey"]
        if one.time >= since and (journey not in found or found[journey].time < one.time):
            found[journey] = one
    return list(found.values())


def expected(points: list[Point], asked: Asked) -> dict[str, Any]:
    """Return what each panel should show: numbers, or rows of the table as (due, journey's delay, status)."""
    stop = asked.stop.timestamp()
    mine = list(chosen(points, asked))
    delays = [one.fields["delay"] for one in newest(mine, stop - 1800) if "delay" in one.fields]
    ahead = [one for one in newest(mine, stop - 86400) if one.fields.get("due_ms", 0) > stop * 1000]
    ahead.sort(key=lambda one: one.fields["due_ms"])
    everyone = [one.time for one in points if stop - 86400 <= one.time < stop]
    return {
        "Delay now": statistics.median(delays) if delays else None,
        "Under 5 minutes": sum(delay < 300 for delay in delays) / len(delays) if delays else None,
        "Worst delay": max(delays, default=None),
        "Cancelled in the last hour": sum(one.fields["cancelled"] for one in newest(mine, stop - 3600)),
        "Next departures": [
            (one.fields["due_ms"], one.fields.get("delay"), one.fields["status"], one.tags["mission"])
            for one in ahead[:20]
        ],
        "Records in the last minute": sum(stop - 60 <= when for when in everyone),
        "Age of the last measure": stop - max(everyone) if everyone else None,
        "Delay by direction": {
            direction: [
                one.fields["delay"]
                for one in mine
                if one.tags["direction"] == direction and "delay" in one.fields and one.time >= asked.start.timestamp()
            ]
            for direction in {one.tags["direction"] for one in mine}
        },
    }
