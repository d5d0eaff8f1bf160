"""The delay of every observation: Kafka to Kafka by Spark structured streaming, in micro-batches.

One query writes both topics (a row names its own), so that one checkpoint covers them. A restart replays at most one batch.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from prometheus_client import Gauge
from pyspark.sql import SparkSession
from pyspark.sql.streaming.listener import StreamingQueryListener

from berny.pipelines.idfm.columns import transform
from berny.runtime import stage
from berny.runtime.checkpoint import Checkpoint, prepare
from berny.runtime.kafka import RECORD_BYTES
from berny.runtime.skipped import watched
from berny.runtime.stage import EnvironmentSettings, Stop, log
from berny.runtime.topics import TopicWatch

LOGGER = logging.getLogger("analytics")
TOPIC = "idfm-realtime"
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


class Settings(EnvironmentSettings):
    """The driver's environment."""

    hdfs_web_url: str
    hdfs_user: str
    berny_checkpoint: str
    berny_state_dir: Path
    berny_trigger_seconds: float = 1
    berny_max_offsets_per_batch: int = 20000


class Listener(StreamingQueryListener):
    """Turns the query's progress into metrics."""

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
            latest = _offsets(source.latestOffset)
            for partition, offset in _offsets(source.endOffset).items():
                OFFSET.labels(TOPIC, partition).set(offset)
                lag += max(0, latest.get(partition, offset) - offset)
        stage.LAG.set(lag)

    def onQueryIdle(self, event: Any) -> None:
        """Nothing waits."""
        stage.LAG.set(0)

    def onQueryTerminated(self, event: Any) -> None:
        """The query ended."""
        stage.READY.set(0)


def _offsets(text: str | None) -> dict[str, int]:
    """Return the offsets by partition; the batch that a restart replays has no latest ones, and the text says None."""
    found: dict[str, int] = (json.loads(text) if text and text.startswith("{") else {}).get(TOPIC, {})
    return found


def run(settings: Settings, stop: Stop) -> None:
    """Run the query until it fails (the unit starts it again) or the stage is stopped."""
    servers = settings.kafka_bootstrap_servers
    checkpoint = Checkpoint(settings.hdfs_web_url, settings.hdfs_user, urlsplit(settings.berny_checkpoint).path)
    watch = TopicWatch(servers, TOPIC)
    starting = prepare(checkpoint, watch, servers, watched(settings.berny_state_dir), stop)
    if starting is None:
        return
    spark = SparkSession.builder.getOrCreate()
    spark.sparkContext.setLogLevel("WARN")
    spark.streams.addListener(Listener())
    source = (
        spark.readStream.format("kafka")
        .options(**KNOW_ALL_BROKERS, **ASK_ANEW)
        .option("kafka.bootstrap.servers", servers)
        .option("subscribe", TOPIC)
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
        .queryName("idfm-analytics")
        .start()
    )
    log(LOGGER, logging.INFO, "the query runs", checkpoint=settings.berny_checkpoint)
    while not stop.is_set():
        if query.awaitTermination(1):
            raise RuntimeError("the query ended by itself")
        if watch.changed():
            query.stop()
            raise RuntimeError(f"the topic {TOPIC} was deleted, or is another one by now: starting again")
    query.stop()
    spark.stop()


if __name__ == "__main__":
    stage.main(Settings, run)
