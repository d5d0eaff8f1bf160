"""Topics in memory, for tests of delivery without a broker: the real ones are tested on the lab."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from typing import Any

from confluent_kafka import KafkaException, Message

from berny.runtime.kafka import NotAcknowledged, Record

PUBLISHED = 1763985600
"""When each message was, in Unix seconds."""


class Crash(BaseException):
    """The process ended there."""


class Topics:
    """The records of each topic; what is published to it can be told to fail."""

    def __init__(self) -> None:
        self.records: dict[str, list[Record]] = {}
        self.away = 0
        """So many batches are not acknowledged."""
        self.crash_after: bool = False
        """The next batch is acknowledged by brokers, and the process ends before it hears of it."""

    def publish(self, records: Iterable[Record]) -> int:
        """Take all records, or none."""
        batch = list(records)
        if batch and self.away:
            self.away -= 1
            raise NotAcknowledged("no broker responds")
        for record in batch:
            self.records.setdefault(record.topic, []).append(record)
        if batch and self.crash_after:
            self.crash_after = False
            raise Crash
        return len(batch)

    def values(self, topic: str) -> list[bytes]:
        """Return what was published to a topic."""
        return [record.value for record in self.records.get(topic, [])]


class Group:
    """A consumer group of one topic with one partition; ``reader`` is one more process of it."""

    def __init__(self, topic: str, values: Iterable[bytes | None]) -> None:
        self.topic = topic
        self.values = list(values)
        self.committed = 0
        self.log: list[str] = []
        """What happened, in order: tests and sinks may write there as well."""
        self.refuse_commits = 0
        self.taken = 0
        """What follows the last record that was taken."""
        self.calls = 0
        self.recreated_after = self.fails_after = 1 << 30
        """After how many calls of ``take`` the topic has another id, or the reader fails."""

    def reader(self) -> Reader:
        """Return a reader that begins at what was committed."""
        return Reader(self)


class Reader:
    """What ``kafka.Reader`` does."""

    def __init__(self, group: Group) -> None:
        self._group = group
        self._next = group.committed
        self.closed = False

    @property
    def topic_id(self) -> str:
        """The id of the topic."""
        return "id" if self._group.calls <= self._group.recreated_after else "other"

    def take(self, records: int, seconds: float, stop: threading.Event) -> list[Message]:
        """Return the next records; once all are taken, none after a moment."""
        group = self._group
        group.calls += 1
        if group.calls > group.fails_after:
            raise KafkaException("the reader fails")
        first, self._next = self._next, min(self._next + records, len(group.values))
        group.taken = self._next
        if first == self._next:
            time.sleep(min(seconds, 0.01))
        return [message(group.topic, offset, group.values[offset]) for offset in range(first, self._next)]

    def commit(self, batch: list[Message]) -> None:
        """Commit what follows the batch."""
        if self._group.refuse_commits:
            self._group.refuse_commits -= 1
            raise KafkaException("no coordinator")
        offset: Any = batch[-1].offset()
        self._group.committed = offset + 1
        self._group.log.append(f"commit {self._group.committed}")

    def close(self) -> None:
        """Leave the group."""
        self.closed = True


def message(topic: str, offset: int, value: bytes | None) -> Message:
    """Return a message as a consumer gets it."""
    return Message(topic=topic, partition=0, offset=offset, key=b"key", value=value, timestamp=(1, 1000 * PUBLISHED))
