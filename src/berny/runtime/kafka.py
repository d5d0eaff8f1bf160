"""Publishing to and reading from Kafka: batches acknowledged by all replicas, dead letters with reason and origin."""

from __future__ import annotations

import base64
import json
import logging
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)

from berny.runtime import stage
from berny.runtime.skipped import Gap, Skipped
from berny.runtime.stage import log
from berny.runtime.topics import ASK_SECONDS, TopicWatch, client_settings, resume

LOGGER = logging.getLogger("kafka")
DEAD_LETTERS = ".dlq"
"""Suffix of the topic that has a topic's dead letters."""
LETTER_BYTES = 256 << 10
REASON_CHARACTERS = 1000
KEY_BYTES = 4 << 10
RECORD_BYTES = 4 << 20
"""The largest record that brokers accept, key and overhead included (``kafka_message_max_bytes``)."""


class NotAcknowledged(Exception):
    """Brokers did not acknowledge a batch; it has to be sent again."""


@dataclass(frozen=True)
class Record:
    """A record to be published."""

    topic: str
    key: bytes | None
    value: bytes

    @property
    def is_dead_letter(self) -> bool:
        """Return whether it goes to a dead-letter topic."""
        return self.topic.endswith(DEAD_LETTERS)


@dataclass(frozen=True)
class Origin:
    """The position of a record. Offsets are valid only in the topic with that id, not in another one of the same name."""

    topic_id: str
    partition: int
    offset: int


class Publishes(Protocol):
    """The interface of ``Publisher``."""

    def publish(self, records: Iterable[Record]) -> int:
        """Publish all records, or raise NotAcknowledged."""


def dead_letter(
    topic: str, reason: str, origin: dict[str, Any], value: bytes | None, key: bytes | None = None
) -> Record:
    """Return the record for ``<topic>.dlq``: JSON with reason, origin, time, and the value in base64.

    A long value is truncated to ``LETTER_BYTES`` of its ``value_bytes``, since base64 makes four bytes of three and the
    letter is subject to the same size limit; so is a reason that quotes it, and a long key is left out. All of it is at the
    origin.
    """
    body = {
        "reason": reason[:REASON_CHARACTERS],
        "origin": {name: one[:REASON_CHARACTERS] if isinstance(one, str) else one for name, one in origin.items()},
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "value_bytes": None if value is None else len(value),
        "value_base64": None if value is None else base64.b64encode(value[:LETTER_BYTES]).decode(),
    }
    kept = key if key is None or len(key) <= KEY_BYTES else None
    return Record(f"{topic}{DEAD_LETTERS}", kept, json.dumps(body).encode())


class Publisher:
    """Publishes batches. If any record of a batch is not acknowledged, the caller sends the batch again."""

    def __init__(self, bootstrap_servers: str, timeout: float = 30) -> None:
        self._settings = client_settings(bootstrap_servers) | {
            "acks": "all",
            "enable.idempotence": True,
            "compression.type": "lz4",
            "linger.ms": 5,
            "message.max.bytes": RECORD_BYTES,
            "message.timeout.ms": int(timeout * 1000),
        }
        self._timeout = timeout
        self._producer: Producer | None = None

    def publish(self, records: Iterable[Record]) -> int:
        """Publish records and wait until all are acknowledged; returns how many.

        Raises:
            NotAcknowledged: some were not; the message names the first error.
        """
        producer = self._producer = self._producer or Producer(self._settings)
        errors: list[str] = []
        acknowledged = 0

        def delivered(error: KafkaError | None, message: Message) -> None:
            nonlocal acknowledged
            if error:
                errors.append(f"{message.topic()}: {error.str()}")
            else:
                acknowledged += 1

        sent = 0
        for record in records:
            while True:
                try:
                    producer.produce(record.topic, record.value, record.key, on_delivery=delivered)
                    break
                except BufferError:
                    producer.poll(0.1)
            sent += 1
        producer.flush(self._timeout + 5)
        if errors or acknowledged != sent:
            # An idempotent producer that gave up on a record can't continue in order: the next batch gets a new producer.
            producer.purge()
            self._producer = None
            raise NotAcknowledged(
                errors[0] if errors else f"{sent - acknowledged} of {sent} records in {self._timeout} s"
            )
        return sent


def _committed(error: KafkaError | None, _: list[TopicPartition]) -> None:
    if error:
        log(LOGGER, logging.WARNING, "not committed", reason=error.str())


class Reader:
    """Reads a topic as a consumer group, at least once: take a batch, deliver it, commit it.

    Commits carry the ids of the topic and of the sink as metadata. If one of them was deleted and created again since, the
    topic is read from its beginning. Records that were removed before they were read are recorded as a gap, and reading
    continues after them.
    """

    def __init__(self, bootstrap_servers: str, group: str, topic: str, sink: str, skipped: Skipped) -> None:
        self._topic = topic
        self._sink = sink
        self._skipped = skipped
        self._watch = TopicWatch(bootstrap_servers, topic)
        self._consumer: Consumer | None = None
        self._lost: dict[int, int] = {}
        self._settings = client_settings(bootstrap_servers) | {
            "group.id": group,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            # With a reset policy, missing records would be skipped silently.
            "auto.offset.reset": "error",
            "partition.assignment.strategy": "cooperative-sticky",
            "session.timeout.ms": 10000,
            "max.poll.interval.ms": 600000,
            "on_commit": _committed,
        }

    @property
    def topic_id(self) -> str:
        """The id of the topic that the last batch came from."""
        return self._watch.id or ""

    def take(self, records: int, seconds: float, stop: threading.Event) -> list[Message]:
        """Return at most ``records`` available records; wait ``seconds`` for the first, or until the topic exists."""
        if self._consumer and self._watch.changed():
            log(LOGGER, logging.ERROR, "the topic was deleted or recreated", topic=self._topic)
            self.close()
        if not self._consumer:
            stage.READY.set(0)
            if not self._watch.begin(stop):
                return []
            self._consumer = Consumer(self._settings)
            self._consumer.subscribe([self._topic], on_assign=self._assigned, on_revoke=self._revoked)
            stage.READY.set(1)
        for partition in list(self._lost):
            self._find(self._consumer, partition)
        # Under light load, waiting for a full batch would delay its first record. Under load, the others are fetched already.
        found = self._consumer.consume(1, seconds)
        if found and records > 1:
            found += self._consumer.consume(records - 1, 0)
        batch = []
        for message in found:
            error = message.error()
            if not error:
                batch.append(message)
            elif error.code() == KafkaError._AUTO_OFFSET_RESET:
                self._lost[message.partition()] = message.offset()  # type: ignore[index,assignment]
            elif error.code() != KafkaError._PARTITION_EOF:
                log(LOGGER, logging.WARNING, "the consumer reports an error", reason=error.str())
        return batch

    def commit(self, batch: list[Message]) -> None:
        """Commit the offsets of a delivered batch, without waiting for it: the next one covers these as well.

        Brokers sync each commit to disk, and the next records would wait for that. ``close`` waits for the last one.

        Raises:
            KafkaException: it could not be requested.
        """
        following: dict[int, int] = {}
        for message in batch:
            partition, offset = message.partition(), message.offset()
            assert partition is not None and offset is not None
            following[partition] = max(following.get(partition, 0), offset + 1)
        offsets = [TopicPartition(self._topic, *pair, metadata=self._ids) for pair in following.items()]
        if self._consumer and offsets:
            self._consumer.commit(offsets=offsets, asynchronous=True)

    def close(self) -> None:
        """Leave the group."""
        if self._consumer:
            self._consumer.close()
        self._consumer = None
        self._lost = {}

    @property
    def _ids(self) -> str:
        return f"topic={self._watch.id} sink={self._sink}"

    def _assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        committed = consumer.committed(partitions, timeout=ASK_SECONDS)
        for partition in committed:
            if partition.offset < 0:
                log(
                    LOGGER, logging.WARNING, "nothing is committed: reading from the beginning", topic=self._topic,
                    partition=partition.partition,
                )  # fmt: skip
                partition.offset = OFFSET_BEGINNING
            # Commits of earlier versions had no ids.
            elif partition.metadata and partition.metadata != self._ids:
                log(
                    LOGGER, logging.ERROR, "the topic or the sink was recreated: reading from the beginning",
                    topic=self._topic, partition=partition.partition, was=partition.metadata, now=self._ids,
                )  # fmt: skip
                partition.offset = OFFSET_BEGINNING
        consumer.incremental_assign(committed)

    def _revoked(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        for partition in partitions:
            self._lost.pop(partition.partition, None)

    def _find(self, consumer: Consumer, number: int) -> None:
        """Resume a partition whose next offset does not exist; a gap is recorded first."""
        partition = TopicPartition(self._topic, number)
        wanted = self._lost[number]
        try:
            if not self._watch.same():
                return
            low, high = consumer.get_watermark_offsets(partition, timeout=ASK_SECONDS)
        except KafkaException as error:
            log(LOGGER, logging.WARNING, "can't ask for offsets; trying again", reason=error.args[0].str())
            return
        partition.offset, gone = resume(wanted, low, high)
        if gone:
            assert self._watch.id
            self._skipped.add(Gap(self._topic, self._watch.id, number, wanted, low - 1))
        else:
            log(
                LOGGER, logging.ERROR, "records that were read are gone: reading from the beginning", topic=self._topic,
                partition=number, wanted=wanted, earliest=low, latest=high,
            )  # fmt: skip
        consumer.incremental_unassign([partition])
        consumer.incremental_assign([partition])
        del self._lost[number]
