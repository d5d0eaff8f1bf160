"""Fault cases of Shelf: a full disk, a play."""

from __future__ import annotations

from collections.abc import Iterator

from berny.faults.cases import FaultCase, full, rolling
from berny.faults.targets import Targets


def fault_cases(targets: Targets) -> Iterator[FaultCase]:
    """Yield the cases."""
    yield rolling("shelf", "shelf_busy_seconds=21")
    for node in targets.of("shelf"):
        yield full("shelf", node)
