"""How far a query in real-time mode is, by what it has written.

Spark reports the progress of a batch at its end, and a batch takes minutes. So each output record has a header with the
position of the input record that it was made from, and the stage reads its output topics from their end.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from prometheus_client import Gauge

from berny.runtime import stage
from berny.runtime.kafka import DEAD_LETTERS
from berny.runtime.stage import log
from berny.runtime.topics import ASK_SECONDS, client_settings

LOGGER = logging.getLogger("progress")
HEADER = "berny-source"
"""Header of an output record: ``PARTITION:OFFSET:MS`` of the input record, MS being its timestamp in Kafka."""
OFFSET = Gauge("berny_input_offset", "The next offset to be read", ["topic", "partition"])
AT_ONCE = 5000
"""Records that are counted at once at most."""
LAG_SECONDS = 1.0
"""How often the end of the input topic is asked for, and the time limit of that request."""


class Source(NamedTuple):
    """The position and the timestamp, in milliseconds, of the input record that an output record was made from."""

    partition: int
    offset: int
    milliseconds: int


def source_of(headers: Iterable[tuple[str, bytes | None]] | None) -> Source | None:
    """Return what the header of an output record says; None for a record that another program wrote."""
    for name, value in headers or ():
        if name == HEADER:
            try:
                partition, offset, milliseconds = map(int, (value or b"").split(b":"))
            except ValueError:
                return None
            return Source(partition, offset, milliseconds)
    return None


class Position:
    """The next offset of an input topic by partition: all records before it were written.

    Output records are seen in another order than they were written, since they are in several partitions and topics. So
    those that are ahead of a missing one are remembered until it is seen, or the batch is complete.
    """

    def __init__(self, topic: str, starting: Mapping[int, int]) -> None:
        self.topic = topic
        self.next: dict[int, int] = {}
        self._ahead: defaultdict[int, set[int]] = defaultdict(set)
        self.reach(starting)

    def written(self, partition: int, offset: int) -> None:
        """Record that what was made from a record was written. A replay of records before the position changes nothing."""
        if offset >= self.next.setdefault(partition, 0):
            self._ahead[partition].add(offset)
            self._advance(partition)

    def reach(self, following: Mapping[int, int]) -> None:
        """Record the next offsets after a complete batch."""
        for partition, offset in following.items():
            self.next[partition] = max(offset, self.next.get(partition, 0))
            self._ahead[partition] = {one for one in self._ahead[partition] if one >= self.next[partition]}
            self._advance(partition)

    def _advance(self, partition: int) -> None:
        following, ahead = self.next[partition], self._ahead[partition]
        while following in ahead:
            ahead.remove(following)
            following += 1
        self.next[partition] = following
        OFFSET.labels(self.topic, str(partition)).set(following)


class Tail:
    """Reads output topics from their end, without a group, and exports what a query has written as metrics."""

    def __init__(self, bootstrap_servers: str, outputs: Iterable[str], position: Position) -> None:
        """Find the topics' ends.

        Raises:
            KafkaException: a topic does not exist, or a leader does not respond.
        """
        self._position = position
        self._measure_at = 0.0
        self._end: dict[int, int] = {}
        settings = client_settings(bootstrap_servers) | {"group.id": "berny-progress", "enable.auto.commit": False}
        # A broker answers the requests of a client in order: one that waits for records would delay one for offsets.
        self._offsets = Consumer(settings)
        self._consumer = Consumer(
            settings
            | {
                # Of a topic that was recreated.
                "auto.offset.reset": "earliest",
                # Metrics need not be as quick as records: fewer requests to brokers.
                "fetch.min.bytes": 64 << 10,
                "fetch.wait.max.ms": 500,
                "queued.max.messages.kbytes": 8192,
            }
        )
        self._consumer.assign([end for topic in outputs for end in self._ends(topic)])

    def _ends(self, topic: str) -> list[TopicPartition]:
        found = self._offsets.list_topics(topic, timeout=ASK_SECONDS).topics[topic]
        if found.error:
            raise KafkaException(found.error)
        partitions = [TopicPartition(topic, number) for number in found.partitions]
        for partition in partitions:
            _, partition.offset = self._offsets.get_watermark_offsets(partition, timeout=ASK_SECONDS)
        return partitions

    def follow(self, seconds: float) -> None:
        """Count what is written within ``seconds``, and measure the lag."""
        self.count(self._consumer.consume(AT_ONCE, seconds))
        if time.monotonic() >= self._measure_at:
            self._measure_at = time.monotonic() + LAG_SECONDS
            self._measure_lag()

    def count(self, messages: Iterable[Any]) -> None:
        """Count output records."""
        records = letters = 0
        longest = 0.0
        for message in messages:
            error = message.error()
            if error:
                if error.code() != KafkaError._PARTITION_EOF:
                    log(LOGGER, logging.WARNING, "the consumer reports an error", reason=error.str())
                continue
            source = source_of(message.headers())
            if source is None:
                continue
            records += 1
            letters += message.topic().endswith(DEAD_LETTERS)
            longest = max(longest, (message.timestamp()[1] - source.milliseconds) / 1000)
            self._position.written(source.partition, source.offset)
        stage.RECORDS_IN.inc(records)
        stage.RECORDS_OUT.inc(records)
        stage.DEAD_LETTERS.inc(letters)
        if records:
            stage.BATCH_SECONDS.observe(longest)

    def _measure_lag(self) -> None:
        """Compare with where the input topic ended last time: what was made from later records may not have been seen yet."""
        following = self._position.next
        stage.LAG.set(sum(max(0, end - following[number]) for number, end in self._end.items()))
        try:
            for number in following:
                partition = TopicPartition(self._position.topic, number)
                _, self._end[number] = self._offsets.get_watermark_offsets(partition, timeout=LAG_SECONDS)
        except KafkaException as error:
            log(LOGGER, logging.WARNING, "can't ask for the lag; trying again", reason=error.args[0].str())

    def close(self) -> None:
        """Stop reading."""
        self._consumer.close()
        self._offsets.close()
