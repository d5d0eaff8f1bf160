"""Measures a run of openweather's export and job after one more day, on this host, without a lab.

`PYTHONPATH=tests:tests/unit python tests/compare/days.py --days 2 30 365` has a PostgreSQL and an HDFS of its own. The job is
Hadoop Streaming's without YARN, whose part of a run does not depend on how many days there are.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections.abc import Callable
from statistics import median
from typing import Any

from archives import running, unpacked
from hadoop import Hdfs
from rich.console import Console
from weather import CITIES, Database, record

from berny.lab.figures import Sheet, show_table
from berny.pipelines.openweather import days
from berny.pipelines.openweather.export import Export, Settings
from berny.pipelines.openweather.mapreduce import JOBS, Aggregation
from berny.runtime import mapreduce
from berny.runtime.files import Files

ROOT = "/user/hdfs/weather"
FIRST, DAY = 1_735_725_600, 86400
"""2025-01-01, 10:00 UTC."""
ROWS = 24
TIMES = 3
HEAD = ["days", "export, s", "from", "to", "job, s", "from", "to"]


class Bench:
    """The pipeline's tables and directory, and where its job was."""

    def __init__(self, database: Database, hdfs: Hdfs) -> None:
        for path in (ROOT, "/data/openweather"):
            hdfs.provide(path, "openweather")
        # Without YARN the job runs as the user who starts it.
        hdfs.client().set_permission("/data/openweather", "777")
        self.database, self.hdfs = database, hdfs
        self.files, self.outputs = Files(hdfs.url, "openweather", ROOT), Files(hdfs.url, "root", JOBS)
        words = {"hdfs_web_url": hdfs.url, "hdfs_url": hdfs.uri, "hdfs_user": "openweather", "berny_raw_path": ROOT}
        self._settings = Settings.model_validate(database.environment("export") | words)
        self._watermark: Any = None
        self.days = 0

    def add(self) -> None:
        """Insert the rows of one more day."""
        first, cities = self.days * ROWS, list(CITIES)
        rows = [
            record(cities[number % len(cities)], FIRST + self.days * DAY + 600 * number, first + number)
            for number in range(ROWS)
        ]
        self.database.insert(*rows, first=first)
        self.days += 1

    def export(self) -> None:
        """Run the export."""
        for _ in Export(self._settings, self.files).work():
            pass

    def aggregate(self) -> None:
        """Run the job for what has changed."""

        def runs(job: mapreduce.Job) -> None:
            mapreduce.run(job, threading.Event(), self.hdfs.streaming())

        for step in Aggregation(self.files, "", self.outputs, "", runs).work(self._watermark):
            self._watermark = step.watermark

    def measure(self) -> list[str]:
        """Return the row of one more day, several times."""
        exports, jobs = [], []
        for _ in range(TIMES):
            self.add()
            exports.append(seconds(self.export))
            jobs.append(seconds(self.aggregate))
        cells = [f"{one(each):.2f}" for each in (exports, jobs) for one in (median, min, max)]
        return [str(self.days - TIMES + 1), *cells]


def seconds(work: Callable[[], None]) -> float:
    """Return how long it takes."""
    since = time.monotonic()
    work()
    return time.monotonic() - since


def main() -> None:
    """Measure."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--days", type=int, nargs="+", default=[2, 30, 365])
    given = arguments.parse_args()
    # What was written to a moment ago is looked at again by the next run: here no folder is written to meanwhile.
    days.SETTLED_SECONDS = -60
    rows = []
    with running(Hdfs, unpacked("hadoop")) as hdfs, Database.running() as database:
        bench = Bench(database, hdfs)
        for wanted in sorted(given.days):
            while bench.days < wanted - 1:
                bench.add()
            bench.export()
            bench.aggregate()
            rows.append(bench.measure())
            print(rows[-1], file=sys.stderr)
    show_table(Sheet("a run after one more day", HEAD, rows), Console())


if __name__ == "__main__":
    main()
