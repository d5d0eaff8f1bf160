"""The dashboard: ``python -m berny.pipelines.openweather.controller.dashboard`` generates ``dashboard.json``, kept in git."""

from __future__ import annotations

from pathlib import Path

from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import dashboard as model

from berny.controller import dashboards
from berny.controller.dashboards import (
    CELSIUS,
    COUNT,
    GREEN,
    MILLIMETRES,
    ORANGE,
    RED,
    SECONDS,
    Lines,
    Number,
    Numbers,
    at,
    missing,
    steps,
)
from berny.pipelines.openweather.controller import queries

FILE = Path(__file__).with_name("dashboard.json")
UID = "weather-openweather"
SERIES, TABLE = dashboards.of_sql("grafana-postgresql-datasource", "postgresql-openweather")
WINDOW = "15m"
"""The shortest, longer than the time between two polls of a city."""
UNBROKEN_MS = 2 * 3_600_000
"""A line goes on over so long a time without values."""


def _lines(
    number: Numbers,
    title: str,
    says: str,
    query: str,
    unit: str,
    thresholds: build.ThresholdsConfig,
    place: model.GridPos,
) -> Builder[model.Panel]:
    made = Lines().id(number.next()).title(title).description(says)
    made = made.showing(SERIES, query, unit, thresholds, "city", {}, WINDOW)
    return made.decimals(0 if unit == COUNT else 1).span_nulls(UNBROKEN_MS).grid_pos(place)


def _number(
    number: Numbers,
    title: str,
    says: str,
    query: str,
    unit: str,
    colours: tuple[build.ThresholdsConfig, model.SpecialValueMap],
    x: int,
) -> Builder[model.Panel]:
    return (
        Number()
        .id(number.next())
        .title(title)
        .description(says)
        .showing(TABLE, query, unit, *colours)
        .grid_pos(at(x, 0, 8, 3))
    )


def panels() -> list[Builder[model.Panel]]:
    """Return the panels in the order of the page."""
    number, flowing = Numbers(), (steps(ORANGE, (1, GREEN)), missing("no data"))
    age = (steps(GREEN, (1800, ORANGE), (7200, RED)), missing("over a day", RED))
    return [
        _number(
            number,
            "Age of the newest row",
            "Time since the newest weather of all cities was measured, up to a day. The source measures anew every ten "
            "minutes or so.",
            queries.AGE,
            SECONDS,
            age,
            0,
        ),
        _number(
            number,
            "Rows in the last hour",
            "Number of rows of all cities that were stored in the last hour: 0 means that nothing arrives.",
            queries.HEARTBEAT,
            COUNT,
            flowing,
            8,
        ),
        _number(
            number,
            "Cities in the last hour",
            "Number of cities whose weather was measured in the last hour.",
            queries.CITIES,
            COUNT,
            flowing,
            16,
        ),
        _lines(
            number,
            "Temperature",
            "Average of the plausible temperatures of each city in each interval.",
            queries.TEMPERATURE,
            CELSIUS,
            steps("transparent", (30, ORANGE), (35, RED)),
            at(0, 3, 12, 9),
        ),
        _lines(
            number,
            "Precipitation",
            "Rain and snow that fell in the hour before, as reported; the largest report of each interval.",
            queries.PRECIPITATION,
            MILLIMETRES,
            steps("transparent", (8, ORANGE), (50, RED)),
            at(12, 3, 12, 9),
        ),
        _lines(
            number,
            "Air quality",
            "Average index of each interval: 1 is good, 3 is moderate, 5 is very poor.",
            queries.AQI,
            COUNT,
            steps("transparent", (3, ORANGE), (4, RED)),
            at(0, 12, 12, 9),
        ),
        _lines(
            number,
            "Rows per hour",
            "Number of rows of each city that were stored in each hour.",
            queries.ROWS,
            COUNT,
            steps("transparent", (1, GREEN)),
            at(12, 12, 12, 9),
        ),
    ]


def dashboard() -> model.Dashboard:
    """Return the dashboard."""
    says = "Temperature, precipitation and air quality of the chosen cities, as OpenWeather reports them."
    cities = TABLE.variable("city", "City", "Cities of the last 7 days.", queries.CITY)
    return dashboards.page("openweather", "Weather · OpenWeather", UID, says, "24h", "1m", [cities], panels())


def text() -> str:
    """Return the content of the file."""
    return dashboards.text(dashboard())


if __name__ == "__main__":
    FILE.write_text(text())
