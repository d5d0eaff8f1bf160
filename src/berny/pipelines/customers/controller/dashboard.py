"""The dashboard: ``python -m berny.pipelines.customers.controller.dashboard`` generates ``dashboard.json``, kept in git."""

from __future__ import annotations

from pathlib import Path

from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import dashboard as model

from berny.controller import dashboards
from berny.controller.dashboards import (
    COUNT,
    GREEN,
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
from berny.pipelines.customers.controller import queries

FILE = Path(__file__).with_name("dashboard.json")
UID = "customers"
SERIES, TABLE = dashboards.of_sql("grafana-postgresql-datasource", "postgresql-customers")
WINDOW = "1m"


def _lines(
    number: Numbers, title: str, says: str, query: str, unit: str, tag: str, place: model.GridPos
) -> Builder[model.Panel]:
    made = Lines().id(number.next()).title(title).description(says)
    bounds = ((3600, ORANGE), (86400, RED)) if unit == SECONDS else ((1, GREEN),)
    return made.showing(SERIES, query, unit, steps("transparent", *bounds), tag, {}, WINDOW).grid_pos(place)


def _number(
    number: Numbers,
    title: str,
    says: str,
    query: str,
    unit: str,
    colours: tuple[build.ThresholdsConfig, model.SpecialValueMap],
    x: int,
) -> Builder[model.Panel]:
    made = Number().id(number.next()).title(title).description(says)
    return made.showing(TABLE, query, unit, *colours).grid_pos(at(x, 0, 8, 3))


def panels() -> list[Builder[model.Panel]]:
    """Return the panels in the order of the page."""
    number = Numbers()
    return [
        _number(
            number,
            "Age of the newest row",
            "Time since a row of the table customers was stored last, up to a day. It grows while the file does not change.",
            queries.AGE,
            SECONDS,
            (steps(GREEN, (3600, ORANGE), (86400, RED)), missing("over a day", RED)),
            0,
        ),
        _number(
            number,
            "Customers in the last hour",
            "Number of customers of the USA that were stored or changed in the last hour.",
            queries.HEARTBEAT,
            COUNT,
            (steps(ORANGE, (1, GREEN)), missing("no data")),
            8,
        ),
        _number(
            number,
            "Alerts in the last hour",
            "Number of incomplete rows that were stored in the last hour; each is worth a look.",
            queries.ALERTS,
            COUNT,
            (steps(GREEN, (1, ORANGE)), missing("no data")),
            16,
        ),
        _lines(
            number,
            "Rows stored",
            "Number of rows that were stored in each interval: customers of the USA, by their last change, and alerts.",
            queries.RATES,
            COUNT,
            "kind",
            at(0, 3, 12, 9),
        ),
        _lines(
            number,
            "Reasons of alerts",
            "Number of rows stored in each interval that are incomplete for a reason; a row may have several.",
            queries.REASONS,
            COUNT,
            "reason",
            at(12, 3, 12, 9),
        ),
        _lines(
            number,
            "Lag",
            "Longest time from when the producer had stored the file to when a row of it was in PostgreSQL. The pace at "
            "which rows are published is in it.",
            queries.LAG,
            SECONDS,
            "kind",
            at(0, 12, 24, 9),
        ),
    ]


def dashboard() -> model.Dashboard:
    """Return the dashboard."""
    says = "Customers of the USA and incomplete rows of customers.csv, as they are stored in PostgreSQL."
    reasons = TABLE.variable("reason", "Reason", "Reasons of the last 7 days.", queries.REASON)
    return dashboards.page("customers", "Customers", UID, says, "6h", "1m", [reasons], panels())


def text() -> str:
    """Return the content of the file."""
    return dashboards.text(dashboard())


if __name__ == "__main__":
    FILE.write_text(text())
