"""From ``idfm-processed`` to InfluxDB: batches, committed after the write; what can't be a point is a dead letter."""

from __future__ import annotations

import json
import logging
import re
import time
from pathlib import Path

from confluent_kafka import KafkaException, Message
from influxdb_client import InfluxDBClient, Point
from influxdb_client.client.write_api import SYNCHRONOUS
from influxdb_client.rest import ApiException
from prometheus_client import Counter
from urllib3.exceptions import HTTPError

from berny.pipelines.idfm.points import NoPoint, point
from berny.runtime import stage
from berny.runtime.kafka import NotAcknowledged, Publisher, Reader, Record, dead_letter
from berny.runtime.skipped import watched
from berny.runtime.stage import ConfigurationError, EnvironmentSettings, Stop, log, pause

LOGGER = logging.getLogger("influx-consumer")
TOPIC = "idfm-processed"
GROUP = "idfm-influx-consumer"
REFUSED_BATCH = {400, 413, 422}
EXPIRED = Counter("berny_expired_records", "Records older than the bucket keeps them, which InfluxDB does not take")
IDLE_SECONDS = 10
"""How often the token and the bucket are tried while nothing is written."""


class Settings(EnvironmentSettings):
    """The consumer's environment."""

    influx_url: str
    influx_org: str
    influx_bucket: str
    influx_bucket_id: str
    influx_token: str
    berny_state_dir: Path
    berny_batch_records: int = 5000
    berny_batch_seconds: float = 0.5


def expired(status: int | None, body: object) -> int | None:
    """Return how many points of a write were older than the bucket keeps them, or None where that is not what was wrong.

    InfluxDB says it after it has written all others: 2.7.12, ``v1/coordinator/points_writer.go``.
    """
    found = (
        re.search(r"partial write: dropped (\d+) points outside retention policy", _text(body))
        if status == 422
        else None
    )
    return int(found[1]) if found else None


def _text(body: object) -> str:
    return body.decode(errors="replace") if isinstance(body, bytes) else str(body)


class InfluxConsumer:
    """Takes a batch, writes it, commits it; while InfluxDB is away it waits with the batch in hand."""

    def __init__(self, settings: Settings, stop: Stop) -> None:
        self.settings = settings
        self.stop = stop
        self.client = InfluxDBClient(
            settings.influx_url, settings.influx_token, org=settings.influx_org, timeout=20_000
        )
        self.api = self.client.write_api(write_options=SYNCHRONOUS)
        self.letters = Publisher(settings.kafka_bootstrap_servers)

    def run(self) -> None:
        """Run until stopped.

        Raises:
            ConfigurationError: InfluxDB refuses the token or the bucket.
        """
        settings = self.settings
        skipped = watched(settings.berny_state_dir)
        source = Reader(settings.kafka_bootstrap_servers, GROUP, TOPIC, settings.influx_bucket_id, skipped)
        tried = 0.0
        while not self.stop.is_set():
            since = time.monotonic()
            batch = source.take(settings.berny_batch_records, settings.berny_batch_seconds, self.stop)
            stage.RECORDS_IN.inc(len(batch))
            if not batch:
                if time.monotonic() - tried > IDLE_SECONDS:
                    self._try_bucket()
                    tried = time.monotonic()
                continue
            self._deliver(batch)
            if self.stop.is_set() and not self._delivered:
                break
            self._commit(source, batch)
            stage.BATCH_SECONDS.observe(time.monotonic() - since)
        source.close()

    def _deliver(self, batch: list[Message]) -> None:
        self._delivered = False
        points: list[tuple[Message, Point]] = []
        letters: list[Record] = []
        for message in batch:
            try:
                record = json.loads(message.value() or b"null")
                if not isinstance(record, dict):
                    raise NoPoint("not a JSON object")
                points.append((message, point(record)))
            except (NoPoint, ValueError) as error:
                letters.append(_letter(message, str(error)))
        attempt = 0
        while not self.stop.is_set() or attempt == 0:
            try:
                refused, too_old = self._write(points)
                self.letters.publish([*letters, *refused])
                break
            except (NotAcknowledged, ApiException, HTTPError, OSError) as error:
                attempt += 1
                reason = getattr(error, "reason", None) or str(error)
                log(LOGGER, logging.WARNING, "not written; trying again", reason=str(reason)[:200], attempt=attempt)
                pause(self.stop, min(0.2 * 2**attempt, 5))
        else:
            return
        self._delivered = True
        dead = len(letters) + len(refused)
        stage.DEAD_LETTERS.inc(dead)
        EXPIRED.inc(too_old)
        if too_old:
            log(LOGGER, logging.INFO, "records are older than the bucket keeps them", count=too_old)
        stage.RECORDS_OUT.inc(len(batch) - dead - too_old)
        for message in batch[:: max(1, len(batch) // 100)]:
            stage.END_TO_END.observe(stage.since(message.timestamp()[1] / 1000))

    def _write(self, points: list[tuple[Message, Point]]) -> tuple[list[Record], int]:
        """Write points; return the letters about those that are refused, and how many the bucket no longer keeps.

        A batch that InfluxDB refuses is halved until the point that it means is alone.
        """
        if not points:
            return [], 0
        try:
            self.api.write(self.settings.influx_bucket, record=[made for _, made in points])
            return [], 0
        except ApiException as error:
            self._end_without_bucket(error)
            if error.status not in REFUSED_BATCH:
                raise
            too_old = expired(error.status, error.body)
            if too_old is not None:
                return [], too_old
            if len(points) == 1:
                return [_letter(points[0][0], f"InfluxDB refuses it: {_text(error.body)[:300]}")], 0
            half = len(points) // 2
            (first, of_first), (second, of_second) = self._write(points[:half]), self._write(points[half:])
            return first + second, of_first + of_second

    def _try_bucket(self) -> None:
        """Find out about a bucket or a token that is gone before there is something to write."""
        try:
            # No point: refused as such, but only after the token was let through.
            self.api.write(self.settings.influx_bucket, record="{}")
        except ApiException as error:
            self._end_without_bucket(error)
        except (HTTPError, OSError) as error:
            log(LOGGER, logging.WARNING, "InfluxDB does not answer", reason=str(error)[:200])

    def _end_without_bucket(self, error: ApiException) -> None:
        if error.status in (401, 403, 404):
            raise ConfigurationError(
                f"InfluxDB at {self.settings.influx_url} answers {error.status} for the bucket "
                f"{self.settings.influx_bucket}: run site.yml, which creates it and renews INFLUX_TOKEN"
            ) from None

    def _commit(self, source: Reader, batch: list[Message]) -> None:
        try:
            source.commit(batch)
        except KafkaException as error:
            # The points are written and a replay overwrites them: the next commit covers these offsets, too.
            log(LOGGER, logging.WARNING, "not committed", reason=error)


def _letter(message: Message, reason: str) -> Record:
    origin = {"topic": message.topic(), "partition": message.partition(), "offset": message.offset()}
    return dead_letter(TOPIC, reason, origin, message.value(), message.key())


def run(settings: Settings, stop: Stop) -> None:
    """Run the consumer until it is stopped."""
    InfluxConsumer(settings, stop).run()


if __name__ == "__main__":
    stage.main(Settings, run)
