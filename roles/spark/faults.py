"""Fault cases of Spark: a rolling restart."""

from __future__ import annotations

from collections.abc import Iterator

from berny.faults.cases import FaultCase, rolling
from berny.faults.targets import Targets


def fault_cases(targets: Targets) -> Iterator[FaultCase]:
    """Yield the case."""
    yield rolling("spark", "spark_work_keep_seconds=86401")
