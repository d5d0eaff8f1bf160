"""The dashboard: ``python -m berny.pipelines.idfm.controller.dashboard`` generates ``dashboard.json``, which is in git."""

from __future__ import annotations

from pathlib import Path

from grafana_foundation_sdk.builders import common as build_common
from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.builders import table
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models import dashboard as model

from berny.controller import dashboards
from berny.controller.dashboards import (
    CLOCK,
    COUNT,
    GREEN,
    MINUTES,
    NEUTRAL,
    ORANGE,
    RED,
    SECONDS,
    SHARE,
    Gauge,
    Lines,
    Number,
    Numbers,
    Query,
    Source,
    at,
    missing,
    steps,
    value,
)
from berny.pipelines.idfm.controller import queries
from berny.pipelines.idfm.controller.queries import LATE_SECONDS

FILE = Path(__file__).with_name("dashboard.json")
UID = "rer-b-la-croix-de-berny"
SOURCE = Source("influxdb", "influxdb")
LATE = ((LATE_SECONDS // 60, ORANGE), (15, RED))
"""Thresholds of delays in minutes, the same in every panel; the first is also that of the status ``late``."""
PUNCTUAL = ((0.8, ORANGE), (0.9, GREEN))
"""Thresholds of the share of trains under 5 minutes; red below."""
DIRECTIONS = {"Aller": "blue", "Retour": "purple"}
"""Colours that have no other meaning."""
BY_DIRECTION = ("direction", DIRECTIONS, "2m")
"""Tag, colours and shortest window, which is longer than the 90 s between two polls of the source."""
STATUS = {
    "onTime": ("on time", GREEN),
    "early": ("early", NEUTRAL),
    "late": ("late", ORANGE),
    "cancelled": ("cancelled", RED),
    "unknown": ("unknown", NEUTRAL),
}
"""Label and colour of each status of ``idfm-processed``."""


def _gauges(number: Numbers) -> list[Builder[model.Panel]]:
    return [
        Gauge()
        .id(number.next())
        .title("Delay now")
        .description(
            "Median of the latest delay of each train recorded in the last 30 minutes. Trains without a known delay are "
            "excluded."
        )
        .decimals(1)
        .showing(SOURCE, queries.MEDIAN, MINUTES, 20, steps(GREEN, *LATE))
        .grid_pos(at(0, 0, 6, 5)),
        Gauge()
        .id(number.next())
        .title("Under 5 minutes")
        .description("Share of trains recorded in the last 30 minutes whose latest delay is under 5 minutes.")
        .decimals(0)
        .showing(SOURCE, queries.PUNCTUALITY, SHARE, 1, steps(RED, *PUNCTUAL))
        .grid_pos(at(6, 0, 6, 5)),
        Gauge()
        .id(number.next())
        .title("Worst delay")
        .description("Largest of the latest delays of all trains recorded in the last 30 minutes.")
        .decimals(1)
        .showing(SOURCE, queries.WORST, MINUTES, 30, steps(GREEN, *LATE))
        .grid_pos(at(12, 0, 6, 5)),
        Gauge()
        .id(number.next())
        .title("Cancelled (1 h)")
        .description("Number of trains whose latest record in the last hour is a cancellation.")
        .decimals(0)
        .showing(SOURCE, queries.CANCELLED, COUNT, 10, steps(GREEN, (1, ORANGE), (3, RED)))
        .grid_pos(at(18, 0, 6, 5)),
    ]


def _by_direction(number: Numbers) -> list[Builder[model.Panel]]:
    return [
        Lines()
        .id(number.next())
        .title("Delay by direction")
        .description(
            "Median of the last delay of each train in each interval. The dashed lines are at 5 and 15 minutes."
        )
        .showing(SOURCE, queries.DELAY_BY_DIRECTION, MINUTES, steps("transparent", *LATE), *BY_DIRECTION)
        .thresholds_style(build_common.GraphThresholdsStyleConfig().mode(common.GraphThresholdsStyleMode.DASHED))
        # Keeps the ticks at full minutes even if all delays are small.
        .axis_soft_min(0)
        .axis_soft_max(10)
        .grid_pos(at(0, 5, 12, 8)),
        Lines()
        .id(number.next())
        .title("Under 5 minutes by direction")
        .description("Share of trains whose last delay in each interval is under 5 minutes.")
        .showing(SOURCE, queries.PUNCTUALITY_BY_DIRECTION, SHARE, steps(RED, *PUNCTUAL), *BY_DIRECTION)
        .min(0)
        .max(1)
        .grid_pos(at(12, 5, 12, 8)),
    ]


def _departures(number: Numbers) -> Builder[model.Panel]:
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
            "The next 20 trains by expected or else planned departure, as last reported. Without a delay: it is unknown, or "
            "the train is cancelled."
        )
        .datasource(SOURCE.reference())
        .with_target(Query(SOURCE, queries.DEPARTURES))
        .with_transformation(model.DataTransformerConfig(id_val="organize", options=arranged))
        .thresholds(steps(GREEN, *LATE))
        .mappings([missing("–")])
        .no_value("no upcoming trains")
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


def _pipeline(number: Numbers) -> list[Builder[model.Panel]]:
    return [
        Number()
        .id(number.next())
        .title("Records in the last 5 minutes")
        .description(
            "Number of records of all trains that were recorded in the last 5 minutes. The source is polled every 90 s or "
            "so: 0 means that nothing arrives."
        )
        .showing(SOURCE, queries.HEARTBEAT, COUNT, steps(ORANGE, (1, GREEN)), missing("no data"))
        .grid_pos(at(0, 23, 12, 3)),
        Number()
        .id(number.next())
        .title("Age of the newest record")
        .description("Time since the newest stored record of all trains, up to a day.")
        .showing(SOURCE, queries.AGE, SECONDS, steps(GREEN, (180, ORANGE), (600, RED)), missing("over a day", RED))
        .grid_pos(at(12, 23, 12, 3)),
    ]


def dashboard() -> model.Dashboard:
    """Return the dashboard."""
    number = Numbers()
    says = "Delays of the RER B at La Croix de Berny: predicted minus planned time, as reported by the source."
    stops = "The four letters on the front of the train, which stand for its stops."
    variables = [
        SOURCE.variable("direction", "Direction", "The source's names: Aller, Retour.", queries.DIRECTION),
        SOURCE.variable("mission", "Mission", stops, queries.MISSION),
    ]
    gauges, lines, departures = _gauges(number), _by_direction(number), _departures(number)
    panels = [*gauges, *lines, departures, *_pipeline(number)]
    # On a phone the table is below six panels, since Grafana has one layout for all screens: this link shows it alone.
    alone = (
        build.DashboardLink("Next departures")
        .type(model.DashboardLinkType.LINK)
        .icon("external link")
        .tooltip("Only the table, for phones")
        .url(f"/d/{UID}?viewPanel={departures.build().id_val}")
        .include_vars(True)
        .keep_time(True)
    )
    title = "RER B · La Croix de Berny"
    return dashboards.page("idfm", title, UID, says, "3h", "30s", variables, panels, [alone])


def text() -> str:
    """Return the content of the file."""
    return dashboards.text(dashboard())


if __name__ == "__main__":
    FILE.write_text(text())
