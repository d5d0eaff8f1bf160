"""From a topic to a sink: take a batch, write it, commit it. What can't be written is a dead letter.

A batch that was written and not committed is written again, so a sink's writes have to be idempotent.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from confluent_kafka import KafkaException, Message
from prometheus_client import Counter

from berny.runtime import stage
from berny.runtime.kafka import NotAcknowledged, Publisher, Publishes, Reader, Record, dead_letter
from berny.runtime.skipped import watched
from berny.runtime.stage import KafkaSettings, log, pause

LOGGER = logging.getLogger("batch")
EXPIRED = Counter("berny_expired_records", "Records older than the sink keeps them, which it does not take")
IDLE_SECONDS = 10
"""How often the sink is checked while nothing is written."""
LONGEST_PAUSE = 5.0

Item = TypeVar("Item")
Written = TypeVar("Written", contravariant=True)


class BatchSettings(KafkaSettings):
    """What every batch consumer finds in its environment."""

    berny_state_dir: Path
    berny_batch_records: int = 5000
    berny_batch_seconds: float = 0.5


class SinkAway(Exception):
    """The sink can't take anything now: the batch stays in hand, and is written again."""


class ItemsRefused(Exception):
    """The sink refuses what it was given, because of at least one of the items. The message says why."""


class Sink(Protocol[Written]):
    """What a batch is written to. Each method may raise ConfigurationError where a person has to act."""

    id: str
    """Of what is there to be written to: once it is another one, the topic is read from its beginning."""

    def write(self, items: Sequence[Written]) -> int:
        """Write items so that a second time changes nothing; return how many were not taken as they are too old.

        Raises:
            ItemsRefused: they are written again in halves, until what is refused is alone.
            SinkAway: they are all written again, later.
        """

    def check(self) -> None:
        """Find out what is wrong before there is something to write.

        Raises:
            SinkAway: it does not respond.
        """


class Reads(Protocol):
    """What ``kafka.Reader`` does."""

    def take(self, records: int, seconds: float, stop: threading.Event) -> list[Message]:
        """Return up to so many records, fewer after that time."""

    def commit(self, batch: list[Message]) -> None:
        """Commit what was delivered, or raise KafkaException."""

    def close(self) -> None:
        """Leave the group."""


class BatchConsumer(Generic[Item]):
    """Takes a batch, writes it, commits it; while the sink is away it waits with the batch in hand.

    Args:
        settings: size and time of a batch.
        topic: what is read; dead letters go to ``<topic>.dlq``.
        reader: what it is read by.
        letters: what dead letters are published by.
        sink: what is written to.
        item: makes an item of a parsed record and its message, or raises ValueError, which makes it a dead letter.
        stop: set once the stage is to end.
    """

    def __init__(
        self,
        settings: BatchSettings,
        topic: str,
        reader: Reads,
        letters: Publishes,
        sink: Sink[Item],
        item: Callable[[dict[str, Any], Message], Item],
        stop: threading.Event,
    ) -> None:
        self._settings = settings
        self._topic = topic
        self._reader = reader
        self._letters = letters
        self._sink = sink
        self._item = item
        self._stop = stop

    def run(self) -> None:
        """Run until stopped.

        Raises:
            ConfigurationError: the sink needs a person.
        """
        checked = 0.0
        while not self._stop.is_set():
            since = time.monotonic()
            batch = self._reader.take(
                self._settings.berny_batch_records, self._settings.berny_batch_seconds, self._stop
            )
            stage.RECORDS_IN.inc(len(batch))
            if not batch:
                if time.monotonic() - checked > IDLE_SECONDS:
                    self._check()
                    checked = time.monotonic()
                continue
            if not self._deliver(batch):
                break
            self._commit(batch)
            stage.BATCH_SECONDS.observe(time.monotonic() - since)
        self._reader.close()

    def _deliver(self, batch: list[Message]) -> bool:
        """Write a batch and publish its dead letters; False where the stage is to stop before that is done."""
        items: list[tuple[Message, Item]] = []
        malformed: list[Record] = []
        for message in batch:
            try:
                record = json.loads(message.value() or b"null")
                if not isinstance(record, dict):
                    raise ValueError("not a JSON object")
                items.append((message, self._item(record, message)))
            except (ValueError, RecursionError) as error:
                malformed.append(self._letter(message, str(error)))
        attempt = 0
        while True:
            try:
                refused, too_old = self._write(items)
                self._letters.publish([*malformed, *refused])
                break
            except (NotAcknowledged, SinkAway) as error:
                attempt += 1
                log(LOGGER, logging.WARNING, "not written; trying again", reason=str(error)[:200], attempt=attempt)
                pause(self._stop, min(0.2 * 2**attempt, LONGEST_PAUSE))
                if self._stop.is_set():
                    return False
        dead = len(malformed) + len(refused)
        stage.DEAD_LETTERS.inc(dead)
        EXPIRED.inc(too_old)
        stage.RECORDS_OUT.inc(len(batch) - dead - too_old)
        for message in batch[:: max(1, len(batch) // 100)]:
            stage.END_TO_END.observe(stage.since(message.timestamp()[1] / 1000))
        return True

    def _write(self, items: list[tuple[Message, Item]]) -> tuple[list[Record], int]:
        """Write items; return the dead letters of those that are refused, and how many are too old for the sink.

        What the sink refuses is halved until the item that it means is alone.
        """
        if not items:
            return [], 0
        try:
            return [], self._sink.write([item for _, item in items])
        except ItemsRefused as error:
            if len(items) == 1:
                return [self._letter(items[0][0], str(error))], 0
        half = len(items) // 2
        (first, of_first), (second, of_second) = self._write(items[:half]), self._write(items[half:])
        return first + second, of_first + of_second

    def _check(self) -> None:
        try:
            self._sink.check()
        except SinkAway as error:
            log(LOGGER, logging.WARNING, "the sink does not respond", reason=str(error)[:200])

    def _commit(self, batch: list[Message]) -> None:
        try:
            self._reader.commit(batch)
        except KafkaException as error:
            # The batch is written and a replay overwrites it: the next commit covers these offsets, too.
            log(LOGGER, logging.WARNING, "not committed", reason=error)

    def _letter(self, message: Message, reason: str) -> Record:
        origin = {"topic": message.topic(), "partition": message.partition(), "offset": message.offset()}
        return dead_letter(self._topic, reason, origin, message.value(), message.key())


def run(
    settings: BatchSettings,
    topic: str,
    group: str,
    sink: Sink[Item],
    item: Callable[[dict[str, Any], Message], Item],
    stop: threading.Event,
) -> None:
    """Run a batch consumer of Kafka until it is stopped.

    Raises:
        ConfigurationError: the sink needs a person.
    """
    servers = settings.kafka_bootstrap_servers
    reader = Reader(servers, group, topic, sink.id, watched(settings.berny_state_dir))
    BatchConsumer(settings, topic, reader, Publisher(servers), sink, item, stop).run()
