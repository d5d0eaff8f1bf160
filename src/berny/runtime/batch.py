"""From a topic to a sink: take a batch, write it, commit its offsets. Records that can't be written become dead letters.

A batch that was written but not committed is written again, so a sink's writes have to be idempotent.
"""

from __future__ import annotations

import json
import logging
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from confluent_kafka import KafkaException, Message
from prometheus_client import Counter
from pydantic_core import from_json

from berny.runtime import stage
from berny.runtime.kafka import NotAcknowledged, Origin, Publisher, Publishes, Reader, Record, dead_letter
from berny.runtime.skipped import watched
from berny.runtime.stage import KafkaSettings, WorkFailed, log, pause

LOGGER = logging.getLogger("batch")
EXPIRED = Counter("berny_expired_records", "Records older than the sink's retention, which it does not accept")
IDLE_SECONDS = 10
"""How often the sink is checked while there is nothing to write."""
LONGEST_PAUSE = 5.0
STALLED_SECONDS = 60
"""How long a batch may wait for its sink before the stage is overdue, and so not healthy."""

Item = TypeVar("Item")
Written = TypeVar("Written", contravariant=True)


class BatchSettings(KafkaSettings):
    """The environment of every batch consumer."""

    berny_state_dir: Path
    berny_batch_records: int = 5000
    berny_batch_seconds: float = 0.5


class SinkAway(WorkFailed):
    """The sink accepts nothing now: the batch is kept in memory and written again."""


class ItemsRefused(Exception):
    """The sink refuses a write because of at least one of its items. The message says why."""


class Sink(Protocol[Written]):
    """What a batch is written to. Each method may raise ConfigurationError if a person has to act."""

    id: str
    """Identifies the store itself, such as a bucket: if it changes, the topic is read from its beginning again."""

    def write(self, items: Sequence[Written]) -> int:
        """Write items idempotently; return how many were rejected as too old.

        Raises:
            ItemsRefused: the caller writes them again in halves, to isolate the refused item.
            SinkAway: the caller writes all of them again later.
        """

    def check(self) -> None:
        """Detect problems before there is anything to write.

        Raises:
            SinkAway: it does not respond.
        """


class Reads(Protocol):
    """The interface of ``kafka.Reader``."""

    @property
    def topic_id(self) -> str:
        """The id of the topic that the last batch came from."""

    def take(self, records: int, seconds: float, stop: threading.Event) -> list[Message]:
        """Return at most ``records`` messages, fewer after ``seconds``."""

    def commit(self, batch: list[Message]) -> None:
        """Commit the offsets of a delivered batch, or raise KafkaException."""

    def close(self) -> None:
        """Leave the group."""


def parse(value: bytes) -> dict[str, Any]:
    """Return the JSON object of a record.

    Raises:
        ValueError: it is none.
        RecursionError: it is nested too deeply.
    """
    try:
        record = from_json(value)
    except ValueError:
        # What only Python's own parser accepts, at a quarter of the speed: lone surrogates, say.
        record = json.loads(value)
    if not isinstance(record, dict):
        raise ValueError("not a JSON object")
    return record


def observed_at(record: Mapping[str, Any], message: Message) -> float:
    """Return when the response with a record was complete, in Unix seconds; when it was published, if it does not say."""
    moment = record.get("observed_at")
    return moment if isinstance(moment, float) else message.timestamp()[1] / 1000


@dataclass
class _Batch(Generic[Item]):
    """A batch, prepared for the sink."""

    topic_id: str
    messages: list[Message]
    items: list[tuple[Message, Item]] = field(default_factory=list)
    malformed: list[Record] = field(default_factory=list)
    observed: list[float] = field(default_factory=list)
    since: float = field(default_factory=time.monotonic)
    """When its first record came."""


def _origin(topic_id: str, message: Message) -> Origin:
    partition, offset = message.partition(), message.offset()
    assert partition is not None and offset is not None
    return Origin(topic_id, partition, offset)


class BatchConsumer(Generic[Item]):
    """Takes a batch, writes it, commits it; while the sink is away, the batch is kept and retried.

    Args:
        settings: size and time of a batch.
        topic: the topic; dead letters go to ``<topic>.dlq``.
        reader: reads the topic.
        letters: publishes dead letters.
        sink: receives the items.
        item: converts a parsed record and its origin to an item; a record for which it raises ValueError is a dead letter.
        stop: set when the stage has to end.
    """

    def __init__(
        self,
        settings: BatchSettings,
        topic: str,
        reader: Reads,
        letters: Publishes,
        sink: Sink[Item],
        item: Callable[[dict[str, Any], Origin], Item],
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
        """Run until stopped. While a full batch is written, the next one is taken and prepared.

        Raises:
            ConfigurationError: a person has to repair the sink or its access.
        """
        writer = ThreadPoolExecutor(1, "writer")
        try:
            self._run(writer)
        except BaseException:
            # What is being written is not tried again.
            self._stop.set()
            raise
        finally:
            writer.shutdown()
        self._reader.close()

    def _run(self, writer: Executor) -> None:
        checked = 0.0
        writing: tuple[_Batch[Item], Future[bool]] | None = None
        while not self._stop.is_set():
            # Under light load the next batch is what has come until the sink has this one: its records wait for one write.
            if writing and len(writing[0].messages) < self._settings.berny_batch_records:
                self._finish(*writing)
                writing = None
                continue
            messages = self._reader.take(
                self._settings.berny_batch_records, self._settings.berny_batch_seconds, self._stop
            )
            stage.RECORDS_IN.inc(len(messages))
            batch = self._prepare(messages) if messages else None
            if writing and not self._finish(*writing):
                return
            writing = (batch, writer.submit(self._deliver, batch)) if batch else None
            if not batch and time.monotonic() - checked > IDLE_SECONDS:
                self._check()
                checked = time.monotonic()
        if writing:
            self._finish(*writing)

    def deliver(self, messages: list[Message]) -> bool:
        """Write messages and publish dead letters; return False if the stage has to stop first."""
        return self._deliver(self._prepare(messages))

    def _prepare(self, messages: list[Message]) -> _Batch[Item]:
        """Parse the records of a batch."""
        batch = _Batch[Item](self._reader.topic_id, messages)
        each = max(1, len(messages) // 100)
        for number, message in enumerate(messages):
            try:
                record = parse(message.value() or b"null")
                batch.items.append((message, self._item(record, _origin(batch.topic_id, message))))
                if number % each == 0:
                    batch.observed.append(observed_at(record, message))
            # The last two are of times that no calendar has.
            except (ValueError, RecursionError, ArithmeticError, OSError) as error:
                batch.malformed.append(self._letter(message, str(error)))
        return batch

    def _deliver(self, batch: _Batch[Item]) -> bool:
        """Write a batch and publish its dead letters; return False if the stage has to stop first."""
        attempt = 0
        while True:
            try:
                refused, too_old = self._write(batch.items)
                self._letters.publish([*batch.malformed, *refused])
                break
            except (NotAcknowledged, SinkAway) as error:
                attempt += 1
                if attempt == 1:
                    stage.expect(STALLED_SECONDS)
                log(LOGGER, logging.WARNING, "not written; trying again", reason=str(error)[:200], attempt=attempt)
                pause(self._stop, min(0.2 * 2**attempt, LONGEST_PAUSE))
                if self._stop.is_set():
                    return False
        if attempt:
            stage.expect(math.inf)
        dead = len(batch.malformed) + len(refused)
        stage.DEAD_LETTERS.inc(dead)
        EXPIRED.inc(too_old)
        stage.RECORDS_OUT.inc(len(batch.messages) - dead - too_old)
        for moment in batch.observed:
            stage.END_TO_END.observe(stage.since(moment))
        return True

    def _finish(self, batch: _Batch[Item], delivered: Future[bool]) -> bool:
        """Wait until a batch is delivered, and commit it; return False if the stage had to stop first."""
        if not delivered.result():
            return False
        # Offsets of a topic that was recreated meanwhile are not those of this one.
        if batch.topic_id == self._reader.topic_id:
            self._commit(batch.messages)
        stage.BATCH_SECONDS.observe(time.monotonic() - batch.since)
        return True

    def _write(self, items: list[tuple[Message, Item]]) -> tuple[list[Record], int]:
        """Write items; return the dead letters of refused ones, and how many are too old for the sink.

        A refused write is split in halves until each refused item is alone.
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
            # The batch is written, and a replay overwrites it. The next commit covers these offsets as well.
            log(LOGGER, logging.WARNING, "not committed", reason=error)

    def _letter(self, message: Message, reason: str) -> Record:
        origin = {"topic": message.topic(), "partition": message.partition(), "offset": message.offset()}
        return dead_letter(self._topic, reason, origin, message.value(), message.key())


def run(
    settings: BatchSettings,
    topic: str,
    group: str,
    sink: Sink[Item],
    item: Callable[[dict[str, Any], Origin], Item],
    stop: threading.Event,
) -> None:
    """Run a batch consumer of Kafka until it is stopped.

    Raises:
        ConfigurationError: a person has to repair the sink or its access.
    """
    servers = settings.kafka_bootstrap_servers
    reader = Reader(servers, group, topic, sink.id, watched(settings.berny_state_dir))
    BatchConsumer(settings, topic, reader, Publisher(servers), sink, item, stop).run()
