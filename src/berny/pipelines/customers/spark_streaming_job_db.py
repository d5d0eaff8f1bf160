"""From ``customers-usa`` to the table ``customers``, by Spark: the last row of each customer."""

from __future__ import annotations

import threading

from confluent_kafka import Message
from pyspark.sql import DataFrame

from berny.pipelines.customers import customer_rows
from berny.pipelines.customers.customer_rows import TableSettings
from berny.runtime import microbatch, stage
from berny.runtime.batch import BatchConsumer, Sink
from berny.runtime.kafka import Publisher, Publishes
from berny.runtime.microbatch import MicroBatchSettings, Stopped
from berny.runtime.sinks.postgresql import PostgresUpserts
from berny.runtime.stage import Stop

TOPIC = "customers-usa"
CORES = 1


class Settings(TableSettings, MicroBatchSettings):
    """The job's environment."""

    berny_batch_records: int = 5000


class _Read:
    """What a batch consumer reads from, if somebody else reads: it knows the topic's id alone."""

    def __init__(self, topic_id: str) -> None:
        self.topic_id = topic_id

    def take(self, records: int, seconds: float, stop: threading.Event) -> list[Message]:
        """Return nothing."""
        return []

    def commit(self, batch: list[Message]) -> None:
        """Do nothing: the checkpoint advances."""

    def close(self) -> None:
        """Do nothing."""


class Job:
    """Writes batches.

    Args:
        settings: the stage's environment.
        topic_id: the topic's.
        sink: the table.
        letters: publishes dead letters.
        stop: set when the stage has to end.
    """

    def __init__(
        self,
        settings: Settings,
        topic_id: str,
        sink: Sink[tuple[object, ...]],
        letters: Publishes,
        stop: threading.Event,
    ) -> None:
        self._consumer = BatchConsumer(settings, TOPIC, _Read(topic_id), letters, sink, customer_rows.row, stop)

    def write(self, rows: DataFrame, number: int) -> None:
        """Write a batch, and wait while PostgreSQL is away.

        Raises:
            Stopped: the stage has to stop first.
            ConfigurationError: PostgreSQL refuses the login, or the table is missing.
        """
        chosen = rows.select("topic", "partition", "offset", "key", "value", "timestamp")
        batch = [
            Message(
                topic=one.topic,
                partition=one.partition,
                offset=one.offset,
                key=None if one.key is None else bytes(one.key),
                value=None if one.value is None else bytes(one.value),
                timestamp=(1, int(one.timestamp.timestamp() * 1000)),
            )
            for one in sorted(chosen.collect(), key=lambda one: (one.partition, one.offset))
        ]
        stage.RECORDS_IN.inc(len(batch))
        if batch and not self._consumer.deliver(batch):
            raise Stopped


def run(settings: Settings, stop: Stop) -> None:
    """Run the query until it fails (the unit starts it again) or the stage is stopped."""
    begun = microbatch.begin(settings, TOPIC, stop, settings.pg_table_id)
    if begun is None:
        return
    watch, starting, _ = begun
    if settings.supabase_db_url:
        customer_rows.create(settings)
    sink = PostgresUpserts(settings, customer_rows.COLUMNS, customer_rows.KEY)
    sink.check()
    job = Job(settings, watch.id or "", sink, Publisher(settings.kafka_bootstrap_servers), stop)
    microbatch.run(microbatch.session(CORES), settings, watch, starting, job.write, stop)


if __name__ == "__main__":
    stage.main(Settings, run)
