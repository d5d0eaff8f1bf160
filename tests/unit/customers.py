"""The tables of customers as its manifest declares them, in a PostgreSQL that the role sets up, with its roles."""

from __future__ import annotations

import datetime as dt
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from postgres import BIN, Server, load, served

from berny.model.manifest import load_pipelines
from berny.pipelines.customers import alerts_consumer, customer_rows
from berny.runtime.kafka import Origin

KEY = "k" * 64
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


class Database:
    """The pipeline's database."""

    def __init__(self, server: Server) -> None:
        self.server = server
        declared = MANIFEST.resources["postgresql"]
        stages = {
            name: {does: [table for table in getattr(stage, does) if table in declared] for does in ("reads", "writes")}
            for name, stage in MANIFEST.stages.items()
            if declared.keys() & {*stage.reads, *stage.writes}
        }
        # The role's filter completes the lists that are not given.
        tables = {
            name: {"unique": [], "indexes": [], **facts, "pipeline": PIPELINE} for name, facts in declared.items()
        }
        self.granted = server.setup(key=KEY, tables=tables, stages={PIPELINE: stages})

    def ask(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Return the rows of a query of the administrator."""
        return self.server.ask(query, *values, base=PIPELINE)

    def insert(self, table: str, values: tuple[Any, ...], stored: dt.datetime) -> None:
        """Insert a row with the time when it was stored."""
        columns = [*COLUMNS[table], "stored_at"]
        marks = ", ".join(["%s"] * len(columns))
        self.ask(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})", *values, stored)

    def environment(self, stage: str) -> dict[str, Any]:
        """Return the settings of a stage that are about this database."""
        role = f"{PIPELINE}-{stage}"
        [table] = MANIFEST.writes(stage, "postgresql")
        return {
            "pg_dsn": f"postgresql://{role}@127.0.0.1:{self.server.port}/{PIPELINE}",
            "pg_password": load("library/postgresql_setup.py").password(KEY, role),
            "pg_table": table,
            "pg_table_id": self.granted["granted"][PIPELINE]["PG_TABLE_ID"][table],
            "pg_keep": MANIFEST.resources["postgresql"][table].get("keep", ""),
            "berny_pipeline": PIPELINE,
            "berny_stage": stage,
            "berny_metrics_port": 1,
            "kafka_bootstrap_servers": "-",
            "berny_state_dir": "/nowhere",
        }


@contextmanager
def database() -> Iterator[Database]:
    """Run a server with the pipeline's database."""
    if not (BIN / "initdb").exists():
        pytest.skip("this host has no PostgreSQL: `apt-get install postgresql`, as tests/run does")
    folder = Path(tempfile.mkdtemp(prefix="berny-customers-"))
    try:
        with served(Server(folder)) as server:
            yield Database(server)
    finally:
        shutil.rmtree(folder)
