"""From a source to Kafka and HDFS: poll, spool, publish one record for each observation, land the raw responses.

Polling, publishing and landing are independent and share only the spool: while Kafka or HDFS is away, the others continue.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from prometheus_client import Counter, Gauge

from berny.runtime import landing, stage
from berny.runtime.files import FilesError
from berny.runtime.kafka import NotAcknowledged, Publishes, Record
from berny.runtime.source import Refused, RetryLater, Source, Unauthorized, backoff
from berny.runtime.spool import Answer, Spool, SpoolFull, SpoolUnavailable
from berny.runtime.stage import ConfigurationError, KafkaSettings, log, pause

LOGGER = logging.getLogger("poller")
KAFKA = "kafka"
BATCH_ANSWERS, BATCH_BYTES = 50, 4 << 20
"""How many responses are published at once: parsed, they take some ten times their size."""
# How much longer than the pace a call may take before the stage is overdue.
LATE_SECONDS = 60
PRUNE_SECONDS = 60
IDLE_SECONDS = 0.1
"""How long a stop may go unnoticed while there is nothing to publish."""
RETENTION_SECONDS = 3600

POLLS = Counter("berny_polls", "Calls of the source by outcome", ["outcome"])
SPOOL_ANSWERS = Gauge("berny_spool_answers", "Responses that wait in the spool", ["sink"])
SPOOL_BYTES = Gauge("berny_spool_bytes", "Bytes of all responses in the spool")
LANDED = Counter("berny_landed_answers", "Raw responses landed in HDFS")
REPEATED = Counter("berny_repeated_observations", "Observations that the source had returned before")


class PollerSettings(KafkaSettings):
    """The environment of every poller."""

    berny_data_origin: str = "api"
    berny_spool_dir: Path
    berny_spool_max_bytes: int


class Lands(Protocol):
    """The interface of ``landing.Landing``."""

    def land(self, spool: Spool) -> int:
        """Land one file if one is due; return how many responses it contains; raise FilesError."""

    def drop_expired(self, keep_seconds: float) -> list[str]:
        """Remove expired days; return them; raise FilesError."""


class Closes(Protocol):
    """What each loop opens for itself."""

    def close(self) -> None:
        """Close it."""


S = TypeVar("S", bound=Closes)


def together(loops: Sequence[Callable[[S], None]], opens: Callable[[], S], stop: threading.Event) -> None:
    """Run each loop in a thread of its own, with what it opens there, until all have ended; a failure stops the others.

    Raises:
        BaseException: the first one that a loop has raised.
    """
    failures: list[BaseException] = []

    def guarded(loop: Callable[[S], None]) -> None:
        try:
            opened = opens()
            loop(opened)
            opened.close()
        except BaseException as error:
            if not isinstance(error, ConfigurationError):
                LOGGER.exception("the thread %s ended", loop.__name__)
            failures.append(error)
            stop.set()

    threads = [threading.Thread(target=guarded, args=(loop,), name=loop.__name__) for loop in loops]
    for thread in threads:
        thread.start()
    stage.READY.set(1)
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


@dataclass(frozen=True)
class Pace:
    """How often a source is polled."""

    seconds: float
    daily_quota: int = 0
    """Calls a day (UTC); 0 for no limit."""


@dataclass(frozen=True)
class Raw:
    """Where the raw responses go, and how long they are kept."""

    landing: Lands
    keep_seconds: float


class Poller:
    """One thread each for polling, publishing and landing, with a spool between them.

    Args:
        settings: location and size limit of the spool.
        source: the source.
        pace: how often it is polled.
        records: parses a response: identity and record of each observation, dead letters with an empty identity.
        publisher: publishes the records.
        stop: set when the stage has to end.
        raw: where the raw responses go; None if only records are wanted.
        remember_seconds: how long a published identity is not published again; longer than the source repeats it.
    """

    def __init__(
        self,
        settings: PollerSettings,
        source: Source,
        pace: Pace,
        records: Callable[[Answer], list[tuple[str, Record]]],
        publisher: Publishes,
        stop: threading.Event,
        raw: Raw | None = None,
        remember_seconds: float = 2 * 86400,
    ) -> None:
        self._settings = settings
        self._source = source
        self._pace = pace
        self._records = records
        self._publisher = publisher
        self._stop = stop
        self._raw = raw
        self._remember_seconds = remember_seconds
        self._appended = threading.Event()
        self._used_up: dt.date | None = None

    def spool(self) -> Spool:
        """Open the spool; each thread has a connection of its own."""
        sinks = [KAFKA, landing.SINK] if self._raw else [KAFKA]
        return Spool(self._settings.berny_spool_dir, self._settings.berny_spool_max_bytes, sinks)

    def run(self) -> None:
        """Run until stopped.

        Raises:
            Refused: the source refuses the key or the request.
            SpoolUnavailable: the spool can't be opened.
        """
        self.spool().close()
        together([self.poll, self.publish, *([self.land] if self._raw else [])], self.spool, self._stop)

    # -- source to spool -----------------------------------------------------------------------------------------------

    def poll(self, spool: Spool) -> None:
        """Poll the source, at its pace and within its quota, and store every complete response."""
        failures = 0
        retry_after: float | None = None
        called = time.monotonic()
        while not self._stop.is_set():
            wait = self._pace.seconds
            if failures:
                wait = max(wait, backoff(failures, retry_after))
            stage.expect(called + wait + LATE_SECONDS - time.monotonic())
            self._await_turn(spool, wait)
            if self._stop.is_set():
                return
            try:
                if not self._within_quota(spool):
                    called = time.monotonic()
                    continue
                called = time.monotonic()
                fetched_at = time.time()
                body = self._source.poll()
                offset = self._keep(spool, body, fetched_at)
            except Refused as error:
                POLLS.labels("unauthorized" if isinstance(error, Unauthorized) else "refused").inc()
                raise
            except RetryLater as error:
                POLLS.labels("retry").inc()
                failures, retry_after = failures + 1, error.seconds
                log(LOGGER, logging.WARNING, "the source failed; trying again later", reason=error, failures=failures)
                continue
            except SpoolUnavailable as error:
                POLLS.labels("disk").inc()
                failures, retry_after = failures + 1, None
                log(LOGGER, logging.ERROR, str(error))
                continue
            if offset is not None:
                failures, retry_after = 0, None
                POLLS.labels("answer").inc()

    def _await_turn(self, spool: Spool, wait: float) -> None:
        """Wait until ``wait`` seconds have passed since the last call, even if the clock was wrong when it was made."""
        ahead = spool.last_call() - time.time()
        if ahead > 0:
            words = "the recorded time of the last call is in the future: the clock was wrong then, or is now"
            log(LOGGER, logging.WARNING, words, ahead_seconds=round(ahead), waiting_seconds=wait)
        pause(self._stop, min(wait, ahead + wait))

    def _within_quota(self, spool: Spool) -> bool:
        day = dt.datetime.now(dt.UTC).date()
        quota = self._pace.daily_quota
        if quota and spool.calls(day.isoformat()) >= quota:
            tomorrow = dt.datetime.combine(day + dt.timedelta(days=1), dt.time(), dt.UTC).timestamp()
            if self._used_up != day:
                log(LOGGER, logging.WARNING, "the daily quota is used up; continuing tomorrow (UTC)", quota=quota)
            self._used_up = day
            # In steps: a wrong clock may be corrected meanwhile.
            pause(self._stop, min(self._pace.seconds, tomorrow - time.time()))
            return False
        spool.count_call(day.isoformat(), time.time())
        return True

    def _keep(self, spool: Spool, body: bytes, fetched_at: float) -> int | None:
        """Store a response and return its offset in the spool; None if the spool is full until the stop."""
        logged = False
        # Try at least once, even if the stop came while the source responded.
        while True:
            try:
                offset = spool.append(body, fetched_at)
                self._appended.set()
                return offset
            except SpoolFull as error:
                if not logged:
                    log(LOGGER, logging.ERROR, "polling pauses", reason=error)
                    POLLS.labels("full").inc()
                logged = True
                if self._stop.is_set():
                    return None
                pause(self._stop, 1)

    # -- spool to Kafka ------------------------------------------------------------------------------------------------

    def publish(self, spool: Spool) -> None:
        """Publish one record for each observation, in order, and skip those that were published before."""
        pruned = time.monotonic()
        while not self._stop.is_set():
            # Cleared before the spool is read, so that a response appended meanwhile is noticed.
            self._appended.clear()
            try:
                sent = self._publish_some(spool)
                if time.monotonic() - pruned > PRUNE_SECONDS:
                    spool.prune(spool.now() - self._remember_seconds)
                    pruned = time.monotonic()
            except (NotAcknowledged, SpoolUnavailable) as error:
                log(LOGGER, logging.WARNING, "not published; trying again", reason=error)
                sent = 0
                pause(self._stop, 1)
            SPOOL_BYTES.set(spool.bytes())
            for sink in spool.sinks:
                SPOOL_ANSWERS.labels(sink).set(spool.depth(sink))
            stage.LAG.set(spool.depth(KAFKA))
            if not sent:
                self._appended.wait(IDLE_SECONDS)

    def _publish_some(self, spool: Spool) -> int:
        since = time.monotonic()
        answers = spool.read(spool.cursor(KAFKA), BATCH_ANSWERS, BATCH_BYTES)
        if not answers:
            return 0
        named = [pair for answer in answers for pair in self._records(answer)]
        known = spool.was_published({identity for identity, _ in named if identity})
        fresh: dict[str, Record] = {}
        letters = [record for identity, record in named if not identity]
        for identity, record in named:
            if identity and identity not in known:
                fresh.setdefault(identity, record)
        self._publisher.publish([*fresh.values(), *letters])
        spool.advance(KAFKA, answers[-1].offset, fresh)
        stage.RECORDS_IN.inc(len(named))
        stage.RECORDS_OUT.inc(len(fresh))
        dead = [record for record in [*fresh.values(), *letters] if record.is_dead_letter]
        if dead:
            reason = json.loads(dead[0].value)["reason"]
            log(LOGGER, logging.WARNING, "parts of responses are dead letters", count=len(dead), reason=reason)
        stage.DEAD_LETTERS.inc(len(dead))
        REPEATED.inc(len(named) - len(fresh) - len(letters))
        stage.BATCH_SECONDS.observe(time.monotonic() - since)
        for answer in answers:
            stage.END_TO_END.observe(stage.since(answer.fetched_at))
        return len(answers)

    # -- spool to HDFS -------------------------------------------------------------------------------------------------

    def land(self, spool: Spool) -> None:
        """Land the raw responses; drop expired days."""
        assert self._raw
        dropped: float | None = None
        while not self._stop.is_set():
            try:
                landed = self._raw.landing.land(spool)
                LANDED.inc(landed)
                if dropped is None or time.monotonic() - dropped > RETENTION_SECONDS:
                    days = self._raw.landing.drop_expired(self._raw.keep_seconds)
                    if days:
                        log(LOGGER, logging.INFO, "dropped raw days", days=", ".join(days))
                    dropped = time.monotonic()
            except (FilesError, SpoolUnavailable) as error:
                log(LOGGER, logging.WARNING, "not landed; trying again", reason=error)
                landed = 0
                pause(self._stop, 2)
            if not landed:
                pause(self._stop, 1)
