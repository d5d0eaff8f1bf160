"""The database of a pipeline as its manifest declares it, in a PostgreSQL that the role sets up, with its roles."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import pytest
from postgres import BIN, Server, load, served

from berny.model.manifest import Pipeline

KEY = "k" * 64


class PipelineDatabase:
    """The tables of ``MANIFEST``."""

    MANIFEST: Pipeline

    def __init__(self, server: Server) -> None:
        self.server = server
        self.granted: dict[str, Any] = {}
        self.provide()

    def provide(self) -> None:
        """Do what ``site.yml`` does."""
        name, declared = self.MANIFEST.name, self.MANIFEST.resources["postgresql"]
        stages = {
            stage: {does: [table for table in getattr(one, does) if table in declared] for does in ("reads", "writes")}
            for stage, one in self.MANIFEST.stages.items()
            if declared.keys() & {*one.reads, *one.writes}
        }
        # The role's filter completes the lists that are not given.
        tables = {table: {"unique": [], "indexes": [], **facts, "pipeline": name} for table, facts in declared.items()}
        self.granted = self.server.setup(key=KEY, tables=tables, stages={name: stages})

    def ask(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Return the rows of a query of the administrator."""
        return self.server.ask(query, *values, base=self.MANIFEST.name)

    def environment(self, stage: str) -> dict[str, Any]:
        """Return the settings of a stage that are about this database."""
        pipeline = self.MANIFEST.name
        role = f"{pipeline}-{stage}"
        [table] = self.MANIFEST.writes(stage, "postgresql")
        return {
            "pg_dsn": f"postgresql://{role}@127.0.0.1:{self.server.port}/{pipeline}",
            "pg_password": load("library/postgresql_setup.py").password(KEY, role),
            "pg_table": table,
            "pg_table_id": self.granted["granted"][pipeline]["PG_TABLE_ID"][table],
            "pg_keep": self.MANIFEST.resources["postgresql"][table].get("keep", ""),
            "berny_pipeline": pipeline,
            "berny_stage": stage,
            "berny_metrics_port": 1,
            "kafka_bootstrap_servers": "-",
            "berny_state_dir": "/nowhere",
        }

    @classmethod
    @contextmanager
    def running(cls) -> Iterator[Self]:
        """Run a server with the database."""
        if not (BIN / "initdb").exists():
            pytest.skip("this host has no PostgreSQL: `apt-get install postgresql`, as tests/run does")
        folder = Path(tempfile.mkdtemp(prefix="berny-postgresql-"))
        try:
            with served(Server(folder)) as server:
                yield cls(server)
        finally:
            shutil.rmtree(folder)
