"""From each day's ``aggregates.jsonl`` to the table ``weather:aggregates`` of HBase, over Thrift."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

from berny.pipelines.openweather.days import AGGREGATES, changed, seen
from berny.pipelines.openweather.settings import FolderSettings
from berny.runtime import stage, timer
from berny.runtime.files import Files
from berny.runtime.sinks.hbase import HBaseTable
from berny.runtime.stage import Stop, log
from berny.runtime.timer import TimerSettings

LOGGER = logging.getLogger("hbase")
FAMILY = "a"


class Settings(FolderSettings, TimerSettings):
    """The stage's environment."""

    hbase_enabled: bool = True
    hbase_host: str
    hbase_port: int
    hbase_table: str = "weather:aggregates"
    hbase_table_id: str
    """Changes if the table is recreated."""


def key(aggregate: dict[str, Any]) -> str:
    """Return the row key: number of the city, and the day counted backwards, so that a city's last days come first.

    Both have leading zeros: ``0002988507#79748875`` is Paris on 2025-11-24.
    """
    return f"{aggregate['city_id']:010d}#{99_999_999 - int(aggregate['day'].replace('-', '')):08d}"


def cells(aggregate: dict[str, Any]) -> dict[str, bytes | None]:
    """Return the cells of an aggregate, its fields as texts; what is unknown is None."""
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in aggregate.items()}
    return {f"{FAMILY}:{name}": None if aggregate[name] is None else text.encode() for name, text in texts.items()}


def rows(files: Files, day: str) -> dict[str, dict[str, bytes | None]]:
    """Return the rows of a day by their keys."""
    found = [json.loads(line) for line in files.lines(f"{day}/{AGGREGATES}")]
    return {key(one): cells(one) for one in found}


class Store:
    """A run: stores the aggregates of the days whose folders have changed.

    The watermark has the table's ``id``, and the ``days`` that were stored there: another table gets all of them. What was
    stored is known only after HBase has acknowledged it, so an HBase that is away gets it later.

    Args:
        files: the directory in HDFS.
        table: the table.
        table_id: its id.
    """

    def __init__(self, files: Files, table: HBaseTable, table_id: str) -> None:
        self._files, self._table, self._id = files, table, table_id

    def work(self, watermark: dict[str, Any] | None) -> Iterator[timer.Step]:
        """Store changed days; a step is one of them.

        Raises:
            FilesError: HDFS refused or does not respond.
            SinkAway: HBase does not respond.
            ConfigurationError: the table is missing.
        """
        found = self._files.days()
        known = watermark["days"] if watermark and watermark["id"] == self._id else {}
        state = {day: one for day, one in known.items() if day in found}
        for day in changed(found, state):
            written = rows(self._files, day) if AGGREGATES in self._files.sizes(day) else {}
            if written:
                self._table.put(written)
                log(LOGGER, logging.INFO, "stored", day=day, rows=len(written))
            state[day] = seen(found[day])
            yield timer.Step({"id": self._id, "days": state}, len(written))


def run(settings: Settings, stop: Stop) -> None:
    """Store once, unless HBASE_ENABLED is false."""
    if not settings.hbase_enabled:
        log(LOGGER, logging.WARNING, "HBASE_ENABLED is false: nothing is stored")
        return
    table = HBaseTable(settings.hbase_host, settings.hbase_port, settings.hbase_table)
    timer.run(settings, Store(settings.files(), table, settings.hbase_table_id).work, stop)


if __name__ == "__main__":
    stage.main(Settings, run)
