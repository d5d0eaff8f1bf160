"""From the files of each day that has changed to its ``aggregates.jsonl``, by a job on YARN."""

from __future__ import annotations

import datetime as dt
import json
import logging
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from berny.pipelines.openweather import aggregates
from berny.pipelines.openweather.days import AGGREGATES, changed, digest, seen
from berny.pipelines.openweather.settings import FolderSettings
from berny.runtime import mapreduce, stage, timer
from berny.runtime.files import DAY, Files
from berny.runtime.mapreduce import Job
from berny.runtime.stage import Stop, log
from berny.runtime.timer import TimerSettings

LOGGER = logging.getLogger("aggregates")
JOBS = "/data/openweather/jobs"
"""Output of jobs, in HDFS."""
PROGRAM = Path(aggregates.__file__)
PYTHON = "/usr/bin/python3"
DAYS_AT_ONCE = 31
PARIS = ZoneInfo("Europe/Paris")

Run = Callable[[Job], None]
"""Runs a job until it has ended, or raises JobFailed."""


class Settings(FolderSettings, TimerSettings):
    """The stage's environment."""

    mr_process_only_today: bool = False


class Aggregation:
    """A run: aggregates the days whose files are other than those that their aggregates were made of.

    The watermark has, by day, when its folder was last ``modified`` (Unix seconds) and the digest of its ``files``. So of a
    day that has not changed nothing is read, not even the list of its files.

    Args:
        files: the directory in HDFS.
        scheme: what a job puts before its paths.
        outputs: the directory of jobs' outputs.
        today: the only day that is aggregated, or empty.
        run: runs a job.
    """

    def __init__(self, files: Files, scheme: str, outputs: Files, today: str, run: Run) -> None:
        self._files, self._scheme, self._outputs = files, scheme, outputs
        self._today = today
        self._run = run

    def work(self, watermark: dict[str, Any] | None) -> Iterator[timer.Step]:
        """Aggregate changed days; a step is some of them.

        Raises:
            FilesError: HDFS refused or does not respond.
            JobFailed: the job has failed.
        """
        found = self._files.days()
        state = {day: one for day, one in (watermark or {}).items() if day in found}
        due: dict[str, str] = {}
        for day in changed(found, state):
            if self._today and day != f"{DAY}{self._today}":
                continue
            sizes = self._files.sizes(day)
            files = digest(sizes)
            if files != state.get(day, {}).get("files", "") or (files and AGGREGATES not in sizes):
                due[day] = files
            else:
                state[day] = seen(found[day], files=files)
        yield timer.Step(state)
        for first in range(0, len(due), DAYS_AT_ONCE):
            some = dict(list(due.items())[first : first + DAYS_AT_ONCE])
            count = self._aggregate(some)
            state |= {day: seen(found[day], files=files) for day, files in some.items()}
            yield timer.Step(state, count)

    def _aggregate(self, days: dict[str, str]) -> int:
        """Aggregate some days and write their files; return how many aggregates there are."""
        # Of runs that were killed; one of their jobs may still run, and then fails.
        for name in self._outputs.modified():
            self._outputs.remove(name)
        output = uuid.uuid4().hex
        inputs = [f"{self._scheme}{self._files.root}/{day}/weather_*.json" for day, files in days.items() if files]
        made: dict[str, list[dict[str, Any]]] = {day: [] for day in days}
        if inputs:
            self._run(job(inputs, f"{self._outputs.root}/{output}"))
            for name in self._outputs.sizes(output):
                if name.startswith("part-"):
                    for line in self._outputs.lines(f"{output}/{name}"):
                        one = json.loads(line)
                        made.setdefault(f"{DAY}{one['day']}", []).append(one)
        for day, files in days.items():
            rows = sorted(made[day], key=lambda one: one["city_id"])
            self._files.replace(
                f"{day}/{AGGREGATES}", (f"{json.dumps(one | {'files': files})}\n".encode() for one in rows)
            )
        self._outputs.remove(output)
        count = sum(len(made[day]) for day in days)
        log(LOGGER, logging.INFO, "aggregated", days=len(days), aggregates=count, last=max(days))
        return count


def job(inputs: list[str], output: str) -> Job:
    """Return the job for some patterns of files."""
    program = f"{PYTHON} {PROGRAM.name}"
    return Job(
        "openweather-aggregates",
        [PROGRAM],
        f"{program} map",
        f"{program} reduce",
        inputs,
        output,
        aggregates.KEY_FIELDS,
    )


def today() -> str:
    """Return the day in Paris."""
    return dt.datetime.now(PARIS).date().isoformat()


def aggregation(settings: Settings, stop: threading.Event) -> Aggregation:
    """Return a run on YARN."""
    outputs = Files(settings.hdfs_web_url, settings.hdfs_user, JOBS)
    only = today() if settings.mr_process_only_today else ""
    return Aggregation(settings.files(), settings.scheme, outputs, only, lambda job: mapreduce.run(job, stop))


def run(settings: Settings, stop: Stop) -> None:
    """Aggregate once."""
    timer.run(settings, aggregation(settings, stop).work, stop)


if __name__ == "__main__":
    stage.main(Settings, run)
