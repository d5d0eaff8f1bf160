"""Durations of a converge."""

from __future__ import annotations

import pytest

from berny.lab.convergence import CHANGED, Converge, durations, slowest

RECAP = """
master                     : ok=38   changed=2    unreachable=0    failed=0    skipped=18
worker_0                   : ok=22   changed=11   unreachable=0    failed=0    skipped=14
"""


def test_a_task_lasts_until_the_next_one_begins() -> None:
    """One that runs twice, as the role service does, counts as one."""
    starts = [("play", 10.0), ("node : a", 10.5), ("service : b", 12.0), ("node : a", 15.0)]
    assert durations(starts, 15.25) == pytest.approx({"play": 0.5, "node : a": 1.75, "service : b": 3.0})


def test_the_slowest_tasks_are_those_of_the_median_run() -> None:
    runs = [Converge(9, 0, {"a": 1.0, "b": 5.0}), Converge(9, 0, {"a": 3.0}), Converge(9, 0, {"a": 2.0, "b": 4.0})]
    assert list(slowest(runs, 2).items()) == [("b", 4.0), ("a", 2.0)]
    assert list(slowest(runs, 1)) == ["b"]


def test_changes_are_counted_over_all_hosts() -> None:
    assert list(map(int, CHANGED.findall(RECAP))) == [2, 11]
