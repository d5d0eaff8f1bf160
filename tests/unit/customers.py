"""The database of customers, and its rows."""

from __future__ import annotations

import datetime as dt
from typing import Any

from pipeline_database import PipelineDatabase

from berny.model.manifest import load_pipelines
from berny.pipelines.customers import alerts_consumer, customer_rows
from berny.runtime.kafka import Origin

PIPELINE = "customers"
MANIFEST = load_pipelines()[PIPELINE]
COLUMNS = {"customers": customer_rows.COLUMNS, "customers_alerts": alerts_consumer.COLUMNS}


def record(number: int, observed: float = 1.5, **fields: Any) -> dict[str, Any]:
    """Return a record of ``customers-usa``."""
    texts = {"first_name": "José", "last_name": "O'Neill", "company": None, "city": "Reno", "country": "USA"}
    rest = {"phone_1": None, "phone_2": "1", "email": f"c{number}@example.org", "subscription_date": "2020-02-29"}
    head = {"identity": f"etag:{number}", "observed_at": observed, "data_origin": "x", "index": number}
    return {**head, "customer_id": f"C{number}", **texts, **rest, "website": None, **fields}


def row(number: int, observed: dt.datetime) -> tuple[Any, ...]:
    """Return a row of the table ``customers``."""
    return customer_rows.row(record(number, observed.timestamp()), Origin("id", 0, number))


def alert(number: int, observed: dt.datetime, reasons: list[str]) -> tuple[Any, ...]:
    """Return a row of the table ``customers_alerts``."""
    body = {"identity": f"etag:{number}", "reasons": reasons, "customer": {"Email": ""}}
    return alerts_consumer.row({**body, "observed_at": observed.timestamp()}, Origin("id", 0, number))


class Database(PipelineDatabase):
    """The pipeline's database."""

    MANIFEST = MANIFEST

    def insert(self, table: str, values: tuple[Any, ...], stored: dt.datetime) -> None:
        """Insert a row with the time when it was stored."""
        columns = [*COLUMNS[table], "stored_at"]
        marks = ", ".join(["%s"] * len(columns))
        self.ask(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})", *values, stored)
