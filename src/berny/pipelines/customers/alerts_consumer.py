"""From ``customers-alerts`` to the table ``customers_alerts``, for dashboards: a row for each incomplete row of the file."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

from berny.runtime import batch, stage
from berny.runtime.kafka import Origin
from berny.runtime.sinks.postgresql import PostgresSettings as Settings
from berny.runtime.sinks.postgresql import PostgresSink
from berny.runtime.stage import Stop

TOPIC, GROUP = "customers-alerts", "customers-alerts"
COLUMNS = ("identity", "reasons", "customer_id", "country", "customer", "observed_at")
EXPIRED = "stored_at < now() - %(keep)s * interval '1 second'"


def row(record: dict[str, Any], origin: Origin) -> tuple[Any, ...]:
    """Return the row of a record, in the order of ``COLUMNS``.

    Raises:
        ValueError: a field is missing or malformed.
    """
    identity, reasons, customer = (record.get(name) for name in ("identity", "reasons", "customer"))
    observed = record.get("observed_at")
    if not isinstance(identity, str) or not isinstance(observed, int | float):
        raise ValueError("the record has no identity or time")
    if not isinstance(reasons, list) or not all(isinstance(one, str) for one in reasons) or not reasons:
        raise ValueError("the record has no reasons")
    named = record.get("customer_id"), record.get("country")
    if not all(value is None or isinstance(value, str) for value in named):
        raise ValueError("the record's id or country is no text")
    at = dt.datetime.fromtimestamp(observed, dt.UTC)
    if not isinstance(customer, dict):
        raise ValueError("the record has no row")
    # PostgreSQL's JSON has no NUL.
    text = json.dumps(
        {name: value.replace("\0", "") if isinstance(value, str) else value for name, value in customer.items()}
    )
    return identity, reasons, *named, text, at


def run(settings: Settings, stop: Stop) -> None:
    """Run the consumer until it is stopped."""
    batch.run(settings, TOPIC, GROUP, PostgresSink(settings, COLUMNS, EXPIRED), row, stop)


if __name__ == "__main__":
    stage.main(Settings, run)
