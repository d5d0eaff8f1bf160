"""Building blocks of pipelines' dashboards: data sources, variables, thresholds, panels. They look alike on every dashboard.

Only a pipeline's ``controller/dashboard.py`` imports this, and only developers run that: the vendor's library is in
requirements/dev.txt, not among the packages of the controller.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from grafana_foundation_sdk.builders import common as build_common
from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.builders import gauge, stat, timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.runtime import UnknownDataquery
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models import dashboard as model

GREEN, ORANGE, RED, NEUTRAL = "green", "orange", "red", "text"
# Grafana's own time units change with the value (ms, s, mins, hours), and their ticks are round only in seconds.
MINUTES, SECONDS = "suffix:min", "suffix:s"
CELSIUS, MILLIMETRES = "suffix:°C", "suffix:mm"
SHARE, COUNT, CLOCK = "percentunit", "none", "time:HH:mm"
VALUE_SIZE = 28


@dataclass(frozen=True)
class Source:
    """A data source of Grafana: type and uid as the datasource's file has them."""

    kind: str
    uid: str
    text: str = "query"
    """The key of a panel's query that has its text."""
    words: tuple[tuple[str, Any], ...] = ()
    """What a panel's query has besides."""

    def reference(self) -> model.DataSourceRef:
        """Return the reference that panels and variables have."""
        return model.DataSourceRef(type_val=self.kind, uid=self.uid)

    def variable(self, name: str, label: str, description: str, query: str) -> build.QueryVariable:
        """Return a variable of which several values, or all, can be selected."""
        return (
            build.QueryVariable(name)
            .label(label)
            .description(description)
            .datasource(self.reference())
            .query(query)
            .multi(True)
            .include_all(True)
            .all_value(".*")
            .current(model.VariableOption(selected=True, text=["All"], value=["$__all"]))
            .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
            .sort(model.VariableSort.ALPHABETICAL_ASC)
        )


def of_sql(kind: str, uid: str) -> tuple[Source, Source]:
    """Return a data source that is asked by SQL: for lines over time, and for all else."""
    words = (("editorMode", "code"), ("rawQuery", True))
    series, table = (Source(kind, uid, "rawSql", (*words, ("format", one))) for one in ("time_series", "table"))
    return series, table


class Query(Builder[Dataquery]):
    """The query of a panel; the vendor's library has no model for every kind of data source."""

    def __init__(self, source: Source, query: str) -> None:
        self.source = source
        self.query = query

    def build(self) -> Dataquery:
        """Return the query as Grafana keeps it."""
        source = {"type": self.source.kind, "uid": self.source.uid}
        own = self.source
        return UnknownDataquery({"refId": "A", "datasource": source, own.text: self.query, **dict(own.words)})


def missing(words: str, colour: str = NEUTRAL) -> model.SpecialValueMap:
    """Return how a missing value is shown: Grafana would colour it like the lowest value."""
    shown = model.ValueMappingResult(text=words, color=colour, index=0)
    return model.SpecialValueMap(
        model.DashboardSpecialValueMapOptions(match=model.SpecialValueMatch.NULL_AND_NAN, result=shown)
    )


def steps(first: str, *others: tuple[float, str]) -> build.ThresholdsConfig:
    """Return thresholds: the base colour, then each colour with the value that it begins at."""
    found = [model.Threshold(None, first), *(model.Threshold(value, colour) for value, colour in others)]
    return build.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(found)


def reduced() -> build_common.ReduceDataOptions:
    """Return how a query's only row becomes one number."""
    return build_common.ReduceDataOptions().calcs(["lastNotNull"]).fields("").values(False)


def value(name: str, setting: Any) -> model.DynamicConfigValue:
    """Return one setting of an override."""
    return model.DynamicConfigValue(id_val=name, value=setting)


def at(x: int, y: int, w: int, h: int) -> model.GridPos:
    """Return a position on the grid of 24 columns; on a phone panels are stacked by y, then x."""
    return model.GridPos(x=x, y=y, w=w, h=h)


class Numbers:
    """Panel numbers, in the order that panels are made."""

    def __init__(self) -> None:
        self.last = 0

    def next(self) -> int:
        """Return the next number."""
        self.last += 1
        return self.last


class Gauge(gauge.Panel):
    """A gauge for one number."""

    def showing(self, source: Source, query: str, unit: str, high: float, thresholds: build.ThresholdsConfig) -> Self:
        """Return the panel with its query and its scale, which starts at 0."""
        return (
            self.datasource(source.reference())
            .with_target(Query(source, query))
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
    """A single number."""

    def showing(
        self,
        source: Source,
        query: str,
        unit: str,
        thresholds: build.ThresholdsConfig,
        absent: model.SpecialValueMap,
    ) -> Self:
        """Return the panel with its query; ``absent`` is what it shows without a number."""
        return (
            self.datasource(source.reference())
            .with_target(Query(source, query))
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
    """A line for each value of a tag."""

    def showing(
        self,
        source: Source,
        query: str,
        unit: str,
        thresholds: build.ThresholdsConfig,
        tag: str,
        colours: Mapping[str, str],
        interval: str,
    ) -> Self:
        """Return the panel with its query; ``colours`` are those of the tag's values, ``interval`` the shortest window.

        Without colours each value has one by its name, the same in all panels.
        Each window costs a table of the database, so there are at most 200 in each line, not one for each pixel.
        """
        scheme = build.FieldColor().mode(model.FieldColorModeId.PALETTE_CLASSIC_BY_NAME)
        if colours:
            scheme = build.FieldColor().mode(model.FieldColorModeId.FIXED).fixed_color(NEUTRAL)
        made = (
            self.datasource(source.reference())
            .with_target(Query(source, query))
            .interval(interval)
            .max_data_points(200)
            .unit(unit)
            .decimals(0)
            .thresholds(thresholds)
            .no_value("no data")
            .display_name(f"${{__field.labels.{tag}}}")
            .color_scheme(scheme)
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
        for name, colour in colours.items():
            made = made.override_by_name(name, [value("color", {"mode": "fixed", "fixedColor": colour})])
        return made


def page(
    pipeline: str,
    title: str,
    uid: str,
    description: str,
    shown: str,
    refresh: str,
    variables: Iterable[build.QueryVariable],
    panels: Iterable[Builder[model.Panel]],
    links: Iterable[build.DashboardLink] = (),
) -> model.Dashboard:
    """Return a pipeline's dashboard; it first shows the time ``shown``, and is refreshed as often as ``refresh`` says."""
    made = (
        build.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags(["berny", pipeline])
        .readonly()
        .timezone("Europe/Paris")
        .time(f"now-{shown}", "now")
        .refresh(refresh)
        .timepicker(build.TimePicker().refresh_intervals(["10s", "30s", "1m", "5m", "15m"]))
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
    )
    for variable in variables:
        made = made.with_variable(variable)
    for panel in panels:
        made = made.with_panel(panel)
    for link in links:
        made = made.link(link)
    return made.build()


def text(dashboard: model.Dashboard) -> str:
    """Return the text of a dashboard's file."""
    return JSONEncoder(sort_keys=True, indent=2, ensure_ascii=False).encode(dashboard) + "\n"
