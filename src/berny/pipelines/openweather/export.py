"""From the table ``weather`` to HDFS: the rows since the last run, as files of JSON lines in a folder for each day of Paris.

A step's files are named by it, so a run that continues one replaces them. The step is completed once they are there.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import logging
import re
from collections.abc import Iterator

from psycopg2.extensions import cursor as Cursor

from berny.model.component import seconds
from berny.pipelines.openweather.settings import FolderSettings
from berny.pipelines.openweather.steps import Step, Steps
from berny.runtime import stage, timer
from berny.runtime.files import DAY, Files
from berny.runtime.sinks.postgresql import Database, DatabaseSettings
from berny.runtime.stage import Stop, log
from berny.runtime.timer import TimerSettings

LOGGER = logging.getLogger("export")
FILE = re.compile(r"weather_(?P<table>[0-9a-f]{8})_\d{20}_\d{20}\.json")
PART_BYTES = 1 << 20
FETCHED = 100
"""Rows that are fetched at once."""
TABLE = "SELECT 'weather'::regclass::oid::bigint"
DAYS = """
SELECT DISTINCT date_time::date FROM weather WHERE xid >= %s::xid8 AND xid < %s::xid8 ORDER BY 1
"""
ROWS = """
SELECT identity, date_time, msg_offset, partition, value::text FROM weather
WHERE xid >= %s::xid8 AND xid < %s::xid8 AND date_time >= %s AND date_time < %s
"""


class Settings(FolderSettings, DatabaseSettings, TimerSettings):
    """The export's environment."""

    pg_table_id: str
    """Of ``ref_date``."""


class Export:
    """A run of the export.

    Args:
        settings: the stage's environment.
        files: the directory in HDFS.
    """

    def __init__(self, settings: Settings, files: Files) -> None:
        self._database = Database(settings)
        self._steps = Steps(self._database)
        self._files = files
        self._table_id = settings.pg_table_id
        self._keep = settings.berny_raw_keep

    def work(self, watermark: object = None) -> Iterator[timer.Step]:
        """Export all rows of transactions that have ended, step by step. The watermark is in ``ref_date``.

        What comes meanwhile is the next run's: else each step's rows would be few, and their files small.

        Raises:
            FilesError: HDFS refused or does not respond.
            SinkAway: PostgreSQL does not respond.
            ConfigurationError: PostgreSQL refuses the login, or a table is missing.
        """
        self._check()
        end, following = self._steps.end(), 0
        while following < end and (step := self._steps.next()):
            files, count = self._write(step)
            self._steps.complete(step, files)
            following = step.following
            yield timer.Step(following, count)
        self._steps.forget()
        if self._keep:
            self._files.drop_expired(seconds(self._keep))

    def _check(self) -> None:
        """Have steps done again whose files HDFS does not have: it was restored from an older state, say."""
        completed = self._steps.completed()
        folders = {path.rpartition("/")[0] for files in completed.values() for path in files}
        there = {f"{folder}/{name}": size for folder in folders for name, size in self._files.sizes(folder).items()}
        for begins, files in completed.items():
            gone = [path for path, size in files.items() if there.get(path) != size]
            if gone:
                log(LOGGER, logging.ERROR, "files are gone, and are written again", path=gone[0], files=len(gone))
                self._steps.repeat(begins)

    def _write(self, step: Step) -> tuple[dict[str, int], int]:
        """Write the files of a step; return their sizes in bytes by path, and how many rows they have."""
        files, count = {}, 0
        span = (str(step.begins), str(step.following))
        with self._database.transaction() as cursor:
            cursor.execute(TABLE)
            (number,) = cursor.fetchone() or ("",)
            # Another table has other transactions: its files have other names.
            table = hashlib.sha256(f"{self._table_id}/{number}".encode()).hexdigest()[:8]
            cursor.execute(DAYS, span)
            for (day,) in cursor.fetchall():
                folder = f"{DAY}{day}"
                path = f"{folder}/weather_{table}_{step.begins:020d}_{step.following:020d}.json"
                lines = Lines(cursor, span, day, self._exported(folder, table))
                if size := self._files.replace(path, lines.parts()):
                    files[path] = size
                else:
                    self._files.remove(path)
                count += lines.count
        return files, count

    def _exported(self, folder: str, table: str) -> set[str]:
        """Return the identities that a day has from other tables: PostgreSQL was restored, and its rows came again.

        They are read once from each file, and kept beside it under a name that readers ignore.
        """
        found: set[str] = set()
        sizes = self._files.sizes(folder)
        for name in sizes:
            match = FILE.fullmatch(name)
            if not match or match["table"] == table:
                continue
            beside = f"{folder}/_{name}.identities"
            if f"_{name}.identities" not in sizes:
                lines = (json.loads(line)["value"]["identity"] for line in self._files.lines(f"{folder}/{name}"))
                self._files.replace(beside, (f"{identity}\n".encode() for identity in lines))
            found.update(line.decode() for line in self._files.lines(beside))
        return found


class Lines:
    """The lines of a day's rows; ``count`` is how many there were.

    Args:
        cursor: a cursor in a transaction.
        span: the first transaction, and the one after the last.
        day: of ``date_time``.
        exported: identities that are left out.
    """

    def __init__(self, cursor: Cursor, span: tuple[str, str], day: dt.date, exported: set[str]) -> None:
        self._cursor, self._exported = cursor, exported
        self._values = (*span, day, day + dt.timedelta(days=1))
        self.count = 0

    def parts(self) -> Iterator[bytes]:
        """Yield the lines in parts: an object of ``date_time``, ``msg_offset``, ``partition`` and ``value`` each."""
        part = bytearray()
        with self._cursor.connection.cursor("lines") as rows:
            rows.itersize = FETCHED
            rows.execute(ROWS, self._values)
            for identity, moment, offset, partition, value in rows:
                if identity in self._exported:
                    continue
                self.count += 1
                head = {"date_time": moment.isoformat(), "msg_offset": offset, "partition": partition}
                part += f'{json.dumps(head)[:-1]}, "value": {value}}}\n'.encode()
                if len(part) >= PART_BYTES:
                    yield bytes(part)
                    part.clear()
        yield bytes(part)


def run(settings: Settings, stop: Stop) -> None:
    """Run the export once."""
    timer.run(settings, Export(settings, settings.files()).work, stop)


if __name__ == "__main__":
    stage.main(Settings, run)
