"""What the dashboard of idfm should show, computed from the points in Python."""

from __future__ import annotations

import datetime as dt
import math
import re
import statistics
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest

from berny.pipelines.idfm.points import point
from dashboards import Asked, Point, moment

TAGS = ("line", "direction", "mission", "stop", "slot")


def as_it_was(points: Iterable[Point], truth: Mapping[str, float | None]) -> list[Point]:
    """Return the points with the delays of the ground truth, which has them by identity, instead of what was stored."""
    found = []
    for one in points:
        delay = truth.get(one.fields["identity"], one.fields.get("delay"))
        fields = {name: value for name, value in one.fields.items() if name != "delay"}
        found.append(replace(one, fields=fields if delay is None else fields | {"delay": delay}))
    return found


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


def lines(points: Iterable[Point], asked: Asked, window: int) -> dict[tuple[str, int], list[float]]:
    """Return the last delay of each train in each window, in seconds, by direction and the end of the window."""
    found: dict[tuple[str, int], dict[str, Point]] = {}
    for one in points:
        if one.time >= asked.start.timestamp() and "delay" in one.fields:
            trains = found.setdefault((one.tags["direction"], (int(one.time) // window + 1) * window), {})
            journey = one.fields["journey"]
            if journey not in trains or trains[journey].time < one.time:
                trains[journey] = one
    return {key: [one.fields["delay"] for one in trains.values()] for key, trains in found.items()}


def expected(points: list[Point], asked: Asked, window: int = 120) -> dict[str, Any]:
    """Return what each panel should show: a number, rows of the table, or lines by direction and window.

    Delays are in minutes, ages in seconds, shares from 0 to 1. None: there is no data. A row of the table is (due in
    milliseconds, delay, status, destination, mission, platform, direction).
    """
    stop = asked.stop.timestamp()
    mine = list(chosen(points, asked))
    delays = [one.fields["delay"] for one in newest(mine, stop - 1800) if "delay" in one.fields]
    within_an_hour = newest(mine, stop - 3600)
    ahead = [one for one in newest(mine, stop - 86400) if one.fields.get("due_ms", 0) > stop * 1000]
    ahead.sort(key=lambda one: one.fields["due_ms"])
    everyone = [one.time for one in points if stop - 86400 <= one.time < stop]
    by_direction = lines(mine, asked, window)
    return {
        "Delay now": statistics.median(delays) / 60 if delays else None,
        "Under 5 minutes": sum(delay < 300 for delay in delays) / len(delays) if delays else None,
        "Worst delay": max(delays) / 60 if delays else None,
        "Cancelled (1 h)": sum(one.fields["cancelled"] for one in within_an_hour) if within_an_hour else None,
        "Delay by direction": {key: statistics.median(some) / 60 for key, some in by_direction.items()},
        "Under 5 minutes by direction": {
            key: sum(delay < 300 for delay in some) / len(some) for key, some in by_direction.items()
        },
        "Next departures": [
            (
                one.fields["due_ms"],
                None if one.fields.get("delay") is None else one.fields["delay"] / 60,
                one.fields["status"],
                one.fields.get("destination"),
                one.tags["mission"],
                one.fields.get("platform"),
                one.tags["direction"],
            )
            for one in ahead[:20]
        ],
        "Records in the last 5 minutes": sum(stop - 300 <= when for when in everyone),
        "Age of the newest record": stop - max(everyone) if everyone else None,
    }


def differences(found: Mapping[str, list[dict[str, Any]]], wanted: Mapping[str, Any], window: int = 120) -> list[str]:
    """Return what a database's rows by panel say that :func:`expected` does not; nothing where they agree."""
    wrong = []
    for title, value in wanted.items():
        rows: Any = found[title]
        if isinstance(value, dict):
            # The last window ends with the time range.
            ends = [math.ceil(moment(row["_time"]) / window) * window for row in rows]
            rows = {(row["direction"], end): row["_value"] for row, end in zip(rows, ends, strict=True)}
            same = len(rows) == len(found[title]) and rows == pytest.approx(value, abs=1e-6)
        elif isinstance(value, list):
            columns = ("delay", "status", "destination", "mission", "platform", "direction")
            lacking = {name for row in rows for name in columns if name not in row}
            rows = [(round(moment(row["departure"]) * 1000), *(row.get(name) for name in columns)) for row in rows]
            # Trains of one moment may be in any order.
            same = not lacking and [row[0] for row in rows] == [row[0] for row in value]
            pairs = zip(sorted(rows, key=str), sorted(value, key=str), strict=True) if same else []
            same = same and all((a[0], *a[2:]) == (b[0], *b[2:]) and a[1] == pytest.approx(b[1]) for a, b in pairs)
        else:
            rows = [list(row.values()) for row in rows]
            same = rows == [] if value is None else [len(row) for row in rows] == [1]
            same = same and (value is None or rows[0][0] == pytest.approx(value, abs=0.01))
        if not same:
            wrong.append(f"{title}: {rows}, and not {value}")
    return wrong


def crafted(now: dt.datetime) -> list[dict[str, Any]]:
    """Return records of ``idfm-processed`` on which queries go wrong that are right on a usual day.

    One train is told of fifty times as often as its neighbours; two trains of one mission share a slot; of one mission no
    train has a delay, and one is cancelled; of another nothing is known but when it is due.
    """

    def record(journey: str, mission: str, ago: float, delay: float | None, due: float, **words: Any) -> dict[str, Any]:
        direction = "Aller" if mission[0] < "M" else "Retour"
        told = {
            "identity": f"{journey}-{ago}",
            "line": "C01743",
            "stop": "STIF:StopArea:SP:46007:",
            "direction": direction,
            "mission": mission,
            "journey": journey,
            "recorded_at": (now - dt.timedelta(seconds=ago)).isoformat(),
            "theoretical": (now + dt.timedelta(seconds=due - (delay or 0))).isoformat(),
            "predicted": (now + dt.timedelta(seconds=due)).isoformat(),
            "delay_sec": delay,
            "status": "unknown" if delay is None else "late" if delay >= 300 else "onTime",
            "cancelled": False,
            "destination": f"{mission} itself",
            "platform": "1",
        }
        return told | words

    first = "train-0"
    same_slot = next(f"train-{n}" for n in range(1, 10000) if slot(f"train-{n}") == slot(first))
    often = [record("often", "EKLI", 200 + ago, 900.0 + ago, 600) for ago in range(50)]
    seldom = [record(f"seldom-{n}", "EKLI", 210, 30.0 * n, 700 + n) for n in range(4)]
    shared = [record(one, "PEPE", 400 + n, 60.0 + 400 * n, 800 + n) for n, one in enumerate((first, same_slot))]
    early = [record("early", "GOCK", 100, -45.0, -20, status="onTime"), record("below", "GOCK", 100, 299.0, 90)]
    late = [record("at", "IKAR", 100, 300.0, 90)]
    without = [
        record("gone", "SUCE", 150, None, 900, cancelled=True, status="cancelled", predicted=None),
        record("unknown", "SUCE", 150, None, 1000, theoretical=None),
    ]
    bare = [record("bare", "LYRE", 150, None, 1100, destination=None, platform=None)]
    # The newest counts: of what was late and is cancelled, of what runs after all, of what became late within a window.
    turned = [
        record("again", "VERI", 600, None, 400, cancelled=True, status="cancelled", predicted=None),
        record("again", "VERI", 60, 60.0, 400),
        record("becomes", "IKAR", 212, 200.0, 500),
        record("becomes", "IKAR", 211, 400.0, 500),
        record("turned", "VERI", 500, 1800.0, 300),
        record("turned", "VERI", 50, None, 300, cancelled=True, status="cancelled", predicted=None),
        record("old", "VERI", 7000, 1200.0, -5000),
    ]
    return [*often, *seldom, *shared, *early, *late, *without, *bare, *turned]


def slot(journey: str) -> str:
    """Return the slot of a journey, as the consumer writes it."""
    record = {"identity": "any", "recorded_at": "2025-11-24T12:00:00Z", "journey": journey}
    (found,) = re.findall(r",slot=(\d+)", point(record))
    return str(found)
