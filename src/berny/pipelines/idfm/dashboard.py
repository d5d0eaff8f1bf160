"""The dashboard as code: ``python -m berny.pipelines.idfm.dashboard`` writes ``dashboard.json`` beside it, which git holds.

What is asked is Flux. A journey is a field and a slot is no journey, so the newest record of each journey is found among
records, by the field ``journey``, and never by taking the last of a series. That ``start`` is near keeps it cheap.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from grafana_foundation_sdk.builders import common as build_common
from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.builders import gauge, stat, table, timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.runtime import UnknownDataquery
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models import dashboard as model

from berny.pipelines.idfm.points import MEASUREMENT

FILE = Path(__file__).with_name("dashboard.json")
SOURCE = model.DataSourceRef(type_val="influxdb", uid="influxdb")
LATE_SECONDS = 300
GREEN, ORANGE, RED, BLUE = "green", "orange", "red", "blue"

CHOSEN = "r.direction =~ /^${direction:regex}$/ and r.mission =~ /^${mission:regex}$/"


def records(start: str, fields: str, where: str = CHOSEN) -> str:
    """Return Flux for the records from ``start`` to the end of the time range: some fields, of some trains."""
    asked = " or ".join(f'r._field == "{field}"' for field in fields.split())
    return f"""from(bucket: v.defaultBucket)
  |> range(start: {start}, stop: v.timeRangeStop)
  |> filter(fn: (r) => r._measurement == "{MEASUREMENT}" and ({asked}))
  |> filter(fn: (r) => {where})"""


def newest(start: str, fields: str) -> str:
    """Return Flux for the newest record of each journey: a row each."""
    return f"""{records(start, f"journey cancelled {fields}")}
  |> pivot(rowKey: ["_time"], columnKey: ["_field"], valueColumn: "_value")
  |> group(columns: ["journey"])
  |> sort(columns: ["_time"], desc: true)
  |> limit(n: 1)
  |> group()"""


def before_the_end(span: str) -> str:
    """Return Flux for the moment so long before the end of the time range."""
    return f"date.sub(d: {span}, from: v.timeRangeStop)"


KNOWN = f"""import "date"

{newest(before_the_end("30m"), "delay")}
  |> filter(fn: (r) => exists r.delay)"""
MEDIAN = f"""{KNOWN}
  |> median(column: "delay")"""
# No condition in map(): InfluxDB 2.7.12 shows what it gives, and aggregates it as null.
SHARE = f"""{KNOWN}
  |> map(fn: (r) => ({{share: float(v: r.delay < {LATE_SECONDS}.0)}}))
  |> mean(column: "share")"""
WORST = f"""{KNOWN}
  |> max(column: "delay")
  |> keep(columns: ["delay"])"""
# Of none there would be no row: a row with 0 is always there.
CANCELLED = f"""import "array"
import "date"

none = array.from(rows: [{{cancelled: 0}}])
trains = {newest(before_the_end("1h"), "")}
  |> map(fn: (r) => ({{cancelled: int(v: r.cancelled)}}))

union(tables: [none, trains])
  |> sum(column: "cancelled")"""
# A train that does not run yet is told once, hours ahead. So the oldest record of a train that is still to come is found
# first, by one field; from there on everything is read.
DEPARTURES = f"""import "array"
import "date"

none = array.from(rows: [{{_time: {before_the_end("1s")}}}])
ahead = {records(before_the_end("1d"), "due_ms")}
  |> filter(fn: (r) => r._value > ${{__to}})
  |> group()
  |> min(column: "_time")
  |> keep(columns: ["_time"])
oldest = (union(tables: [none, ahead]) |> min(column: "_time") |> findRecord(fn: (key) => true, idx: 0))._time

{newest("oldest", "delay due_ms destination platform status")}
  |> filter(fn: (r) => exists r.due_ms and r.due_ms > ${{__to}})
  |> sort(columns: ["due_ms"])
  |> limit(n: 20)
  |> map(fn: (r) => ({{r with departure: time(v: r.due_ms * 1000000)}}))
  |> keep(columns: ["departure", "delay", "mission", "destination", "platform", "direction", "status"])"""
BY_DIRECTION = f"""{records("v.timeRangeStart", "delay")}
  |> group(columns: ["_field", "direction"])
  |> aggregateWindow(every: v.windowPeriod, fn: median, createEmpty: false)"""
HEARTBEAT = f"""import "array"
import "date"

none = array.from(rows: [{{records: 0}}])
counted = {records(before_the_end("1m"), "identity", "true")}
  |> count()
  |> group()
  |> map(fn: (r) => ({{records: r._value}}))

union(tables: [none, counted])
  |> sum(column: "records")"""
AGE = f"""import "date"

{records(before_the_end("1d"), "identity", "true")}
  |> last()
  |> group()
  |> max(column: "_time")
  |> map(fn: (r) => ({{age: float(v: int(v: v.timeRangeStop) - int(v: r._time)) / 1000000000.0}}))"""


class Flux(Builder[Dataquery]):
    """A query; the library has no model of InfluxDB's."""

    def __init__(self, query: str) -> None:
        self.query = query

    def build(self) -> Dataquery:
        """Return the query as Grafana keeps it."""
        source = {"type": SOURCE.type_val, "uid": SOURCE.uid}
        return UnknownDataquery({"refId": "A", "datasource": source, "query": self.query})


def steps(first: str, *others: tuple[float, str]) -> build.ThresholdsConfig:
    """Return thresholds: the colour below all, then each from a value on."""
    found = [model.Threshold(None, first), *(model.Threshold(value, colour) for value, colour in others)]
    return build.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(found)


def reduced() -> build_common.ReduceDataOptions:
    """Return how one number is made of the one row."""
    return build_common.ReduceDataOptions().calcs(["lastNotNull"]).fields("").values(False)


def value(name: str, setting: Any) -> model.DynamicConfigValue:
    """Return a setting of a column."""
    return model.DynamicConfigValue(id_val=name, value=setting)


def at(x: int, y: int, w: int, h: int) -> model.GridPos:
    """Return a place on the grid of 24 columns; a phone shows the panels one below the other, in this order."""
    return model.GridPos(x=x, y=y, w=w, h=h)


class _Numbers:
    """Panel numbers, in the order that panels are made."""

    def __init__(self) -> None:
        self.last = 0

    def next(self) -> int:
        self.last += 1
        return self.last


def _variable(name: str, label: str, description: str, where: str) -> build.QueryVariable:
    # A time range is not told to variables by every version.
    query = f"""import "influxdata/influxdb/schema"

schema.tagValues(
  bucket: v.defaultBucket,
  tag: "{name}",
  predicate: (r) => r._measurement == "{MEASUREMENT}" and {where},
  start: -7d,
)"""
    return (
        build.QueryVariable(name)
        .label(label)
        .description(description)
        .datasource(SOURCE)
        .query(query)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(model.VariableOption(selected=True, text=["All"], value=["$__all"]))
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(model.VariableSort.ALPHABETICAL_ASC)
    )


class Gauge(gauge.Panel):
    """A gauge over one number."""

    def showing(self, query: str, low: float, high: float, thresholds: build.ThresholdsConfig) -> Self:
        """Return the panel with its query and its scale."""
        return (
            self.datasource(SOURCE)
            .with_target(Flux(query))
            .reduce_options(reduced())
            .min(low)
            .max(high)
            .thresholds(thresholds)
            .no_value("none")
            .show_threshold_labels(False)
            .show_threshold_markers(True)
        )


class Number(stat.Panel):
    """A number on its own."""

    def showing(self, query: str, thresholds: build.ThresholdsConfig) -> Self:
        """Return the panel with its query."""
        return (
            self.datasource(SOURCE)
            .with_target(Flux(query))
            .reduce_options(reduced())
            .thresholds(thresholds)
            .color_mode(common.BigValueColorMode.VALUE)
            .graph_mode(common.BigValueGraphMode.NONE)
            .justify_mode(common.BigValueJustifyMode.AUTO)
            .text_mode(common.BigValueTextMode.AUTO)
        )


def _gauges(number: _Numbers) -> list[Builder[model.Panel]]:
    late = steps(GREEN, (120, ORANGE), (LATE_SECONDS, RED))
    return [
        Gauge()
        .id(number.next())
        .title("Delay now")
        .description(
            "Median over trains: of each train recorded in the last 30 minutes the latest delay that was told. Trains "
            "without a known delay do not count."
        )
        .unit("s")
        .decimals(1)
        .showing(MEDIAN, -60, 900, late)
        .grid_pos(at(0, 0, 6, 6)),
        Gauge()
        .id(number.next())
        .title("Under 5 minutes")
        .description("Share of trains recorded in the last 30 minutes whose latest delay is under 5 minutes.")
        .unit("percentunit")
        .decimals(0)
        .showing(SHARE, 0, 1, steps(RED, (0.8, ORANGE), (0.9, GREEN)))
        .grid_pos(at(6, 0, 6, 6)),
        Gauge()
        .id(number.next())
        .title("Worst delay")
        .description("The largest of the trains' latest delays, of those recorded in the last 30 minutes.")
        .unit("s")
        .decimals(1)
        .showing(WORST, -60, 1800, steps(GREEN, (LATE_SECONDS, ORANGE), (900, RED)))
        .grid_pos(at(12, 0, 6, 6)),
        Gauge()
        .id(number.next())
        .title("Cancelled in the last hour")
        .description("Trains whose latest record of the last hour says that they do not run.")
        .unit("none")
        .decimals(0)
        .showing(CANCELLED, 0, 10, steps(GREEN, (1, ORANGE), (3, RED)))
        .grid_pos(at(18, 0, 6, 6)),
    ]


def _departures(number: _Numbers) -> Builder[model.Panel]:
    columns = ["departure", "delay", "mission", "destination", "platform", "direction", "status"]
    arranged = {
        "indexByName": {name: place for place, name in enumerate(columns)},
        "renameByName": {name: name.capitalize() for name in columns},
        "excludeByName": {},
    }
    return (
        table.Panel()
        .id(number.next())
        .title("Next departures")
        .description(
            "The next 20 trains by the departure that is expected, else planned, as last told. No delay: it is unknown, or "
            "the train does not run."
        )
        .datasource(SOURCE)
        .with_target(Flux(DEPARTURES))
        .with_transformation(model.DataTransformerConfig(id_val="organize", options=arranged))
        .thresholds(steps(GREEN, (120, ORANGE), (LATE_SECONDS, RED)))
        .no_value("–")
        .show_header(True)
        .align(common.FieldTextAlignment.AUTO)
        .inspect(False)
        .override_by_name("Departure", [value("unit", "time:HH:mm"), value("custom.width", 95)])
        .override_by_name(
            "Delay",
            [
                value("unit", "s"),
                value("decimals", 1),
                value("custom.width", 100),
                value("custom.cellOptions", {"type": "color-text"}),
                value("color", {"mode": "thresholds"}),
            ],
        )
        .override_by_name("Mission", [value("custom.width", 80)])
        .override_by_name("Platform", [value("custom.width", 80)])
        .override_by_name("Direction", [value("custom.width", 90)])
        .grid_pos(at(0, 6, 12, 11))
    )


def _by_direction(number: _Numbers) -> Builder[model.Panel]:
    return (
        timeseries.Panel()
        .id(number.next())
        .title("Delay by direction")
        .description("Median of all delays told in each interval, by direction. The dashed line is 5 minutes.")
        .datasource(SOURCE)
        .with_target(Flux(BY_DIRECTION))
        .interval("1m")
        .unit("s")
        .decimals(1)
        .display_name("${__field.labels.direction}")
        .thresholds(steps("transparent", (LATE_SECONDS, RED)))
        .thresholds_style(build_common.GraphThresholdsStyleConfig().mode(common.GraphThresholdsStyleMode.DASHED))
        .color_scheme(build.FieldColor().mode(model.FieldColorModeId.PALETTE_CLASSIC))
        .draw_style(common.GraphDrawStyle.LINE)
        .line_interpolation(common.LineInterpolation.LINEAR)
        .line_width(2)
        .fill_opacity(8)
        .show_points(common.VisibilityMode.AUTO)
        .span_nulls(600_000)
        .axis_soft_min(0)
        .legend(
            build_common.VizLegendOptions()
            .show_legend(True)
            .display_mode(common.LegendDisplayMode.LIST)
            .placement(common.LegendPlacement.BOTTOM)
            .calcs(["lastNotNull"])
        )
        .tooltip(
            build_common.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI).sort(common.SortOrder.DESCENDING)
        )
        .grid_pos(at(12, 6, 12, 11))
    )


def _pipeline(number: _Numbers) -> list[Builder[model.Panel]]:
    return [
        Number()
        .id(number.next())
        .title("Records in the last minute")
        .description(
            "Records of all trains whose time of recording is in the last minute. The source is asked every 90 s or so: "
            "a 0 for longer than that means that nothing comes."
        )
        .unit("none")
        .decimals(0)
        .showing(HEARTBEAT, steps(ORANGE, (1, GREEN)))
        .grid_pos(at(0, 17, 12, 4)),
        Number()
        .id(number.next())
        .title("Age of the last measure")
        .description("Time since the newest record that is stored, of all trains; a day at most.")
        .unit("s")
        .decimals(0)
        .no_value("over a day")
        .showing(AGE, steps(GREEN, (180, ORANGE), (600, RED)))
        .grid_pos(at(12, 17, 12, 4)),
    ]


def dashboard() -> model.Dashboard:
    """Return the dashboard."""
    number = _Numbers()
    made = (
        build.Dashboard("RER B · La Croix de Berny")
        .uid("rer-b-la-croix-de-berny")
        .description("Delays of the RER B at La Croix de Berny: predicted minus planned, as the source tells them.")
        .tags(["berny", "idfm"])
        .readonly()
        .timezone("Europe/Paris")
        .time("now-3h", "now")
        .refresh("30s")
        .timepicker(build.TimePicker().refresh_intervals(["10s", "30s", "1m", "5m", "15m"]))
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .with_variable(_variable("direction", "Direction", "As the source names it: Aller, Retour.", "true"))
        .with_variable(
            _variable(
                "mission",
                "Mission",
                "The four letters on the train's front: its stops.",
                "r.direction =~ /^${direction:regex}$/",
            )
        )
    )
    for panel in [*_gauges(number), _departures(number), _by_direction(number), *_pipeline(number)]:
        made = made.with_panel(panel)
    return made.build()


def text() -> str:
    """Return the file's text."""
    return JSONEncoder(sort_keys=True, indent=2, ensure_ascii=False).encode(dashboard()) + "\n"


if __name__ == "__main__":
    FILE.write_text(text())
