"""The current state of topics: their ids, the available offsets, and where to continue reading."""

from __future__ import annotations

import logging
import socket
import threading
import time
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient

from berny.runtime.stage import log, pause

LOGGER = logging.getLogger("kafka")
ASK_SECONDS = 5.0
"""Time limit of one request."""
WATCH_SECONDS = 5.0
"""How often the id of a topic is checked."""
DOUBT_SECONDS = 3.0
"""When a change is confirmed by a second check: for a moment after its start, a broker knows no topics."""


def client_settings(bootstrap_servers: str) -> dict[str, Any]:
    """Return the settings common to all Kafka clients."""
    return {"bootstrap.servers": bootstrap_servers, "reconnect.backoff.max.ms": 2000, "log_level": 3}


def reach_controller(admin: AdminClient) -> None:
    """Learn which broker is the controller, and connect to it once.

    A client that waits for a controller which refuses connections tries again without a pause, and a client learns of
    another controller only every five minutes: a stage would use a core for as long as a broker is away.

    Raises:
        KafkaException: no broker responds, or the controller does not.
    """
    cluster = admin.list_topics(timeout=ASK_SECONDS)
    controller = cluster.brokers.get(cluster.controller_id)
    if not controller:
        raise KafkaException(KafkaError(KafkaError._NODE_UPDATE, "no broker is the controller"))
    try:
        socket.create_connection((controller.host, controller.port), ASK_SECONDS).close()
    except OSError as error:
        words = f"the controller, {controller.host}:{controller.port}, does not respond: {error.strerror or error}"
        raise KafkaException(KafkaError(KafkaError._TRANSPORT, words)) from error


def topic_id(admin: AdminClient, topic: str) -> str | None:
    """Return the id that Kafka gave a topic when it was created, or None if it does not exist.

    Raises:
        KafkaException: no broker responds, or the controller does not.
    """
    reach_controller(admin)
    described = admin.describe_topics(TopicCollection([topic]), request_timeout=ASK_SECONDS)[topic]
    try:
        return str(described.result().topic_id)
    except KafkaException as error:
        if error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            return None
        raise


class TopicWatch:
    """Detects that a topic was deleted, or recreated under the same name."""

    def __init__(self, bootstrap_servers: str, topic: str) -> None:
        self._admin = AdminClient(client_settings(bootstrap_servers) | {"log_level": 0})
        self.topic = topic
        self.id: str | None = None
        """Id of the topic; None while it does not exist."""
        self._doubted = False
        self._next = 0.0

    def begin(self, stop: threading.Event) -> str | None:
        """Wait until the topic exists; return its id, or None if the stage has to stop first."""
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
        """Return whether the topic is still the one that ``begin`` found.

        Raises:
            KafkaException: no broker responds.
        """
        return topic_id(self._admin, self.topic) == self.id

    def changed(self) -> bool:
        """Return whether the topic was deleted or recreated; checks every few seconds.

        A broker's metadata may be out of date: a change counts only if two checks in a row find it.
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
    """Return, by partition, the earliest available offset and the next one to be written.

    Raises:
        KafkaException: a leader does not respond.
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
    """Return the offset at which to continue reading a partition, and how many records before it were removed unread.

    Args:
        first: the next offset to read.
        low: the earliest available offset.
        high: the next offset to be written. If it is before ``first``, records that were read are lost, and others may have
            taken their offsets: the partition is read from its beginning.
    """
    if first < low:
        return low, low - first
    return (first, 0) if first <= high else (low, 0)
