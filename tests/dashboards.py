"""What holds for every dashboard: its queries as Grafana would ask them, and what its file must have to be readable.

No Grafana runs where the vendor cannot be reached. So what was seen in a browser once is held in the file: each ``find_…``
returns what is wrong, and nothing for a file in order.
"""

from __future__ import annotations

import csv
import datetime as dt
import io
import itertools
import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

from berny.model.manifest import load_pipelines

CHECKOUT = Path(__file__).resolve().parents[1]
FILES = {
    name: CHECKOUT / "src" / "berny" / "pipelines" / name / manifest.dashboard
    for name, manifest in load_pipelines().items()
    if manifest.dashboard
}
"""The dashboards of all pipelines."""
ALL = ".*"
NUMBERS = {"double": float, "long": int}
COLUMNS = 24
NARROWEST = 300
"""Points that a panel has at least on a page of 1280."""
ROWS = range(3, 13)
"""Rows that a panel is high, of 38 points each."""
UNITS = {"suffix:min", "suffix:s", "suffix:°C", "suffix:mm", "percentunit", "none", "time:HH:mm"}
"""Units that neither change with the value (as ``s`` does: ms, s, mins) nor have ticks that are no round numbers."""
JUDGING = {"green", "yellow", "orange", "red"}
"""Colours that say how well or badly it goes."""
NULLS = {"null", "null+nan"}


def load(pipeline: str) -> dict[str, Any]:
    """Return the dashboard of a pipeline as git has it."""
    return dict(json.loads(FILES[pipeline].read_text()))


def queries(dashboard: Mapping[str, Any]) -> dict[str, str]:
    """Return the query of each panel by title, and of each variable by ``$name``."""
    targets = {panel["title"]: panel["targets"][0] for panel in dashboard["panels"]}
    found = {title: target["rawSql"] if "rawSql" in target else target["query"] for title, target in targets.items()}
    return found | {f"${one['name']}": one["query"] for one in dashboard["templating"]["list"]}


# -- as Grafana asks ---------------------------------------------------------------------------------------------------


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

    def server(self, query: str, bucket: str, window: int = 120) -> str:
        """Return the query with what Grafana's server replaces as well; windows are of so many seconds."""
        known = {
            "timeRangeStart": self.start.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "timeRangeStop": self.stop.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "windowPeriod": f"{window}s",
            "defaultBucket": f'"{bucket}"',
        }
        asked = re.sub(r"\bv\.(\w+)", lambda match: known[match[1]], self.browser(query))
        assert "${" not in asked, asked
        return asked


def in_sql(query: str, start: dt.datetime, stop: dt.datetime, window: int = 900, **chosen: tuple[str, ...]) -> str:
    """Return a query of SQL with what Grafana replaces: variables (none: all), and its macros for PostgreSQL.

    Source of the macros: "PostgreSQL data source" of Grafana's documentation; windows are of so many seconds.
    """

    def regex(match: re.Match[str]) -> str:
        values = [re.sub(r"[\\^$*+?.()|\[\]{}/]", r"\\\g<0>", one) for one in chosen.get(match[1], ())]
        return ALL if not values else values[0] if len(values) == 1 else f"({'|'.join(values)})"

    begins, ends = (f"'{moment.strftime('%Y-%m-%dT%H:%M:%S.%fZ')}'" for moment in (start, stop))
    seconds = {"$__interval": window, "1h": 3600}
    query = re.sub(r"\$\{(\w+):regex\}", regex, query)
    query = re.sub(
        r"\$__timeGroupAlias\((\w+), ([$\w]+)\)",
        lambda match: f'floor(extract(epoch from {match[1]})/{seconds[match[2]]})*{seconds[match[2]]} AS "time"',
        query,
    )
    query = re.sub(r"\$__timeFilter\((\w+)\)", rf"\1 BETWEEN {begins} AND {ends}", query)
    query = query.replace("$__timeFrom()", begins).replace("$__timeTo()", ends)
    assert "$__" not in query and "${" not in query, query
    return query


@dataclass
class Point:
    """One point with its fields; the time is in Unix seconds."""

    time: float
    tags: dict[str, str]
    fields: dict[str, Any] = field(default_factory=dict)


def moment(text: str) -> float:
    """Return Unix seconds of a time as InfluxDB writes it; nanoseconds are cut."""
    return dt.datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text)).timestamp()


@dataclass
class Influx:
    """InfluxDB by its query API, with the token that only reads."""

    url: str
    token: str
    bucket: str

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

    def points(self, measurement: str, tags: Collection[str]) -> list[Point]:
        """Return every point of the last three days; a boolean is one."""
        query = f'from(bucket: "{self.bucket}") |> range(start: -3d) |> filter(fn: (r) => r._measurement == "{measurement}")'
        found: dict[tuple[str, ...], Point] = {}
        for row in self.ask(query):
            its = {name: row[name] for name in tags}
            one = found.setdefault((row["_time"], *its.values()), Point(moment(row["_time"]), its))
            value = row["_value"]
            one.fields[row["_field"]] = value == "true" if value in ("true", "false") else value
        return list(found.values())


# -- what a file must have ---------------------------------------------------------------------------------------------


def settings(override: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of an override by name."""
    return {one["id"]: one["value"] for one in override["properties"]}


def by_name(panel: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the settings of each field that has an override of its own."""
    return {one["matcher"]["options"]: settings(one) for one in panel["fieldConfig"]["overrides"]}


def configurations(panel: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the settings for all fields of a panel, then those for each field that has its own."""
    yield panel["title"], panel["fieldConfig"]["defaults"]
    for name, its in by_name(panel).items():
        yield f"{panel['title']}, {name}", its


def find_layout(dashboard: Mapping[str, Any]) -> list[str]:
    """Return panels that overlap, leave gaps, are wider than the page, narrow, flat, or out of the order of the page."""
    wrong = []
    taken: dict[tuple[int, int], str] = {}
    for panel in dashboard["panels"]:
        title, place = panel["title"], panel["gridPos"]
        if place["x"] + place["w"] > COLUMNS:
            wrong.append(f"{title}: wider than the page")
        if place["w"] * 1280 / COLUMNS < NARROWEST:
            wrong.append(f"{title}: narrow")
        if place["h"] not in ROWS:
            wrong.append(f"{title}: {place['h']} rows high")
        across, down = range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"])
        under = {taken[cell] for cell in itertools.product(across, down) if cell in taken}
        wrong += [f"{title}: over {other}" for other in sorted(under)]
        taken |= dict.fromkeys(itertools.product(across, down), title)
    lowest = max(y for _, y in taken)
    wrong += [
        f"a gap at {x}, {y}" for y in range(lowest + 1) for x in range(COLUMNS) if (x, y) not in taken and not wrong
    ]
    # A phone stacks them by y, then x: so does whoever reads the file.
    places = [(panel["gridPos"]["y"], panel["gridPos"]["x"]) for panel in dashboard["panels"]]
    return wrong + (["panels are not in the order of the page"] if places != sorted(places) else [])


def find_columns(dashboard: Mapping[str, Any]) -> list[str]:
    """Return tables with a column that has no width, unless it is the only one: that one takes what is left."""
    wrong = []
    for panel in (one for one in dashboard["panels"] if one["type"] == "table"):
        (arranged,) = [one["options"] for one in panel["transformations"] if one["id"] == "organize"]
        shown = [arranged["renameByName"].get(name, name) for name in arranged["indexByName"]]
        flexible = [name for name in shown if not by_name(panel).get(name, {}).get("custom.width")]
        if len(flexible) != 1:
            wrong.append(f"{panel['title']}: without a width: {flexible}")
        wrong += [f"{panel['title']}: no column {name}" for name in by_name(panel).keys() - {*shown}]
        if panel["gridPos"]["w"] != COLUMNS:
            wrong.append(f"{panel['title']}: not of full width")
    return wrong


def find_nulls(dashboard: Mapping[str, Any]) -> list[str]:
    """Return panels that show what is not there as if it were well: in a colour, as a filled arc, or not at all."""
    wrong = []
    for panel in dashboard["panels"]:
        if panel["type"] == "timeseries":
            continue
        for where, its in configurations(panel):
            # A field without mappings of its own has those of the panel.
            mappings = its.get("mappings")
            if mappings is None and its is not panel["fieldConfig"]["defaults"]:
                continue
            special = [one["options"] for one in mappings or [] if one["type"] == "special"]
            nulls = [one["result"] for one in special if one["match"] in NULLS]
            if len(nulls) != 1 or not nulls[0].get("text") or nulls[0].get("color") in (None, "green"):
                wrong.append(f"{where}: no mapping of null")
        if panel["type"] == "gauge" and panel["fieldConfig"]["defaults"].get("min") != 0:
            wrong.append(f"{panel['title']}: does not begin with 0")
        if panel["type"] == "table" and not panel["fieldConfig"]["defaults"].get("noValue"):
            wrong.append(f"{panel['title']}: no words for no rows")
    return wrong


def find_units(dashboard: Mapping[str, Any]) -> list[str]:
    """Return panels without a unit, and units that are not of the list."""
    wrong = []
    for panel in dashboard["panels"]:
        units = [(where, its["unit"]) for where, its in configurations(panel) if "unit" in its]
        wrong += [f"{where}: {unit}" for where, unit in units if unit not in UNITS]
        wrong += [] if units else [f"{panel['title']}: no unit"]
    return wrong


def find_thresholds(dashboard: Mapping[str, Any], rules: Mapping[str, Collection[tuple[float, str]]]) -> list[str]:
    """Return what is judged by another rule than that of its unit: from which value on it is which colour."""
    wrong = []
    for panel in dashboard["panels"]:
        default = panel["fieldConfig"]["defaults"]
        for where, its in configurations(panel):
            steps = its.get("thresholds", default["thresholds"])["steps"]
            found = [(one["value"], one["color"]) for one in steps[1:]]
            if its.get("unit") in rules and found != [*rules[its["unit"]]]:
                wrong.append(f"{where}: {found}")
    return wrong


def find_colours(dashboard: Mapping[str, Any]) -> list[str]:
    """Return lines whose colour is not their own on the whole page, or also says how well it goes."""
    wrong = []
    own: dict[str, set[str]] = {}
    for panel in (one for one in dashboard["panels"] if one["type"] == "timeseries"):
        fixed = {name: its["color"]["fixedColor"] for name, its in by_name(panel).items() if "color" in its}
        if panel["fieldConfig"]["defaults"]["color"]["mode"] not in ("fixed", "palette-classic-by-name"):
            wrong.append(f"{panel['title']}: colours by the order of lines")
        for name, colour in fixed.items():
            own.setdefault(colour, set()).add(name)
            if any(colour.endswith(judging) for judging in JUDGING):
                wrong.append(f"{panel['title']}, {name}: {colour}")
    return wrong + [f"{colour}: {sorted(names)}" for colour, names in own.items() if len(names) > 1]


def find_sizes(dashboard: Mapping[str, Any]) -> list[str]:
    """Return sizes of the numbers on gauges and on their own, where they are not one."""
    shown = [panel for panel in dashboard["panels"] if panel["type"] in ("gauge", "stat")]
    sizes = {panel["title"]: panel["options"].get("text", {}).get("valueSize") for panel in shown}
    return [] if len({*sizes.values()} - {None}) == 1 and None not in sizes.values() else [str(sizes)]
