"""From the API to Kafka and HDFS: poll, spool, publish one message per visit, land the raw answers.

Polling, publishing and landing go their own ways, joined by the spool alone: while Kafka or HDFS is away the others go on.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prometheus_client import Counter, Gauge

from berny.model.catalog import seconds
from berny.pipelines.idfm import prim
from berny.runtime import landing, stage
from berny.runtime.kafka import RECORD_BYTES, NotAcknowledged, Publisher, Record, dead_letter
from berny.runtime.landing import Landing, LandingError
from berny.runtime.spool import Answer, Spool, SpoolFull, SpoolUnavailable
from berny.runtime.stage import ConfigurationError, EnvironmentSettings, Stop, log, pause

LOGGER = logging.getLogger("producer")
KAFKA = "kafka"
TOPIC = "idfm-realtime"
# How long an identity is remembered: the API repeats a train for as long as it is near.
IDENTITY_SECONDS = 2 * 86400
BATCH_ANSWERS = 50
# How much longer than the pace a call may be on its way before the stage is overdue.
LATE_SECONDS = 60
RETENTION_SECONDS = 3600
OVERHEAD_BYTES = 4096

POLLS = Counter("berny_polls", "Calls of the source by outcome", ["outcome"])
SPOOL_ANSWERS = Gauge("berny_spool_answers", "Answers that wait in the spool", ["sink"])
SPOOL_BYTES = Gauge("berny_spool_bytes", "Bytes of all answers in the spool")
LANDED = Counter("berny_landed_answers", "Raw answers landed in HDFS")
REPEATED = Counter("berny_repeated_observations", "Observations that the source had told before")


class Settings(EnvironmentSettings):
    """The producer's environment."""

    hdfs_web_url: str
    hdfs_user: str
    prim_base_url: str = "https://prim.iledefrance-mobilites.fr"
    prim_api_key: str
    prim_monitoring_ref: str = "STIF:StopArea:SP:46007:"
    prim_line_ref: str = "STIF:Line::C01743:"
    prim_proxy: str = ""
    prim_poll_seconds: float = 90
    prim_daily_quota: int = 1000
    """Calls a day (UTC); 0 for no limit."""
    berny_data_origin: str = "api"
    berny_spool_dir: Path
    berny_spool_max_bytes: int
    berny_raw_path: str
    berny_raw_keep: str
    berny_roll_seconds: float = 300
    berny_roll_bytes: int = 32 << 20


def records(answer: Answer, origin: str) -> list[tuple[str, Record]]:
    """Return identity and record of each visit of an answer; a dead letter, without identity, of each part that is none.

    What is no answer becomes one dead letter. A record's value is JSON: identity, observed_at (Unix seconds), data_origin,
    spool_offset and the visit unchanged.
    """
    where = {"source": "prim", "spool_offset": answer.offset}
    try:
        found, bad = prim.read(json.loads(answer.body))
        named = [("", dead_letter(TOPIC, one.reason, where | {"part": one.where}, _json(one.value))) for one in bad]
        return [_record(visit, answer, origin, where) for visit in found] + named
    except (ValueError, RecursionError, prim.MalformedAnswer) as error:
        return [("", dead_letter(TOPIC, f"{type(error).__name__}: {error}", where, answer.body))]


def _json(value: object) -> bytes:
    # As ASCII: half a surrogate, which JSON may hold, has no UTF-8.
    return json.dumps(value).encode()


def _record(visit: dict[str, Any], answer: Answer, origin: str, where: dict[str, Any]) -> tuple[str, Record]:
    identity = prim.identity(visit)
    value = {
        "identity": identity,
        "observed_at": answer.fetched_at,
        "data_origin": origin,
        "spool_offset": answer.offset,
        "visit": visit,
    }
    key = f"{prim.journey(visit)}|{prim.stop(visit)}"
    record = Record(TOPIC, key.encode(errors="replace"), _json(value))
    if len(record.value) + len(key) > RECORD_BYTES - OVERHEAD_BYTES:
        record = dead_letter(TOPIC, "larger than a record may be", where | {"identity": identity}, record.value)
    return identity, record


class Producer:
    """Three threads around a spool."""

    def __init__(self, settings: Settings, stop: threading.Event) -> None:
        self.settings = settings
        self.stop = stop
        self.failure: BaseException | None = None
        self._used_up: dt.date | None = None

    def spool(self) -> Spool:
        """Open the spool; each thread has a connection of its own."""
        return Spool(self.settings.berny_spool_dir, self.settings.berny_spool_max_bytes, [KAFKA, landing.SINK])

    def run(self) -> None:
        """Run until stopped.

        Raises:
            ConfigurationError: the source refuses the key or what is asked, or can't be asked at all.
        """
        self.spool().close()
        threads = [
            threading.Thread(target=self._guarded, args=(loop,), name=loop.__name__)
            for loop in (self.poll, self.publish, self.land)
        ]
        for thread in threads:
            thread.start()
        stage.READY.set(1)
        for thread in threads:
            thread.join()
        if self.failure:
            raise self.failure

    def _guarded(self, loop: Callable[[Spool], None]) -> None:
        try:
            spool = self.spool()
            loop(spool)
            spool.close()
        except BaseException as error:
            if not isinstance(error, ConfigurationError):
                LOGGER.exception("the thread %s ended", loop.__name__)
            self.failure = self.failure or error
            self.stop.set()

    # -- source to spool -----------------------------------------------------------------------------------------------

    def poll(self, spool: Spool) -> None:
        """Ask the source, at the set pace and within the quota, and keep every complete answer."""
        settings = self.settings
        try:
            source = prim.Prim(
                settings.prim_base_url,
                settings.prim_api_key,
                settings.prim_monitoring_ref,
                settings.prim_line_ref,
                proxy=settings.prim_proxy,
            )
        except prim.Refused as error:
            raise ConfigurationError(str(error)) from None
        failures = 0
        retry_after: float | None = None
        called = time.monotonic()
        while not self.stop.is_set():
            wait = settings.prim_poll_seconds
            if failures:
                wait = max(wait, prim.backoff(failures, retry_after))
            stage.expect(called + wait + LATE_SECONDS - time.monotonic())
            self._await_turn(spool, wait)
            if self.stop.is_set():
                return
            try:
                if not self._within_quota(spool):
                    called = time.monotonic()
                    continue
                called = time.monotonic()
                fetched_at = time.time()
                body = source.poll()
                offset = self._keep(spool, body, fetched_at)
            except prim.Refused as error:
                POLLS.labels("unauthorized" if isinstance(error, prim.Unauthorized) else "refused").inc()
                raise ConfigurationError(str(error)) from None
            except prim.RetryLater as error:
                POLLS.labels("retry").inc()
                failures, retry_after = failures + 1, error.seconds
                log(LOGGER, logging.WARNING, "the source is to be asked later", reason=error, failures=failures)
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
        """Wait until ``wait`` seconds have passed since the last call, whatever the clock was when it was made."""
        ahead = spool.last_call() - time.time()
        if ahead > 0:
            words = "the last call is on record for the future: the clock was wrong then, or is now"
            log(LOGGER, logging.WARNING, words, ahead_seconds=round(ahead), waiting_seconds=wait)
        pause(self.stop, min(wait, ahead + wait))

    def _within_quota(self, spool: Spool) -> bool:
        day = dt.datetime.now(dt.UTC).date()
        quota = self.settings.prim_daily_quota
        if quota and spool.calls(day.isoformat()) >= quota:
            tomorrow = dt.datetime.combine(day + dt.timedelta(days=1), dt.time(), dt.UTC).timestamp()
            if self._used_up != day:
                log(LOGGER, logging.WARNING, "the daily quota is used up; going on tomorrow (UTC)", quota=quota)
            self._used_up = day
            # In steps: the clock may be wrong now, and be set.
            pause(self.stop, min(self.settings.prim_poll_seconds, tomorrow - time.time()))
            return False
        spool.count_call(day.isoformat(), time.time())
        return True

    def _keep(self, spool: Spool, body: bytes, fetched_at: float) -> int | None:
        told = False
        while not self.stop.is_set():
            try:
                return spool.append(body, fetched_at)
            except SpoolFull as error:
                if not told:
                    log(LOGGER, logging.ERROR, "polling pauses", reason=error)
                    POLLS.labels("full").inc()
                told = True
                pause(self.stop, 1)
        return None

    # -- spool to Kafka ------------------------------------------------------------------------------------------------

    def publish(self, spool: Spool) -> None:
        """Publish one message per observation, in order; one that was published before is not again."""
        publisher = Publisher(self.settings.kafka_bootstrap_servers)
        pruned = time.monotonic()
        while not self.stop.is_set():
            try:
                sent = self._publish_some(spool, publisher)
                if time.monotonic() - pruned > 60:
                    spool.prune(spool.now() - IDENTITY_SECONDS)
                    pruned = time.monotonic()
            except (NotAcknowledged, SpoolUnavailable) as error:
                log(LOGGER, logging.WARNING, "not published; trying again", reason=error)
                sent = 0
                pause(self.stop, 1)
            SPOOL_BYTES.set(spool.bytes())
            for sink in spool.sinks:
                SPOOL_ANSWERS.labels(sink).set(spool.depth(sink))
            stage.LAG.set(spool.depth(KAFKA))
            if not sent:
                pause(self.stop, 0.1)

    def _publish_some(self, spool: Spool, publisher: Publisher) -> int:
        since = time.monotonic()
        answers = spool.read(spool.cursor(KAFKA), BATCH_ANSWERS)
        if not answers:
            return 0
        named = [(answer, *pair) for answer in answers for pair in records(answer, self.settings.berny_data_origin)]
        known = spool.was_published({identity for _, identity, _ in named if identity})
        fresh: dict[str, Record] = {}
        letters = [record for _, identity, record in named if not identity]
        for _, identity, record in named:
            if identity and identity not in known:
                fresh.setdefault(identity, record)
        publisher.publish([*fresh.values(), *letters])
        spool.advance(KAFKA, answers[-1].offset, fresh)
        stage.RECORDS_IN.inc(len(named))
        stage.RECORDS_OUT.inc(len(fresh))
        dead = [record for record in [*fresh.values(), *letters] if record.topic != TOPIC]
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
        """Land the raw answers; drop the days that are older than the manifest says."""
        settings = self.settings
        target = Landing(
            settings.hdfs_web_url,
            settings.hdfs_user,
            settings.berny_raw_path,
            settings.berny_roll_seconds,
            settings.berny_roll_bytes,
        )
        keep = seconds(settings.berny_raw_keep)
        dropped: float | None = None
        while not self.stop.is_set():
            try:
                landed = target.land(spool)
                LANDED.inc(landed)
                if dropped is None or time.monotonic() - dropped > RETENTION_SECONDS:
                    days = target.drop_expired(keep)
                    if days:
                        log(LOGGER, logging.INFO, "dropped raw days", days=", ".join(days))
                    dropped = time.monotonic()
            except (LandingError, SpoolUnavailable) as error:
                log(LOGGER, logging.WARNING, "not landed; trying again", reason=error)
                landed = 0
                pause(self.stop, 2)
            if not landed:
                pause(self.stop, 1)


def run(settings: Settings, stop: Stop) -> None:
    """Run the producer until it is stopped."""
    Producer(settings, stop).run()


if __name__ == "__main__":
    stage.main(Settings, run)
