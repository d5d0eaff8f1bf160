"""Topics as they are now: which one has a name, which offsets are there, and where to go on reading."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient

from berny.runtime.stage import log, pause

LOGGER = logging.getLogger("kafka")
ASK_SECONDS = 5.0
"""What one question may take."""
WATCH_SECONDS = 5.0
"""How often it is asked whether a topic is still the same."""
DOUBT_SECONDS = 3.0
"""When it is asked again before it is believed: a broker that has just started knows no topic at all for a moment."""


def client_settings(bootstrap_servers: str) -> dict[str, Any]:
    """Return the settings that every client of Kafka has; its own come on top."""
    return {"bootstrap.servers": bootstrap_servers, "reconnect.backoff.max.ms": 2000, "log_level": 3}


def topic_id(admin: AdminClient, topic: str) -> str | None:
    """Return the id that Kafka gave a topic when it was created, or None where there is no such topic.

    Raises:
        KafkaException: no broker answers.
    """
    described = admin.describe_topics(TopicCollection([topic]), request_timeout=ASK_SECONDS)[topic]
    try:
        return str(described.result().topic_id)
    except KafkaException as error:
        if error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            return None
        raise


class TopicWatch:
    """Notices that a topic is gone, or is another one of the same name."""

    def __init__(self, bootstrap_servers: str, topic: str) -> None:
        self._admin = AdminClient(client_settings(bootstrap_servers) | {"log_level": 0})
        self.topic = topic
        self.id: str | None = None
        """Of the topic that is there; None while there is none."""
        self._doubted = False
        self._next = 0.0

    def begin(self, stop: threading.Event) -> str | None:
        """Wait until the topic exists; return its id, or None if the stage is to stop before."""
        self.id = None
        told = 0.0
        while not stop.is_set():
            try:
                self.id = topic_id(self._admin, self.topic)
                reason = "it does not exist; site.yml creates it"
            except KafkaException as error:
                reason = error.args[0].str()
            if self.id:
                self._doubted = False
                self._next = time.monotonic() + WATCH_SECONDS
                return self.id
            if time.monotonic() - told > 60:
                told = time.monotonic()
                log(LOGGER, logging.ERROR, "waiting for the topic", topic=self.topic, reason=reason)
            pause(stop, 1)
        return None

    def same(self) -> bool:
        """Ask whether the topic is the one that it was in the beginning.

        Raises:
            KafkaException: no broker answers.
        """
        return topic_id(self._admin, self.topic) == self.id

    def changed(self) -> bool:
        """Tell whether the topic is no longer the one that it was in the beginning; asks every few seconds.

        A broker may not have heard of it yet: only what two questions in a row find is so.
        """
        if time.monotonic() < self._next:
            return False
        self._next = time.monotonic() + WATCH_SECONDS
        try:
            same = self.same()
        except KafkaException:
            return False
        doubted, self._doubted = self._doubted, not same
        if not same and not doubted:
            self._next = time.monotonic() + DOUBT_SECONDS
        return not same and doubted


def watermarks(bootstrap_servers: str, topic: str) -> dict[int, tuple[int, int]]:
    """Return, by partition, the earliest offset that is there and the one that will be written next.

    Raises:
        KafkaException: a leader does not answer.
    """
    client = Consumer(client_settings(bootstrap_servers) | {"group.id": "berny-offsets"})
    try:
        partitions = client.list_topics(topic, timeout=ASK_SECONDS).topics[topic].partitions
        return {
            number: client.get_watermark_offsets(TopicPartition(topic, number), timeout=ASK_SECONDS)
            for number in partitions
        }
    finally:
        client.close()


def resume(first: int, low: int, high: int) -> tuple[int, int]:
    """Return where to go on reading a partition, and how many records before that are gone unread.

    Args:
        first: the offset that would have been next.
        low: the earliest that is there.
        high: the one that will be written next. Where it is before ``first`` what was read is gone again, and what is there
            may be something else: it is read from its beginning.
    """
    if first < low:
        return low, low - first
    return (first, 0) if first <= high else (low, 0)
