"""From the files of the export back to the table ``weather``, once for each new table: PostgreSQL was restored, say.

The topic has a new table's rows of the last days, and HDFS those of the days before. Rows that are there already are left as
they are, and the export leaves imported rows out: their days have them.
"""

from __future__ import annotations

import datetime as dt
import itertools
import json
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from berny.pipelines.openweather.export import FILE
from berny.runtime.batch import ItemsRefused, Sink, SinkAway
from berny.runtime.disk import write_durably
from berny.runtime.files import DAY, Files, FilesError
from berny.runtime.kafka import Origin
from berny.runtime.stage import ConfigurationError, log, pause

LOGGER = logging.getLogger("imports")
STATE = "imported.json"
RETRY_SECONDS = 30
ROWS = 200
"""Rows that are inserted at once: few, so that the topic's rows wait little."""

Row = tuple[Any, ...]


class Import:
    """Imports the days that a new table may keep, the newest first, and remembers which ones it has.

    Args:
        files: the export's directory in HDFS.
        sink: inserts rows, and has the table's id.
        row: converts a record and its origin to a row; raises ValueError.
        keep_seconds: retention of the table; None if there is none.
        folder: the stage's state directory.
    """

    def __init__(
        self,
        files: Files,
        sink: Sink[Row],
        row: Callable[[dict[str, Any], Origin], Row],
        keep_seconds: float | None,
        folder: Path,
    ) -> None:
        self._files, self._sink, self._row = files, sink, row
        self._keep_seconds = keep_seconds
        self._state = folder / STATE

    def run(self, stop: threading.Event) -> None:
        """Import all days; try again while HDFS or PostgreSQL does not respond."""
        while not stop.is_set():
            try:
                return self.work(stop)
            # The last is of the state's own disk.
            except (FilesError, SinkAway, OSError) as error:
                log(LOGGER, logging.WARNING, "not imported; trying again", reason=str(error)[:200])
                pause(stop, RETRY_SECONDS)
            except ConfigurationError as error:
                # The consumer ends by the same, and the next one starts here again.
                log(LOGGER, logging.ERROR, "not imported", reason=str(error)[:200])
                return None

    def work(self, stop: threading.Event) -> None:
        """Import the days that have not been imported into this table.

        Raises:
            FilesError: HDFS refused or does not respond.
            SinkAway: PostgreSQL does not respond.
            ConfigurationError: PostgreSQL refuses the login, or the table is missing.
        """
        done = self._done()
        if done is None:
            return
        oldest = ""
        if self._keep_seconds is not None:
            oldest = f"{DAY}{dt.datetime.now(dt.UTC).date() - dt.timedelta(seconds=self._keep_seconds)}"
        for day in sorted({day for day in self._files.days() if day >= oldest} - done, reverse=True):
            count, rows = 0, self._rows(day)
            while some := tuple(itertools.islice(rows, ROWS)):
                count += len(some)
                self._insert(some, day)
                if stop.is_set():
                    return
            done.add(day)
            self._keep(done, complete=False)
            log(LOGGER, logging.INFO, "imported from HDFS", day=day, rows=count)
        self._keep(done, complete=True)

    def _done(self) -> set[str] | None:
        """Return the days that were imported into this table, or None if all were."""
        try:
            state = json.loads(self._state.read_text())
        except (FileNotFoundError, ValueError):
            return set()
        if state["table"] != self._sink.id:
            return set()
        return None if state["complete"] else set(state["days"])

    def _keep(self, days: set[str], complete: bool) -> None:
        state = {"table": self._sink.id, "complete": complete, "days": [] if complete else sorted(days)}
        write_durably(self._state, json.dumps(state))

    def _rows(self, day: str) -> Iterator[Row]:
        """Yield the rows of a day's files; a line that is none is logged."""
        for name in filter(FILE.fullmatch, self._files.sizes(day)):
            for line in self._files.lines(f"{day}/{name}"):
                try:
                    one = json.loads(line)
                    record = one["value"]
                    # A file does not say from which topic a row was, and another topic of the name has the same offsets.
                    origin = Origin(f"hdfs:{record['identity']}", one["partition"], one["msg_offset"])
                    yield self._row(record, origin)
                except (ValueError, KeyError, TypeError) as error:
                    log(LOGGER, logging.ERROR, "a line is no row", path=f"{day}/{name}", reason=repr(error)[:200])

    def _insert(self, rows: tuple[Row, ...], day: str) -> None:
        try:
            self._sink.write(rows)
        except ItemsRefused as error:
            if len(rows) == 1:
                log(LOGGER, logging.ERROR, "PostgreSQL refuses a row of HDFS", day=day, reason=str(error)[:200])
                return
            for one in rows:
                self._insert((one,), day)
