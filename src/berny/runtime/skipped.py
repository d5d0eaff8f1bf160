"""Records that were removed from a topic before a stage had read them: kept on disk until a person acknowledges them.

``python3 -m berny.runtime.skipped FOLDER`` acknowledges the gaps of the stage with this state directory.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import REGISTRY, Collector

from berny.runtime.disk import write_durably
from berny.runtime.stage import log

LOGGER = logging.getLogger("skipped")
FILE = "skipped.json"
METRIC = "berny_skipped_records"


@dataclass(frozen=True)
class Gap:
    """Offsets of a partition, ``first`` to ``last`` inclusive, that retention or a person removed before they were read."""

    topic: str
    topic_id: str
    partition: int
    first: int
    last: int
    at: str = ""
    """When it was noticed, UTC."""
    acknowledged: str = ""
    """When a person acknowledged it, UTC; empty until then."""

    @property
    def records(self) -> int:
        """The number of offsets in the range."""
        return self.last - self.first + 1

    def __str__(self) -> str:
        return f"{self.topic} partition {self.partition}: {self.records} records, offsets {self.first} to {self.last}"


class Skipped:
    """The gaps of a stage, in its state directory."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def all(self) -> list[Gap]:
        """Return every recorded gap, acknowledged or not."""
        try:
            return [Gap(**gap) for gap in json.loads((self._folder / FILE).read_text())]
        except FileNotFoundError:
            return []

    def open(self) -> list[Gap]:
        """Return the gaps that nobody has acknowledged."""
        return [gap for gap in self.all() if not gap.acknowledged]

    def add(self, gap: Gap) -> None:
        """Record a gap, synced to disk, before the stage continues after it.

        A recorded gap that has grown since is replaced.
        """
        with self._locked():
            gaps = self.all()
            for known in gaps:
                if _where(known) == _where(gap):
                    if known.last >= gap.last:
                        return
                    gaps.remove(known)
                    break
            self._write([*gaps, replace(gap, at=_now())])
        log(
            LOGGER, logging.ERROR, "records were gone before they were read; continuing after them", topic=gap.topic,
            partition=gap.partition, first=gap.first, last=gap.last, records=gap.records,
        )  # fmt: skip

    def acknowledge(self) -> list[Gap]:
        """Acknowledge all open gaps and return them."""
        with self._locked():
            gaps = self.all()
            now = _now()
            self._write([gap if gap.acknowledged else replace(gap, acknowledged=now) for gap in gaps])
        return [gap for gap in gaps if not gap.acknowledged]

    @contextmanager
    def _locked(self) -> Iterator[None]:
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            os.close(folder)

    def _write(self, gaps: list[Gap]) -> None:
        write_durably(self._folder / FILE, json.dumps([asdict(gap) for gap in gaps], indent=1))


def _where(gap: Gap) -> tuple[str, int, int]:
    return gap.topic_id, gap.partition, gap.first


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


class _Metric(Collector):
    """Reads the gaps at each scrape, so that acknowledged ones disappear from the metrics at once."""

    def __init__(self, skipped: Skipped) -> None:
        self._skipped = skipped

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield the metric, one sample for each open gap."""
        words = "Records that were removed before they were read and are not acknowledged"
        family = GaugeMetricFamily(METRIC, words, labels=["topic", "partition", "first", "last"])
        for gap in self._skipped.open():
            family.add_metric([gap.topic, str(gap.partition), str(gap.first), str(gap.last)], gap.records)
        yield family


def watched(folder: Path) -> Skipped:
    """Return the gaps of the stage with this state directory, and export them as a metric."""
    skipped = Skipped(folder)
    REGISTRY.register(_Metric(skipped))
    return skipped


def main() -> None:
    """Acknowledge all open gaps and print them."""
    parser = argparse.ArgumentParser(prog="berny.runtime.skipped", description="Acknowledges skipped records.")
    parser.add_argument("folder", type=Path, help="the stage's state directory")
    for gap in Skipped(parser.parse_args().folder).acknowledge():
        print(f"acknowledged: {gap}")


if __name__ == "__main__":
    main()
