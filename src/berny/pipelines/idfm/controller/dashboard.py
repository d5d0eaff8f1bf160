"""The dashboard as code: ``python -m berny.pipelines.idfm.controller.dashboard`` writes ``dashboard.json``, which git holds.

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
UID = "rer-b-la-croix-de-berny"
SOURCE = model.DataSourceRef(type_val="influxdb", uid="influxdb")
GREEN, ORANGE, RED, NEUTRAL = "green", "orange", "red", "text"
LATE_SECONDS = 300
LATE = ((LATE_SECONDS // 60, ORANGE), (15, RED))
"""From how many minutes on a delay is which colour: one rule for every panel, and its first step is that of the status."""
PUNCTUAL = ((0.8, ORANGE), (0.9, GREEN))
"""From which share of trains under 5 minutes on it is which colour; red below."""
DIRECTIONS = {"Aller": "blue", "Retour": "purple"}
"""Colours that mean nothing else."""
STATUS = {
    "onTime": ("on time", GREEN),
    "early": ("early", NEUTRAL),
    "late": ("late", ORANGE),
    "cancelled": ("cancelled", RED),
    "unknown": ("unknown", NEUTRAL),
}
"""What a status of ``idfm-processed`` is shown as."""
# Grafana's own units of time change with the value (ms, s, mins, hours), and their ticks are round in seconds only.
MINUTES, SECONDS = "suffix:min", "suffix:s"
SHARE, COUNT, CLOCK = "percentunit", "none", "time:HH:mm"
VALUE_SIZE = 28

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
  |> median(column: "delay", method: "exact_mean")
  |> map(fn: (r) => ({{delay: r.delay / 60.0}}))"""
# No condition in map(): InfluxDB 2.7.12 shows what it gives, and aggregates it as null.
UNDER = f"map(fn: (r) => ({{r with share: float(v: r.delay < {LATE_SECONDS}.0)}}))"
PUNCTUALITY = f"""{KNOWN}
  |> {UNDER}
  |> mean(column: "share")"""
WORST = f"""{KNOWN}
  |> max(column: "delay")
  |> map(fn: (r) => ({{delay: r.delay / 60.0}}))"""
# Where no train was recorded there is no row: that is no data, and not 0.
CANCELLED = f"""import "date"

{newest(before_the_end("1h"), "")}
  |> map(fn: (r) => ({{cancelled: int(v: r.cancelled)}}))
  |> sum(column: "cancelled")"""
# A train that does not run yet is told once, hours ahead. So the oldest record of a train that is still to come is found
# first, by one field; from there on everything is read. A column that no train has would not be there: a row that is
# never shown has them all.
DEPARTURES = f"""import "array"
import "date"

none = array.from(rows: [{{_time: {before_the_end("1s")}}}])
ahead = {records(before_the_end("1d"), "due_ms")}
  |> filter(fn: (r) => r._value > ${{__to}})
  |> group()
  |> min(column: "_time")
  |> keep(columns: ["_time"])
oldest = (union(tables: [none, ahead]) |> min(column: "_time") |> findRecord(fn: (key) => true, idx: 0))._time

columns = array.from(
  rows: [{{due_ms: 0, delay: 0.0, status: "", destination: "", mission: "", platform: "", direction: ""}}],
)
trains = {newest("oldest", "delay due_ms destination platform status")}
  |> keep(columns: ["due_ms", "delay", "status", "destination", "mission", "platform", "direction"])

union(tables: [columns, trains])
  |> filter(fn: (r) => exists r.due_ms and r.due_ms > ${{__to}})
  |> sort(columns: ["due_ms"])
  |> limit(n: 20)
  |> map(fn: (r) => ({{r with departure: time(v: r.due_ms * 1000000), delay: r.delay / 60.0}}))
  |> drop(columns: ["due_ms"])"""
# Of each train the last delay in each window: a train that is told of more often than others counts once. The newest come
# first, and of each journey the first is kept. A table for each train and window, as aggregateWindow() needs it here, takes
# three times as long.
BY_TRAIN = f"""{records("v.timeRangeStart", "journey delay")}
  |> pivot(rowKey: ["_time"], columnKey: ["_field"], valueColumn: "_value")
  |> filter(fn: (r) => exists r.delay)
  |> group(columns: ["direction"])
  |> window(every: v.windowPeriod)
  |> sort(columns: ["_time"], desc: true)
  |> unique(column: "journey")"""


def line(column: str, value: str) -> str:
    """Return Flux for a line per direction, of one row for each direction and window."""
    return f"""  |> map(fn: (r) => ({{_time: r._stop, _field: "{column}", direction: r.direction, _value: {value}}}))
  |> group(columns: ["_field", "direction"])
  |> sort(columns: ["_time"])"""


DELAY_BY_DIRECTION = f"""{BY_TRAIN}
  |> median(column: "delay", method: "exact_mean")
{line("delay", "r.delay / 60.0")}"""
PUNCTUALITY_BY_DIRECTION = f"""{BY_TRAIN}
  |> {UNDER}
  |> mean(column: "share")
{line("share", "r.share")}"""
HEARTBEAT = f"""import "array"
import "date"

none = array.from(rows: [{{records: 0}}])
counted = {records(before_the_end("5m"), "identity", "true")}
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


def missing(words: str, colour: str = NEUTRAL) -> model.SpecialValueMap:
    """Return how a value is shown that is not there: Grafana would colour it as it does the least of all values."""
    shown = model.ValueMappingResult(text=words, color=colour, index=0)
    return model.SpecialValueMap(
        model.DashboardSpecialValueMapOptions(match=model.SpecialValueMatch.NULL_AND_NAN, result=shown)
    )


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
    """Return a place on the grid of 24 columns; a phone stacks the panels by y, then x."""
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

    def showing(self, query: str, unit: str, high: float, thresholds: build.ThresholdsConfig) -> Self:
        """Return the panel with its query and its scale, which begins with 0."""
        return (
            self.datasource(SOURCE)
            .with_target(Flux(query))
            .reduce_options(reduced())
            .unit(unit)
            .min(0)
            .max(high)
            .thresholds(thresholds)
            .mappings([missing("no data")])
            .text(build_common.VizTextDisplayOptions().value_size(VALUE_SIZE))
            .show_threshold_labels(False)
            .show_threshold_markers(True)
        )


class Number(stat.Panel):
    """A number on its own."""

    def showing(self, query: str, unit: str, thresholds: build.ThresholdsConfig, absent: model.SpecialValueMap) -> Self:
        """Return the panel with its query and what it shows where there is no number."""
        return (
            self.datasource(SOURCE)
            .with_target(Flux(query))
            .reduce_options(reduced())
            .unit(unit)
            .decimals(0)
            .thresholds(thresholds)
            .mappings([absent])
            .text(build_common.VizTextDisplayOptions().value_size(VALUE_SIZE))
            .color_mode(common.BigValueColorMode.VALUE)
            .graph_mode(common.BigValueGraphMode.NONE)
            .justify_mode(common.BigValueJustifyMode.AUTO)
            .text_mode(common.BigValueTextMode.AUTO)
        )


class Lines(timeseries.Panel):
    """A line for each direction."""

    def showing(self, query: str, unit: str, thresholds: build.ThresholdsConfig) -> Self:
        """Return the panel with its query; the source is polled every 90 s, so windows are of 2 minutes at least.

        Each costs a table of the database: a day has 150, a line of as many points as the panel 700.
        """
        made = (
            self.datasource(SOURCE)
            .with_target(Flux(query))
            .interval("2m")
            .max_data_points(200)
            .unit(unit)
            .decimals(0)
            .thresholds(thresholds)
            .no_value("no data")
            .display_name("${__field.labels.direction}")
            .color_scheme(build.FieldColor().mode(model.FieldColorModeId.FIXED).fixed_color(NEUTRAL))
            .draw_style(common.GraphDrawStyle.LINE)
            .line_interpolation(common.LineInterpolation.LINEAR)
            .line_width(2)
            .fill_opacity(0)
            .show_points(common.VisibilityMode.AUTO)
            .span_nulls(600_000)
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
        )
        for direction, colour in DIRECTIONS.items():
            made = made.override_by_name(direction, [value("color", {"mode": "fixed", "fixedColor": colour})])
        return made


def _gauges(number: _Numbers) -> list[Builder[model.Panel]]:
    return [
        Gauge()
        .id(number.next())
        .title("Delay now")
        .description(
            "Median over trains: of each train recorded in the last 30 minutes the latest delay that was told. Trains "
            "without a known delay do not count."
        )
        .decimals(1)
        .showing(MEDIAN, MINUTES, 20, steps(GREEN, *LATE))
        .grid_pos(at(0, 0, 6, 5)),
        Gauge()
        .id(number.next())
        .title("Under 5 minutes")
        .description("Share of trains recorded in the last 30 minutes whose latest delay is under 5 minutes.")
        .decimals(0)
        .showing(PUNCTUALITY, SHARE, 1, steps(RED, *PUNCTUAL))
        .grid_pos(at(6, 0, 6, 5)),
        Gauge()
        .id(number.next())
        .title("Worst delay")
        .description("The largest of the trains' latest delays, of those recorded in the last 30 minutes.")
        .decimals(1)
        .showing(WORST, MINUTES, 30, steps(GREEN, *LATE))
        .grid_pos(at(12, 0, 6, 5)),
        Gauge()
        .id(number.next())
        .title("Cancelled (1 h)")
        .description("Trains whose latest record of the last hour says that they do not run.")
        .decimals(0)
        .showing(CANCELLED, COUNT, 10, steps(GREEN, (1, ORANGE), (3, RED)))
        .grid_pos(at(18, 0, 6, 5)),
    ]


def _by_direction(number: _Numbers) -> list[Builder[model.Panel]]:
    return [
        Lines()
        .id(number.next())
        .title("Delay by direction")
        .description(
            "Median over trains: of each train the last delay that was told in each interval. The dashed lines are 5 and "
            "15 minutes."
        )
        .showing(DELAY_BY_DIRECTION, MINUTES, steps("transparent", *LATE))
        .thresholds_style(build_common.GraphThresholdsStyleConfig().mode(common.GraphThresholdsStyleMode.DASHED))
        # Whole minutes as ticks, however small the delays are.
        .axis_soft_min(0)
        .axis_soft_max(10)
        .grid_pos(at(0, 5, 12, 8)),
        Lines()
        .id(number.next())
        .title("Under 5 minutes by direction")
        .description("Share of trains whose last delay in each interval is under 5 minutes.")
        .showing(PUNCTUALITY_BY_DIRECTION, SHARE, steps(RED, *PUNCTUAL))
        .min(0)
        .max(1)
        .grid_pos(at(12, 5, 12, 8)),
    ]


def _departures(number: _Numbers) -> Builder[model.Panel]:
    widths = {"departure": 90, "delay": 85, "status": 105, "destination": None, "mission": 75, "platform": 80}
    widths["direction"] = 90
    arranged = {
        "indexByName": {name: place for place, name in enumerate(widths)},
        "renameByName": {name: name.capitalize() for name in widths},
        "excludeByName": {},
    }
    words = {
        told: model.ValueMappingResult(text=shown, color=colour, index=place)
        for place, (told, (shown, colour)) in enumerate(STATUS.items())
    }
    coloured = value("custom.cellOptions", {"type": "color-text"})
    settings = {
        "departure": [value("unit", CLOCK)],
        "delay": [value("unit", MINUTES), value("decimals", 0), coloured, value("color", {"mode": "thresholds"})],
        "status": [
            value("mappings", [missing("–"), model.ValueMap(words)]),
            coloured,
            value("color", {"mode": "fixed", "fixedColor": NEUTRAL}),
        ],
    }
    made = (
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
        .thresholds(steps(GREEN, *LATE))
        .mappings([missing("–")])
        .no_value("no train ahead is known")
        .show_header(True)
        .align(common.FieldTextAlignment.AUTO)
        .inspect(False)
        .grid_pos(at(0, 13, 24, 10))
    )
    for name, width in widths.items():
        wide = [value("custom.width", width)] if width else []
        if wide or name in settings:
            made = made.override_by_name(name.capitalize(), [*settings.get(name, []), *wide])
    return made


def _pipeline(number: _Numbers) -> list[Builder[model.Panel]]:
    return [
        Number()
        .id(number.next())
        .title("Records in the last 5 minutes")
        .description(
            "Records of all trains whose time of recording is in the last 5 minutes. The source is asked every 90 s or so: "
            "a 0 means that nothing comes."
        )
        .showing(HEARTBEAT, COUNT, steps(ORANGE, (1, GREEN)), missing("no data"))
        .grid_pos(at(0, 23, 12, 3)),
        Number()
        .id(number.next())
        .title("Newest record, age")
        .description("Time since the newest record that is stored, of all trains; a day at most.")
        .showing(AGE, SECONDS, steps(GREEN, (180, ORANGE), (600, RED)), missing("over a day", RED))
        .grid_pos(at(12, 23, 12, 3)),
    ]


def dashboard() -> model.Dashboard:
    """Return the dashboard."""
    number = _Numbers()
    made = (
        build.Dashboard("RER B · La Croix de Berny")
        .uid(UID)
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
    gauges, lines, departures = _gauges(number), _by_direction(number), _departures(number)
    for panel in [*gauges, *lines, departures, *_pipeline(number)]:
        made = made.with_panel(panel)
    # Grafana has one order for all screens. On a phone the table is below six panels: this shows it alone.
    alone = (
        build.DashboardLink("Next departures")
        .type(model.DashboardLinkType.LINK)
        .icon("external link")
        .tooltip("The table alone, for a phone")
        .url(f"/d/{UID}?viewPanel={departures.build().id_val}")
        .include_vars(True)
        .keep_time(True)
    )
    return made.link(alone).build()


def text() -> str:
    """Return the file's text."""
    return JSONEncoder(sort_keys=True, indent=2, ensure_ascii=False).encode(dashboard()) + "\n"


if __name__ == "__main__":
    FILE.write_text(text())
