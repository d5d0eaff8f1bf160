"""Fault cases of InfluxDB: a full and a lost disk, a rolling restart."""

from __future__ import annotations

from collections.abc import Iterator

from berny.faults import inject
from berny.faults.cases import FaultCase, full, rolling, to
from berny.faults.targets import Targets


def fault_cases(targets: Targets) -> Iterator[FaultCase]:
    """Yield the cases."""
    yield rolling("influxdb", "influxdb_cache_bytes=67108865")
    for node in targets.of("influxdb"):
        yield full("influxdb", node)
        yield FaultCase(
            f"lost-influxdb-{node}",
            f"{node} comes back with an empty disk for InfluxDB; then `playbooks/restore.yml -e data=CLUSTER`",
            to(inject.lose_disks, node, "influxdb"),
            inject.restore,
            hold=10,
            gives_up="points older than the topics' retention",
        )
