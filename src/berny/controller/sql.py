"""Parts of SQL queries of dashboards, with Grafana's macros for PostgreSQL."""

from __future__ import annotations


def before_the_end(column: str, span: str) -> str:
    """Return the condition that a time is in a span before the end of the time range."""
    end = "$__timeTo()::timestamptz"
    return f"{column} > {end} - interval '{span}' AND {column} <= {end}"
