"""Compacts both directories of HDFS, and removes what is older than they keep: a timer."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from pyspark.sql import SparkSession

from berny.model.component import seconds
from berny.pipelines.customers.columns import PARQUET, PARQUET_ALERTS
from berny.runtime import stage, timer
from berny.runtime.compaction import Compaction, Convert
from berny.runtime.files import Files
from berny.runtime.stage import Stop, log
from berny.runtime.timer import TimerSettings

LOGGER = logging.getLogger("compact")
SCHEMAS = {"/user/maria_dev/customers_usa": PARQUET, "/user/maria_dev/customers_alerts": PARQUET_ALERTS}
"""The first directory has the states of batches."""


class Settings(TimerSettings):
    """The timer's environment."""

    hdfs_url: str
    hdfs_web_url: str
    hdfs_user: str
    berny_directories: str
    """``PATH=RETENTION`` of both directories, with a comma between."""


class Work:
    """A run.

    Args:
        settings: the stage's environment.
        spark: the application.
    """

    def __init__(self, settings: Settings, spark: SparkSession) -> None:
        self._settings, self._spark = settings, spark
        self._keep = dict(one.split("=", 1) for one in settings.berny_directories.split(","))

    def work(self, watermark: object = None) -> Iterator[timer.Step]:
        """Compact directory by directory; what is done follows from the files, so the watermark says nothing.

        Raises:
            FilesError: HDFS refuses or does not respond.
        """
        own = self._settings
        files = {path: Files(own.hdfs_web_url, own.hdfs_user, path) for path in SCHEMAS}
        for path, one in files.items():
            found = Compaction(one, files[next(iter(SCHEMAS))], self._converts(path))
            count = found.cover()
            joined = found.join()
            keep = self._keep.get(path, "")
            gone = found.drop_expired(seconds(keep)) if keep else []
            log(LOGGER, logging.INFO, "compacted", path=path, to_parquet=count, joined=joined, dropped=len(gone))
            yield timer.Step(path, count)

    def _converts(self, path: str) -> Convert:
        def convert(names: list[str], folder: str) -> None:
            root = f"{self._settings.hdfs_url}{path}"
            rows = self._spark.read.schema(SCHEMAS[path]).json([f"{root}/{name}" for name in names])
            rows.coalesce(1).write.mode("overwrite").parquet(f"{root}/{folder}")

        return convert


def run(settings: Settings, stop: Stop) -> None:
    """Compact once, in the driver alone: a short run takes no executor from the streams."""
    spark = SparkSession.builder.master("local[1]").getOrCreate()
    spark.sparkContext.setLogLevel("WARN")
    try:
        timer.run(settings, Work(settings, spark).work, stop)
    finally:
        spark.stop()


if __name__ == "__main__":
    stage.main(Settings, run)
