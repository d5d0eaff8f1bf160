"""From topic to topic by Spark Structured Streaming: one query in real-time mode, with its checkpoint in HDFS.

One query writes to all output topics (each row names its topic), so one checkpoint covers them. Each record is written as
soon as it was read; a batch is the time between two checkpoints, and a restart replays at most one batch.
"""

from __future__ import annotations

import json
import logging
import math
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from pydantic import Field
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from berny.runtime import stage
from berny.runtime.checkpoint import Checkpoint, prepare
from berny.runtime.kafka import LETTER_BYTES, RECORD_BYTES
from berny.runtime.progress import HEADER, Position, Tail
from berny.runtime.skipped import watched
from berny.runtime.stage import KafkaSettings, log
from berny.runtime.topics import TopicWatch

LOGGER = logging.getLogger("stream")
# A client that fetched its metadata while one broker was away knows only the other one: if that fails, it is stuck until
# that is back. So it rebootstraps from the configured servers, and refreshes its metadata more often than every 5 minutes.
KNOW_ALL_BROKERS = {"kafka.metadata.recovery.strategy": "rebootstrap", "kafka.metadata.max.age.ms": "30000"}
# A request for offsets to a broker that is just leaving the cluster waits up to a minute for it to come back. It should fail
# sooner and be retried by a new client.
RETRY_SOON = {
    "kafka.request.timeout.ms": "8000",
    "kafka.default.api.timeout.ms": "8000",
    "fetchOffset.numRetries": "10",
    "fetchOffset.retryIntervalMs": "200",
}
SPARE = 2
"""How many times the task slots that a query needs are requested."""


class QuerySettings(KafkaSettings):
    """The environment of every query's driver."""

    hdfs_web_url: str
    hdfs_user: str
    berny_checkpoint: str
    berny_state_dir: Path

    def checkpoint(self) -> Checkpoint:
        """Return the query's checkpoint."""
        return Checkpoint(self.hdfs_web_url, self.hdfs_user, urlsplit(self.berny_checkpoint).path)


class StreamSettings(QuerySettings):
    """The environment of the driver of a query in real-time mode."""

    berny_checkpoint_seconds: int = Field(120, ge=5)
    """How long a batch is. Between two batches nothing is read for some tenths of a second."""


class Query(Protocol):
    """The interface of ``StreamingQuery``."""

    @property
    def lastProgress(self) -> Any:
        """Return the progress of its last complete batch, None before the first one."""

    def awaitTermination(self, timeout: float) -> bool | None:
        """Return whether it ended within ``timeout`` seconds; raise the error with which it failed."""

    def stop(self) -> None:
        """Stop it."""


class Watch(Protocol):
    """The interface of ``topics.TopicWatch``."""

    topic: str

    def changed(self) -> bool:
        """Return whether the topic was deleted or recreated."""


class Follows(Protocol):
    """The interface of ``progress.Tail`` and ``microbatch.Lag``."""

    def follow(self, seconds: float) -> None:
        """Measure the query's progress for ``seconds``."""


class Slots:
    """Whether a query has a task slot for each partition of its topic.

    In real-time mode a task occupies its slot for the whole batch. With too few slots a partition would not be read, and
    Spark reports no error.
    """

    def __init__(self, count: Callable[[], int], partitions: Callable[[], int]) -> None:
        """Ask for nothing yet.

        Args:
            count: returns how many tasks the application's executors can run at once.
            partitions: returns how many are needed.
        """
        self._count = count
        self._partitions = partitions
        self._told = -math.inf

    def enough(self) -> bool:
        """Return whether they suffice; if not, log it each minute and report what is waited for."""
        found, needed = self._count(), self._partitions()
        if found >= needed:
            if self._told > 0:
                log(LOGGER, logging.INFO, "there are enough task slots", slots=found, needed=needed)
            self._told = -math.inf
            stage.waits_for("")
            return True
        stage.waits_for(f"task slots: {found} of {needed}")
        if time.monotonic() - self._told > 60:
            self._told = time.monotonic()
            log(
                LOGGER, logging.WARNING, "waiting for task slots: other applications or too few workers?", slots=found,
                needed=needed,
            )  # fmt: skip
        return False

    def wait(self, stop: threading.Event) -> bool:
        """Wait until they suffice; return False if the stage has to stop first."""
        while not self.enough():
            if stop.wait(1):
                return False
        return True


def dead_letter_value(reason: Column) -> Column:
    """Return the value of a dead letter for a row of Spark's Kafka source, in the format of ``kafka.dead_letter``.

    A long value is truncated.
    """
    origin = F.struct(F.col("topic"), F.col("partition"), F.col("offset"))
    # Spark breaks lines every 76 characters, as MIME does.
    one_line = F.regexp_replace(F.base64(F.substring("value", 1, LETTER_BYTES)), "[\r\n]", "")
    size = F.length("value")
    parts = {"reason": reason, "origin": origin, "value_bytes": size, "value_base64": one_line}
    return json_value(parts)


def json_value(fields: dict[str, Column]) -> Column:
    """Return a JSON object of these fields, including those that are null."""
    return F.to_json(F.struct(*(column.alias(name) for name, column in fields.items())), {"ignoreNullFields": "false"})


def output(rows: DataFrame, value: Column, topic: Column) -> DataFrame:
    """Return rows to be written: the last step of a transformation.

    Args:
        rows: rows that still have the columns of Spark's Kafka source, one for each of its rows.
        value: the value of the output record.
        topic: its topic.
    """
    position = [F.col("partition"), F.col("offset"), F.unix_millis("timestamp")]
    source = F.concat_ws(":", *(column.cast("string") for column in position)).cast("binary")
    header = F.struct(F.lit(HEADER).alias("key"), source.alias("value"))
    return rows.select("key", value.alias("value"), topic.alias("topic"), F.array(header).alias("headers"))


def task_slots(spark: SparkSession) -> int:
    """Return how many tasks the application's executors can run at once."""
    context = spark.sparkContext._jsc.sc()  # type: ignore[union-attr]
    return int(context.maxNumConcurrentTasks(context.resourceProfileManager().defaultResourceProfile()))


def run(
    settings: StreamSettings,
    topic: str,
    outputs: Iterable[str],
    transform: Callable[[DataFrame], DataFrame],
    stop: threading.Event,
) -> None:
    """Run a query until it fails (the unit starts it again) or the stage is stopped.

    Args:
        settings: location of the checkpoint, and how often it is written.
        topic: the input topic.
        outputs: the topics to which the query writes, with that of dead letters.
        transform: converts rows of Spark's Kafka source to rows of ``output``; it must be stateless.
        stop: set when the stage has to end.

    Raises:
        RuntimeError: the query ended by itself, or the topic was deleted or recreated.
        KafkaException: an output topic does not exist, or brokers do not respond.
    """
    servers = settings.kafka_bootstrap_servers
    watch = TopicWatch(servers, topic)
    starting = prepare(settings.checkpoint(), watch, servers, watched(settings.berny_state_dir), stop)
    if starting is None:
        return
    position = Position(topic, {int(partition): offset for partition, offset in starting[topic].items()})
    # Twice the slots that it needs, spread over the workers: with one worker away it goes on.
    cores = SPARE * len(position.next)
    spark = SparkSession.builder.config("spark.cores.max", cores).getOrCreate()
    spark.sparkContext.setLogLevel("WARN")
    slots = Slots(lambda: task_slots(spark), lambda: len(position.next))
    if slots.wait(stop):
        tail = Tail(servers, outputs, position)
        query = start(spark, settings, topic, starting, transform)
        log(LOGGER, logging.INFO, "the query runs", checkpoint=settings.berny_checkpoint)
        attend(query, watch, slots, tail, position, stop)
        tail.close()
    spark.stop()


def read(
    spark: SparkSession, settings: QuerySettings, topic: str, starting: dict[str, dict[str, int]], **options: str
) -> DataFrame:
    """Return the rows of a topic as Spark's Kafka source reads them, from offsets on that the checkpoint does not have."""
    return (
        spark.readStream.format("kafka")
        .options(**KNOW_ALL_BROKERS, **RETRY_SOON)
        .option("kafka.bootstrap.servers", settings.kafka_bootstrap_servers)
        .option("subscribe", topic)
        .option("startingOffsets", json.dumps(starting))
        # The query fails, and ``prepare`` records the gap when it starts again.
        .options(**{"failOnDataLoss": "true", **options})
        .load()
    )


def start(
    spark: SparkSession,
    settings: StreamSettings,
    topic: str,
    starting: dict[str, dict[str, int]],
    transform: Callable[[DataFrame], DataFrame],
) -> Query:
    """Start the query."""
    query: Query = (
        transform(read(spark, settings, topic, starting))
        .writeStream.format("kafka")
        .outputMode("update")
        .options(**KNOW_ALL_BROKERS)
        .option("kafka.bootstrap.servers", settings.kafka_bootstrap_servers)
        .option("kafka.acks", "all")
        # Brokers sync each batch to disk: one for each record would take longer than this.
        .option("kafka.linger.ms", 5)
        .option("kafka.batch.size", 256 << 10)
        .option("kafka.max.block.ms", 30000)
        .option("kafka.max.request.size", RECORD_BYTES)
        .option("checkpointLocation", settings.berny_checkpoint)
        .trigger(realTime=f"{settings.berny_checkpoint_seconds} seconds")
        .queryName(f"{settings.berny_pipeline}-{settings.berny_stage}")
        .start()
    )
    return query


def end_offsets(progress: Any, topic: str) -> dict[int, int]:
    """Return the next offsets by partition after a query's last complete batch; empty before the first one."""
    texts = [source.endOffset for source in progress.sources] if progress else []
    # Where there is none, it is the text None.
    ends = [json.loads(text).get(topic, {}) for text in texts if text and text.startswith("{")]
    return {int(partition): offset for end in ends for partition, offset in end.items()}


def attend(query: Query, watch: Watch, slots: Slots, tail: Follows, position: Position, stop: threading.Event) -> None:
    """Watch a query until the stage has to stop, and stop it then.

    Raises:
        RuntimeError: the query ended by itself, or the topic was deleted or recreated.
    """
    try:
        while not stop.is_set():
            stage.READY.set(int(slots.enough()))
            tail.follow(0.5)
            if query.awaitTermination(0.01):
                raise RuntimeError("the query ended by itself")
            position.reach(end_offsets(query.lastProgress, watch.topic))
            if watch.changed():
                query.stop()
                raise RuntimeError(f"the topic {watch.topic} was deleted or recreated: starting again")
        query.stop()
    finally:
        stage.READY.set(0)
