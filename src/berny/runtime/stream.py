"""From topic to topic by Spark structured streaming: one query in micro-batches, with its checkpoint in HDFS.

The query writes every topic (a row names its own), so that one checkpoint covers them. A restart replays at most one batch.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from prometheus_client import Gauge
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.streaming.listener import StreamingQueryListener

from berny.runtime import stage
from berny.runtime.checkpoint import Checkpoint, prepare
from berny.runtime.kafka import LETTER_BYTES, RECORD_BYTES
from berny.runtime.skipped import watched
from berny.runtime.stage import KafkaSettings, log
from berny.runtime.topics import TopicWatch

LOGGER = logging.getLogger("stream")
# A client that learned of the brokers while one was away knows the other alone: when that one goes, it asks it in vain
# until it is back. Its two remedies: learn anew from the bootstrap servers, and more often than every 5 minutes.
KNOW_ALL_BROKERS = {"kafka.metadata.recovery.strategy": "rebootstrap", "kafka.metadata.max.age.ms": "30000"}
# A question for offsets whose broker leaves the cluster in that very moment waits for it to come back, up to a minute. So it
# fails sooner, and is asked anew, by a new client.
ASK_ANEW = {
    "kafka.request.timeout.ms": "8000",
    "kafka.default.api.timeout.ms": "8000",
    "fetchOffset.numRetries": "10",
    "fetchOffset.retryIntervalMs": "200",
}
OFFSET = Gauge("berny_input_offset", "The next offset to be read", ["topic", "partition"])


class StreamSettings(KafkaSettings):
    """What every driver of a query finds in its environment."""

    hdfs_web_url: str
    hdfs_user: str
    berny_checkpoint: str
    berny_state_dir: Path
    berny_trigger_seconds: float = 1
    berny_max_offsets_per_batch: int = 20000


class Query(Protocol):
    """What a ``StreamingQuery`` does."""

    def awaitTermination(self, timeout: float) -> bool | None:
        """Tell whether it ended within so many seconds; raise what it failed of."""

    def stop(self) -> None:
        """End it."""


class Watch(Protocol):
    """What ``topics.TopicWatch`` does."""

    topic: str

    def changed(self) -> bool:
        """Tell whether the topic is no longer the one that it was in the beginning."""


class Listener(StreamingQueryListener):
    """Turns the query's progress into metrics."""

    def __init__(self, topic: str) -> None:
        self._topic = topic

    def onQueryStarted(self, event: Any) -> None:
        """The query runs: the stage is ready."""
        stage.READY.set(1)

    def onQueryProgress(self, event: Any) -> None:
        """A batch is done."""
        progress = event.progress
        stage.RECORDS_IN.inc(progress.numInputRows)
        stage.RECORDS_OUT.inc(progress.numInputRows)
        if progress.numInputRows:
            stage.BATCH_SECONDS.observe(progress.batchDuration / 1000)
        lag = 0
        for source in progress.sources:
            latest = self._offsets(source.latestOffset)
            for partition, offset in self._offsets(source.endOffset).items():
                OFFSET.labels(self._topic, partition).set(offset)
                lag += max(0, latest.get(partition, offset) - offset)
        stage.LAG.set(lag)

    def onQueryIdle(self, event: Any) -> None:
        """Nothing waits."""
        stage.LAG.set(0)

    def onQueryTerminated(self, event: Any) -> None:
        """The query ended."""
        stage.READY.set(0)

    def _offsets(self, text: str | None) -> dict[str, int]:
        """Return the offsets by partition; the batch that a restart replays has no latest ones, and the text says None."""
        found: dict[str, int] = (json.loads(text) if text and text.startswith("{") else {}).get(self._topic, {})
        return found


def dead_letter_value(reason: Column) -> Column:
    """Return the value of a dead letter about a row as Spark's Kafka source gives it, as ``kafka.dead_letter`` has it.

    Of a long value there is the beginning.
    """
    origin = F.struct(F.col("topic"), F.col("partition"), F.col("offset"))
    # Spark breaks lines every 76 characters, as in an electronic letter.
    one_line = F.regexp_replace(F.base64(F.substring("value", 1, LETTER_BYTES)), "[\r\n]", "")
    size = F.length("value")
    parts = {"reason": reason, "origin": origin, "value_bytes": size, "value_base64": one_line}
    return json_value(parts)


def json_value(fields: dict[str, Column]) -> Column:
    """Return a JSON object of these fields; what is null is there, as null."""
    return F.to_json(F.struct(*(column.alias(name) for name, column in fields.items())), {"ignoreNullFields": "false"})


def run(
    settings: StreamSettings, topic: str, transform: Callable[[DataFrame], DataFrame], stop: threading.Event
) -> None:
    """Run a query until it fails (the unit starts it again) or the stage is stopped.

    Args:
        settings: where the checkpoint is, and how large a batch may get.
        topic: what is read.
        transform: makes of rows of Spark's Kafka source rows with ``key``, ``value`` and ``topic``, without a state.
        stop: set once the stage is to end.

    Raises:
        RuntimeError: the query ended by itself, or the topic is another one.
    """
    servers = settings.kafka_bootstrap_servers
    checkpoint = Checkpoint(settings.hdfs_web_url, settings.hdfs_user, urlsplit(settings.berny_checkpoint).path)
    watch = TopicWatch(servers, topic)
    starting = prepare(checkpoint, watch, servers, watched(settings.berny_state_dir), stop)
    if starting is None:
        return
    spark = SparkSession.builder.getOrCreate()
    spark.sparkContext.setLogLevel("WARN")
    spark.streams.addListener(Listener(topic))
    source = (
        spark.readStream.format("kafka")
        .options(**KNOW_ALL_BROKERS, **ASK_ANEW)
        .option("kafka.bootstrap.servers", servers)
        .option("subscribe", topic)
        .option("startingOffsets", json.dumps(starting))
        # What is gone is found when the query starts again, and is recorded then.
        .option("failOnDataLoss", "true")
        .option("maxOffsetsPerTrigger", settings.berny_max_offsets_per_batch)
        .load()
    )
    query = (
        transform(source)
        .writeStream.format("kafka")
        .options(**KNOW_ALL_BROKERS)
        .option("kafka.bootstrap.servers", servers)
        .option("kafka.acks", "all")
        .option("kafka.max.block.ms", 30000)
        .option("kafka.max.request.size", RECORD_BYTES)
        .option("checkpointLocation", settings.berny_checkpoint)
        .trigger(processingTime=f"{int(settings.berny_trigger_seconds * 1000)} milliseconds")
        .queryName(f"{settings.berny_pipeline}-{settings.berny_stage}")
        .start()
    )
    log(LOGGER, logging.INFO, "the query runs", checkpoint=settings.berny_checkpoint)
    attend(query, watch, stop)
    spark.stop()


def attend(query: Query, watch: Watch, stop: threading.Event) -> None:
    """Watch a query until the stage is to stop, and end it then.

    Raises:
        RuntimeError: the query ended by itself, or the topic is another one.
    """
    while not stop.is_set():
        if query.awaitTermination(1):
            raise RuntimeError("the query ended by itself")
        if watch.changed():
            query.stop()
            raise RuntimeError(f"the topic {watch.topic} was deleted, or is another one by now: starting again")
    query.stop()
