"""A selection of the bench's rows, of each kind what hurts most, on the cluster of the tests; `make faults` runs all."""

from __future__ import annotations

import pytest

from berny.faults.bench import run_row
from berny.faults.inject import heal_all
from berny.faults.results import line
from berny.faults.rows import rows
from support import Cluster, console, steps

RATE = 40
SELECTION = ["kill-hdfs-namenode-master", "cut-worker_2", "full-influxdb-worker_2", "power-all-master-first"]


@pytest.mark.parametrize("name", SELECTION)
def test_nothing_is_lost(cluster: Cluster, name: str) -> None:
    """Nor doubled, nor wrong, and the cluster is whole again by itself: the next row waits for that before it begins."""
    heal_all(cluster.lab)
    with steps(f"fault {name}") as shown, shown.step(name) as say:
        outcome = run_row(cluster.lab, rows()[name], RATE, 1, say)
    console.print(line(outcome), highlight=False, soft_wrap=True)
    assert outcome.clean, line(outcome)
