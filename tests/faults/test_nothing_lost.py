"""A selection of the bench's rows, of each kind what hurts most, on the cluster of the tests; `make faults` runs all."""

from __future__ import annotations

import shlex
import time

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


TEAR = """
set -e
systemctl stop influxdb
for shard in /data/influxdb/engine/wal/*/*/*/; do
    last=$(ls -S "$shard" | sort | tail -n 1)
    # A write (1) of 4096 bytes, of which the first 96 came to the disk.
    [ -z "$last" ] || (printf '\\001\\000\\000\\020\\000'; head -c 96 /dev/urandom) >> "$shard/$last"
done
systemctl start influxdb
"""


def test_points_outlive_the_second_start_after_a_write_was_cut_off(cluster: Cluster) -> None:
    """As a full disk or a power cut leave it. InfluxDB by itself goes on writing where its next start finds nothing."""
    heal_all(cluster.lab)
    cluster.sh("worker_2", f"sudo bash -c {shlex.quote(TEAR)}")
    cluster.sh("worker_2", "sudo berny-probe influxdb --wait 60")
    run = f"cut-write-{time.time():.0f}"
    cluster.load(run, RATE)
    time.sleep(10)
    cluster.settle(run)
    cluster.sh("worker_2", "sudo systemctl restart influxdb && sudo berny-probe influxdb --wait 60")
    clean, report = cluster.check(run)
    assert clean, report
