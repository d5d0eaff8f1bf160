"""Kafka in and out: everything acknowledged by all copies, dead letters with reason and origin."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from confluent_kafka import Consumer, KafkaError, Message, Producer

LETTER_BYTES = 256 << 10
RECORD_BYTES = 4 << 20
"""What brokers take at most, key and overhead included (``kafka_message_max_bytes``)."""


class NotAcknowledged(Exception):
    """Brokers did not acknowledge a batch; it is to be sent again."""


@dataclass(frozen=True)
class Record:
    """A record to be published."""

    topic: str
    key: bytes | None
    value: bytes


def dead_letter(
    topic: str, reason: str, origin: dict[str, Any], value: bytes | None, key: bytes | None = None
) -> Record:
    """Return the record for ``<topic>.dlq``: JSON with reason, origin, time, and the value in base64.

    Of a long value there is the beginning, ``LETTER_BYTES`` of ``value_bytes``: a letter has to fit where what it is about
    did, and base64 makes four bytes of three. The whole of it stands where the origin says.
    """
    body = {
        "reason": reason,
        "origin": origin,
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "value_bytes": None if value is None else len(value),
        "value_base64": None if value is None else base64.b64encode(value[:LETTER_BYTES]).decode(),
    }
    return Record(f"{topic}.dlq", key, json.dumps(body).encode())


class Publisher:
    """Publishes batches; a batch is either acknowledged as a whole or raises and is sent again by the caller."""

    def __init__(self, bootstrap_servers: str, timeout: float = 30) -> None:
        self._settings = {
            "bootstrap.servers": bootstrap_servers,
            "acks": "all",
            "enable.idempotence": True,
            "compression.type": "lz4",
            "linger.ms": 5,
            "message.max.bytes": RECORD_BYTES,
            "message.timeout.ms": int(timeout * 1000),
            "reconnect.backoff.max.ms": 2000,
            "log_level": 3,
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
            # An idempotent producer that gave up on a record can't go on in order: the next batch gets a new one.
            producer.purge()
            self._producer = None
            raise NotAcknowledged(
                errors[0] if errors else f"{sent - acknowledged} of {sent} records in {self._timeout} s"
            )
        return sent


def consumer(bootstrap_servers: str, group: str, topic: str) -> Consumer:
    """Return a consumer of a topic, from its beginning where the group has no offset; the caller commits."""
    subscribed = Consumer(
        {
            "bootstrap.servers": bootstrap_servers,
            "group.id": group,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "earliest",
            "partition.assignment.strategy": "cooperative-sticky",
            "session.timeout.ms": 10000,
            "max.poll.interval.ms": 600000,
            "reconnect.backoff.max.ms": 2000,
            "log_level": 3,
        }
    )
    subscribed.subscribe([topic])
    return subscribed
