"""From ``customers-raw`` to ``customers-usa`` and ``customers-alerts``, and to a directory of HDFS each, by Spark."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from typing import Any

from prometheus_client import Counter as Metric
from pyspark import StorageLevel
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from berny.pipelines.customers.columns import ALERTS, DEAD, USA, alert, customer, judged, values
from berny.runtime import microbatch, stage
from berny.runtime.checkpoint import Progress
from berny.runtime.files import Files
from berny.runtime.kafka import RECORD_BYTES
from berny.runtime.microbatch import MicroBatchSettings
from berny.runtime.parts import Parts
from berny.runtime.seen import Seen
from berny.runtime.stage import Stop, log
from berny.runtime.stream import KNOW_ALL_BROKERS, dead_letter_value

LOGGER = logging.getLogger("customers")
TOPIC = "customers-raw"
CORES = 2
FOLDERS = {"usa": "/user/maria_dev/customers_usa", "incomplete": "/user/maria_dev/customers_alerts"}
RESET = "/opt/berny/berny-customers/scripts/reset_environment.sh"
ADVICE = f"start again from the first record with `sh {RESET}` on master"
CUSTOMERS = Metric("berny_customers", "Rows by what they are", ["kind"])
REASONS = Metric("berny_customers_alerts", "Alerts by reason; a row may have several", ["reason"])
REPEATED = Metric("berny_repeated_records", "Records that the topic has had before")


class Settings(MicroBatchSettings):
    """The job's environment."""

    hdfs_url: str


class Job:
    """Writes batches.

    Args:
        settings: the stage's environment.
        progress: the checkpoint.
    """

    def __init__(self, settings: Settings, progress: Progress) -> None:
        self._settings = settings
        self._folders = {kind: Files(settings.hdfs_web_url, settings.hdfs_user, path) for kind, path in FOLDERS.items()}
        self._parts = Parts(self._folders, progress)

    def begin(self) -> None:
        """Compare the directories with the checkpoint.

        Raises:
            ConfigurationError: they do not belong together.
            FilesError: HDFS refuses or does not respond.
        """
        self._parts.begin(ADVICE)

    def write(self, rows: DataFrame, number: int) -> None:
        """Write a batch: topics first, which may repeat records, then the files, then that it is complete.

        Raises:
            FilesError: HDFS refuses or does not respond.
        """
        if self._parts.done(number):
            log(LOGGER, logging.INFO, "the batch was complete already", batch=number)
            return
        found = judged(rows).persist(StorageLevel.MEMORY_AND_DISK)
        try:
            self._write(found, number)
        finally:
            found.unpersist()

    def _write(self, found: DataFrame, number: int) -> None:
        seen = Seen(self._parts.state)
        reasons = F.when(F.col("kind") == "incomplete", F.col("reasons"))
        facts = found.select("r.identity", "kind", reasons, "partition", "offset").collect()
        kinds = {identity: kind for identity, kind, *_ in facts if kind != "dead"}
        repeated = {identity for identity in kinds if identity in seen}
        records = sum(kind != "dead" for _, kind, *_ in facts)
        if repeated:
            found = found.where((F.col("kind") == "dead") | ~F.col("r.identity").isin(*repeated))
        fresh = found.where(F.col("kind") != "dead")
        if again := _again(facts):
            # By position and not by identity: that would bring rows of a customer out of their order.
            fresh = fresh.where(~F.concat_ws(":", "partition", "offset").isin(again))
        usa, alerts = (fresh.where(F.col("kind") == kind) for kind in FOLDERS)
        self._publish(found.where(F.col("kind") == "dead"), usa, alerts)
        for kind, chosen, fields in (("usa", usa, customer()), ("incomplete", alerts, alert())):
            beside = f"{self._settings.hdfs_url}{FOLDERS[kind]}/{self._parts.staged(number)}"
            named = chosen.select(*(column.alias(name) for name, column in fields.items()))
            named.coalesce(1).write.mode("overwrite").option("ignoreNullFields", "false").json(beside)
            self._parts.place(kind, number)
        seen.add(kinds)
        self._parts.complete(number, seen.ranges)
        self._count(kinds, repeated, records, facts)

    def _publish(self, dead: DataFrame, usa: DataFrame, alerts: DataFrame) -> None:
        reason = F.when(F.col("value").isNull(), "empty").otherwise("not JSON of a row with identity and customer")
        letters = dead.select("key", dead_letter_value(reason).alias("value"), F.lit(DEAD).alias("topic"))
        written = [
            values(rows, fields).withColumn("topic", F.lit(topic))
            for rows, fields, topic in ((usa, customer(), USA), (alerts, alert(), ALERTS))
        ]
        (
            letters.unionByName(written[0])
            .unionByName(written[1])
            .write.format("kafka")
            .options(**KNOW_ALL_BROKERS)
            .option("kafka.bootstrap.servers", self._settings.kafka_bootstrap_servers)
            .option("kafka.acks", "all")
            .option("kafka.max.block.ms", 30000)
            .option("kafka.max.request.size", RECORD_BYTES)
            .save()
        )

    def _count(self, kinds: dict[str, str], repeated: set[str], records: int, facts: Sequence[Sequence[Any]]) -> None:
        dead = len(facts) - records
        stage.RECORDS_IN.inc(len(facts))
        stage.RECORDS_OUT.inc(len(facts) - dead)
        stage.DEAD_LETTERS.inc(dead)
        REPEATED.inc(records - len(kinds) + len(repeated))
        for kind, count in Counter(kind for one, kind in kinds.items() if one not in repeated).items():
            CUSTOMERS.labels(kind).inc(count)
        by_identity = {identity: reasons for identity, _, reasons, *_ in facts if reasons and identity not in repeated}
        for reason, count in Counter(one for reasons in by_identity.values() for one in reasons).items():
            REASONS.labels(reason).inc(count)


def _again(facts: Sequence[Sequence[Any]]) -> list[str]:
    """Return the positions, ``partition:offset``, of records whose identity an earlier one of the batch has."""
    found: set[str] = set()
    again = []
    for identity, kind, _, partition, offset in sorted(facts, key=lambda row: (row[3], row[4])):
        if kind != "dead" and identity in found:
            again.append(f"{partition}:{offset}")
        found.add(identity)
    return again


def run(settings: Settings, stop: Stop) -> None:
    """Run the query until it fails (the unit starts it again) or the stage is stopped."""
    begun = microbatch.begin(settings, TOPIC, stop)
    if begun is None:
        return
    watch, starting, progress = begun
    job = Job(settings, progress)
    job.begin()
    microbatch.run(microbatch.session(CORES), settings, watch, starting, job.write, stop)


if __name__ == "__main__":
    stage.main(Settings, run)
