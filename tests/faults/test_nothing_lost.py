"""Fault cases on the cluster of the tests: of each kind what hurts most in the first tier, all others in the second."""

from __future__ import annotations

import dataclasses
import shlex
import time

import pytest

from berny.faults.bench import Outcome, check_again, run_case
from berny.faults.cases import FaultCase, fault_cases, heal_all
from berny.faults.inject import shell
from berny.faults.results import Results, line, several
from berny.faults.targets import targets_of
from berny.lab.lab import Lab
from berny.lab.measured import commit
from support import Cluster, console, steps

RATE = 40
SELECTION = ["cut-worker_2", "full-influxdb-worker_2", "power-all-master-first"]
CUT = "power-all-master-first"
PLANTED = "/data/yarn-nodemanager/planted"


def test_selection_is_of_the_list() -> None:
    assert {*SELECTION, CUT} <= {*fault_cases()}


def planting(case: FaultCase) -> FaultCase:
    """Return the case with two files left on a disk right before it, one synced and one only written."""
    words = f"echo synced > {PLANTED}-synced; sync -f {PLANTED}-synced; echo written > {PLANTED}-written"

    def inject(lab: Lab) -> None:
        shell(lab, "worker_0", f"sudo sh -c {shlex.quote(words)}")
        case.inject(lab)

    return dataclasses.replace(case, inject=inject)


@pytest.fixture(scope="module")
def outcomes() -> list[Outcome]:
    """The outcomes of this lab's fault cases since one of them last gave something up."""
    return []


@pytest.mark.parametrize(
    "name", [name if name in SELECTION else pytest.param(name, marks=pytest.mark.second_tier) for name in fault_cases()]
)
def test_nothing_is_lost(cluster: Cluster, outcomes: list[Outcome], name: str) -> None:
    """Nor doubled, nor wrong, and the cluster is healthy again by itself: the next case waits for that before it begins."""
    heal_all(cluster.lab)
    case = fault_cases(targets_of(cluster.lab.plan))[name]
    with steps(f"fault {name}") as shown, shown.step(name) as say:
        found = run_case(cluster.lab, planting(case) if name == CUT else case, RATE, 1, say)
    for outcome in found:
        Results(commit()).add(outcome)
        console.print(line(outcome, several(found)), highlight=False, soft_wrap=True)
    if case.gives_up:
        outcomes.clear()
    else:
        outcomes += found
    assert all(outcome.clean for outcome in found), "\n".join(line(outcome, several(found)) for outcome in found)
    if name == CUT:
        # Else a power cut proves nothing about syncing.
        assert cluster.sh("worker_0", f"sudo cat {PLANTED}-synced").strip() == "synced"
        assert cluster.sh("worker_0", f"sudo cat {PLANTED}-written", ok=False) == ""
        cluster.sh("worker_0", f"sudo rm {PLANTED}-synced; sudo rm -f {PLANTED}-written")


def test_what_was_served_is_there_after_the_last_fault(cluster: Cluster, outcomes: list[Outcome]) -> None:
    """A later fault may take what an earlier one left."""
    if not outcomes:
        pytest.skip("no fault case was run on this lab before")
    for again in check_again(cluster.lab, outcomes, lambda words: None):
        console.print(line(again, several(outcomes)), highlight=False, soft_wrap=True)
        assert again.clean, line(again, several(outcomes))


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
    cluster.serve(RATE * 8)
    cluster.settle(run)
    cluster.sh("worker_2", "sudo systemctl restart influxdb && sudo berny-probe influxdb --wait 60")
    clean, report = cluster.check(run)
    assert clean, report
