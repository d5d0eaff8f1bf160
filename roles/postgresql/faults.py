"""Fault cases of PostgreSQL: a full and a lost disk, a rolling restart."""

from __future__ import annotations

from collections.abc import Iterator

from berny.faults import inject
from berny.faults.cases import FaultCase, full, rolling, to
from berny.faults.targets import Targets

SERVER = "postgresql-server"


def fault_cases(targets: Targets) -> Iterator[FaultCase]:
    """Yield the cases."""
    yield rolling("postgresql", "postgresql_max_connections=41")
    for node in targets.of(SERVER):
        yield full(SERVER, node)
        yield FaultCase(
            f"lost-{SERVER}-{node}",
            f"{node} comes back with an empty disk for PostgreSQL; then `playbooks/restore.yml -e data=CLUSTER`",
            to(inject.lose_disks, node, SERVER),
            inject.restore,
            hold=10,
            gives_up="rows older than the topics' retention that no file has",
        )
