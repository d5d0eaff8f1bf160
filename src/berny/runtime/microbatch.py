"""From a topic to anything by Spark Structured Streaming in micro-batches: a function of the pipeline writes each batch.

The checkpoint advances after the function has returned. A batch may be repeated with the same number and rows, so the
function has to be idempotent. Beside ``stream``, which has the real-time mode, for what has to be written as a whole.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from confluent_kafka import Consumer, KafkaException, TopicPartition
from pydantic import Field
from pyspark.sql import DataFrame, SparkSession

from berny.runtime import stage
from berny.runtime.checkpoint import Progress, prepare
from berny.runtime.progress import Position
from berny.runtime.skipped import watched
from berny.runtime.stage import log
from berny.runtime.stream import Query, QuerySettings, Slots, attend, read, task_slots
from berny.runtime.topics import ASK_SECONDS, TopicWatch, client_settings

LOGGER = logging.getLogger("microbatch")
LAG_SECONDS = 2.0


class MicroBatchSettings(QuerySettings):
    """The environment of the driver of a query in micro-batches."""

    berny_trigger_seconds: float = Field(5, ge=0)
    """How often a batch is begun; 0 for the next one at once."""
    berny_batch_records: int = Field(20_000, ge=1)
    """The size of a batch at most."""
    fail_on_data_loss: bool = True
    """With true, the query ends when offsets are gone before they were read, and the next start records the range, which
    ``berny-probe`` reports until a person acknowledges it. With false, the query goes on by itself, and only ranges that were
    gone before it started are recorded."""


class Stopped(Exception):
    """The stage has to stop before the batch is written: it is repeated after the next start."""


Work = Callable[[DataFrame, int], None]
"""Writes the rows of Spark's Kafka source that are a batch, and its number."""


class Guarded:
    """A function that is called for each batch, and the error with which it failed: Spark returns the text alone."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self.error: Exception | None = None

    def __call__(self, rows: DataFrame, number: int) -> None:
        """Write a batch."""
        since = time.monotonic()
        try:
            self._work(rows, number)
        except Exception as error:
            self.error = error
            raise
        stage.BATCH_SECONDS.observe(time.monotonic() - since)


def begin(
    settings: MicroBatchSettings, topic: str, stop: threading.Event, sink: str = ""
) -> tuple[TopicWatch, dict[str, dict[str, int]], Progress] | None:
    """Return the topic, where the query starts in it and its checkpoint; None if the stage has to stop first.

    Args:
        settings: location of the checkpoint.
        topic: the input topic.
        stop: set when the stage has to end.
        sink: identifies the store that is written to: if it is another one, the topic is read from its beginning.

    Raises:
        HdfsError, RequestException, KafkaException: HDFS or Kafka does not respond.
    """
    watch, checkpoint = TopicWatch(settings.kafka_bootstrap_servers, topic), settings.checkpoint()
    starting = prepare(
        checkpoint, watch, settings.kafka_bootstrap_servers, watched(settings.berny_state_dir), stop, sink
    )
    if starting is None:
        return None
    progress = checkpoint.progress(topic)
    assert progress
    return watch, starting, progress


def session(cores: int, **settings: str) -> SparkSession:
    """Return the application, which takes so many cores at most."""
    builder = SparkSession.builder.config("spark.cores.max", cores)
    for name, value in settings.items():
        builder = builder.config(name, value)
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("WARN")
    return spark


def run(
    spark: SparkSession,
    settings: MicroBatchSettings,
    watch: TopicWatch,
    starting: dict[str, dict[str, int]],
    work: Work,
    stop: threading.Event,
) -> None:
    """Run a query until it fails (the unit starts it again) or the stage is stopped.

    Raises:
        RuntimeError: the query ended by itself, or the topic was deleted or recreated.
        Exception: what ``work`` has raised.
    """
    topic = watch.topic
    position = Position(topic, {int(partition): offset for partition, offset in starting[topic].items()})
    slots = Slots(lambda: task_slots(spark), lambda: 1)
    if slots.wait(stop):
        guarded = Guarded(work)
        query = start(spark, settings, topic, starting, guarded)
        log(LOGGER, logging.INFO, "the query runs", checkpoint=settings.berny_checkpoint)
        lag = Lag(settings.kafka_bootstrap_servers, position, stop)
        try:
            attend(query, watch, slots, lag, position, stop)
        except Exception:
            if guarded.error and not isinstance(guarded.error, Stopped):
                raise guarded.error from None
            if not stop.is_set():
                raise
        finally:
            lag.close()
    spark.stop()


def start(
    spark: SparkSession,
    settings: MicroBatchSettings,
    topic: str,
    starting: dict[str, dict[str, int]],
    work: Work,
) -> Query:
    """Start the query."""
    options = {
        "failOnDataLoss": str(settings.fail_on_data_loss).lower(),
        "maxOffsetsPerTrigger": str(settings.berny_batch_records),
    }
    query: Query = (
        read(spark, settings, topic, starting, **options)
        .writeStream.foreachBatch(work)
        .option("checkpointLocation", settings.berny_checkpoint)
        .trigger(processingTime=f"{settings.berny_trigger_seconds} seconds")
        .queryName(f"{settings.berny_pipeline}-{settings.berny_stage}")
        .start()
    )
    return query


class Lag:
    """Measures how many records wait, every ``LAG_SECONDS``, over one client: a new one costs more than what it asks for.

    Args:
        bootstrap_servers: the brokers.
        position: the next offsets of the query.
        stop: set when the stage has to end.
    """

    def __init__(self, bootstrap_servers: str, position: Position, stop: threading.Event) -> None:
        self._position, self._stop = position, stop
        self._client = Consumer(client_settings(bootstrap_servers) | {"group.id": "berny-progress"})
        self._due = 0.0

    def close(self) -> None:
        """Disconnect."""
        self._client.close()

    def follow(self, seconds: float) -> None:
        """Compare the next offsets with the topic's ends, if it is time to, and wait."""
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + LAG_SECONDS
            self._measure()
        self._stop.wait(seconds)

    def _measure(self) -> None:
        waiting = 0
        try:
            for number, offset in self._position.next.items():
                partition = TopicPartition(self._position.topic, number)
                low, high = self._client.get_watermark_offsets(partition, timeout=ASK_SECONDS)
                waiting += max(0, high - max(low, offset))
        except KafkaException as error:
            log(LOGGER, logging.WARNING, "can't ask for the lag; trying again", reason=error.args[0].str())
            return
        stage.LAG.set(waiting)
