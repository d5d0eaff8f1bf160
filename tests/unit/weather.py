"""The tables of openweather as its manifest declares them, in a PostgreSQL that the role sets up, with its roles."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from postgres import BIN, Server, load, served

from berny.model.manifest import load_pipelines
from berny.pipelines.openweather import openweather
from berny.pipelines.openweather.consumer import COLUMNS, row
from berny.pipelines.openweather.controller import climate
from berny.pipelines.openweather.controller.climate import CITIES
from berny.runtime.kafka import Origin

KEY = "k" * 64
PIPELINE = "openweather"
MANIFEST = load_pipelines()[PIPELINE]
INSERT = f"INSERT INTO weather ({', '.join(COLUMNS)}) VALUES ({', '.join(['%s'] * len(COLUMNS))})"


class Database:
    """The pipeline's database."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.granted: dict[str, Any] = {}
        self.provide()

    def provide(self) -> None:
        """Do what ``site.yml`` does."""
        names = MANIFEST.resources["postgresql"]
        stages = {
            name: {does: [table for table in getattr(stage, does) if table in names] for does in ("reads", "writes")}
            for name, stage in MANIFEST.stages.items()
            if names.keys() & {*stage.reads, *stage.writes}
        }
        # The role's filter completes the lists that are not given.
        tables = {name: {"unique": [], "indexes": [], **facts, "pipeline": PIPELINE} for name, facts in names.items()}
        self.granted = self.server.setup(key=KEY, tables=tables, stages={PIPELINE: stages})

    def ask(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Return the rows of a query of the administrator."""
        return self.server.ask(query, *values, base=PIPELINE)

    def insert(self, *records: dict[str, Any], first: int = 0) -> None:
        """Insert the rows of records, each in a transaction of its own."""
        for number, one in enumerate(records):
            self.ask(INSERT, *row(one, Origin("id", 0, first + number)))

    def empty(self) -> None:
        """Delete all rows."""
        self.ask("TRUNCATE weather, ref_date")

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
        }


@contextmanager
def database() -> Iterator[Database]:
    """Run a server with the tables."""
    if not (BIN / "initdb").exists():
        pytest.skip(f"needs {BIN}, which tests/run installs")
    path = Path(tempfile.mkdtemp(prefix="pg-"))
    with served(Server(path)) as server:
        yield Database(server)
    shutil.rmtree(path)


def record(city: str, moment: int, number: int = 0, aqi: int = 2, **change: Any) -> dict[str, Any]:
    """Return a record of ``weather-api``: what the climate says of a city at a Unix time."""
    said, _ = climate.weather(CITIES[city], moment, number, 1)
    answer = {"city": city, "missing": {}, "weather": json.dumps(said | change)}
    answer["air_pollution"] = json.dumps({"list": [{"main": {"aqi": aqi}}]})
    [found] = openweather.observations(answer)
    assert isinstance(found, openweather.Observation)
    return {"identity": found.identity, "observed_at": moment, "data_origin": "simulated", **found.content}
