"""From a file of a source to Kafka: each new version is stored whole, then its rows are published at a pace.

Beside ``poller``, for a source that is one large file. Polling and publishing are independent and share only the deposit. The
position in a version is recorded after brokers have acknowledged, so a restart continues at that row.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import NamedTuple, Protocol

from prometheus_client import Gauge

from berny.runtime import stage
from berny.runtime.deposit import Deposit, Version
from berny.runtime.kafka import NotAcknowledged, Publishes, Record
from berny.runtime.poller import IDLE_SECONDS, LATE_SECONDS, POLLS, PollerSettings, together
from berny.runtime.source import Refused, RetryLater, Unauthorized, backoff
from berny.runtime.spool import SpoolFull, SpoolUnavailable
from berny.runtime.stage import log, pause

LOGGER = logging.getLogger("poller")
BATCH_ROWS = 2000
BATCHES_A_SECOND = 5
"""A pace that is slow is kept by smaller batches."""

VERSIONS = Gauge("berny_deposit_versions", "Versions of the file that are not published whole")
DEPOSIT_BYTES = Gauge("berny_deposit_bytes", "Bytes of the versions that are not published whole")


class Content(NamedTuple):
    """A version's content."""

    size: int
    parts: Iterator[bytes]


class FileSource(Protocol):
    """Where versions come from. Each method raises Refused or RetryLater, as do the parts."""

    def version(self) -> str:
        """Return what identifies the current version."""

    def content(self, version: str) -> Content:
        """Return the content of that version; RetryLater if it is not the current one any more."""


class Row(NamedTuple):
    """A row as a record."""

    record: Record
    number: int
    following: int
    """The offset of the next row, in bytes."""


class FilePoller:
    """One thread each for polling and publishing.

    Args:
        settings: location and size limit of the deposit.
        source: the source.
        seconds: how often it is polled.
        rows: yields the rows of a version from its position on.
        pace: rows a second; 0 for no limit.
        publisher: publishes the records.
        stop: set when the stage has to end.
    """

    def __init__(
        self,
        settings: PollerSettings,
        source: FileSource,
        seconds: float,
        rows: Callable[[Version], Iterator[Row]],
        pace: float,
        publisher: Publishes,
        stop: threading.Event,
    ) -> None:
        self._settings = settings
        self._source = source
        self._seconds = seconds
        self._rows = rows
        self._pace = pace
        self._publisher = publisher
        self._stop = stop
        self._kept = threading.Event()

    def deposit(self) -> Deposit:
        """Open the deposit."""
        return Deposit(self._settings.berny_spool_dir, self._settings.berny_spool_max_bytes)

    def run(self) -> None:
        """Run until stopped.

        Raises:
            Refused: the source refuses the key or the request.
            SpoolUnavailable: the deposit can't be opened.
        """
        opened = self.deposit()
        opened.tidy()
        opened.close()
        together([self.poll, self.publish], self.deposit, self._stop)

    def poll(self, deposit: Deposit) -> None:
        """Ask for the version, and store each new one."""
        failures, wait, outcome = 0, 0.0, ""
        while not self._stop.is_set():
            # While the deposit is full, it is late from the first time on: that a person has to change.
            if outcome != "full":
                stage.expect(wait + LATE_SECONDS)
            pause(self._stop, wait)
            if self._stop.is_set():
                return
            wait = self._seconds
            outcome = "answer"
            try:
                self._fetch(deposit)
                failures = 0
            except Refused as error:
                POLLS.labels("unauthorized" if isinstance(error, Unauthorized) else "refused").inc()
                raise
            except RetryLater as error:
                outcome, failures = "retry", failures + 1
                wait = max(wait, backoff(failures, error.seconds))
                log(LOGGER, logging.WARNING, "the source failed; trying again later", reason=error, failures=failures)
            except SpoolFull as error:
                outcome = "full"
                log(LOGGER, logging.ERROR, "polling pauses", reason=error)
            except SpoolUnavailable as error:
                outcome, failures = "disk", failures + 1
                wait = max(wait, backoff(failures))
                log(LOGGER, logging.ERROR, str(error))
            POLLS.labels(outcome).inc()

    def _fetch(self, deposit: Deposit) -> None:
        version = self._source.version()
        if deposit.knows(version):
            return
        content = self._source.content(version)
        deposit.keep(version, self._watched(content.parts), content.size)
        self._kept.set()
        log(LOGGER, logging.INFO, "a new version is stored", version=version, bytes=content.size)

    def _watched(self, parts: Iterator[bytes]) -> Iterator[bytes]:
        """Yield the parts; while they come, the stage is not overdue, and it can be stopped."""
        for part in parts:
            stage.expect(LATE_SECONDS)
            if self._stop.is_set():
                raise RetryLater("the stage is stopped")
            yield part

    def publish(self, deposit: Deposit) -> None:
        """Publish the rows of each version, in order."""
        while not self._stop.is_set():
            self._kept.clear()
            version = deposit.first()
            VERSIONS.set(deposit.depth())
            DEPOSIT_BYTES.set(deposit.bytes())
            if not version:
                self._kept.wait(IDLE_SECONDS)
                continue
            try:
                self._publish(deposit, version)
            except (NotAcknowledged, SpoolUnavailable) as error:
                log(LOGGER, logging.WARNING, "not published; trying again", reason=error)
                pause(self._stop, 1)

    def _publish(self, deposit: Deposit, version: Version) -> None:
        at_once = max(1, min(BATCH_ROWS, int(self._pace / BATCHES_A_SECOND))) if self._pace else BATCH_ROWS
        rows, due = self._rows(version), time.monotonic()
        while batch := list(islice(rows, at_once)):
            since = time.monotonic()
            self._publisher.publish(row.record for row in batch)
            deposit.advance(version, batch[-1].number, batch[-1].following)
            dead = sum(row.record.is_dead_letter for row in batch)
            stage.RECORDS_IN.inc(len(batch))
            stage.RECORDS_OUT.inc(len(batch) - dead)
            stage.DEAD_LETTERS.inc(dead)
            stage.BATCH_SECONDS.observe(time.monotonic() - since)
            stage.END_TO_END.observe(stage.since(version.kept_at))
            if self._pace:
                # A pause is not made up for: brokers that were away get no burst.
                due = max(due, since) + len(batch) / self._pace
                pause(self._stop, due - time.monotonic())
            if self._stop.is_set():
                return
        deposit.finish(version)
        log(LOGGER, logging.INFO, "a version is published", version=version.name)
