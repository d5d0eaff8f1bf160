"""End-to-end latency out of the ground truth and of counts."""

from __future__ import annotations

import json
from typing import Any

import pytest

from berny.lab.latency import Latency, latencies, served


def lines(*entries: dict[str, Any]) -> list[str]:
    """Return lines of a ground truth, of the run ``r`` unless they say otherwise."""
    return [json.dumps({"run": "r"} | entry) for entry in entries]


def test_observations_count_from_the_moment_that_their_response_was_complete() -> None:
    truth = lines(
        {"answer": 1, "identity": "a", "at": 1.0},
        {"answer": 2, "identity": "b", "at": 1.5},
        {"answer": 1, "identity": "c", "at": 1.0},
        {"answer": 2, "served": True, "at": 2.0},
        {"answer": 1, "served": True, "at": 3.0},
    )
    assert served(truth, "r", 0) == [2.0, 3.0, 3.0]


def test_what_was_cut_off_or_is_of_another_run_is_not_expected() -> None:
    truth = lines(
        {"answer": 1, "identity": "a", "at": 1.0},
        {"answer": 2, "identity": "b", "at": 1.0, "run": "other"},
        {"answer": 2, "served": True, "at": 2.0, "run": "other"},
    )
    assert served(truth, "r", 0) == []


def test_an_observation_that_is_served_again_counts_once() -> None:
    """From its first complete response, whichever run that was of."""
    truth = lines(
        {"answer": 1, "identity": "a", "at": 1.0, "run": "before"},
        {"answer": 1, "served": True, "at": 1.5, "run": "before"},
        {"answer": 2, "identity": "b", "at": 2.0},
        {"answer": 3, "identity": "a", "at": 3.0},
        {"answer": 3, "identity": "b", "at": 3.0},
        {"answer": 3, "identity": "c", "at": 3.0},
        {"answer": 3, "served": True, "at": 3.5},
        {"answer": 4, "identity": "b", "at": 4.0},
        {"answer": 4, "served": True, "at": 4.5},
    )
    assert served(truth, "r", 0) == [3.5, 3.5]


def test_what_was_recorded_long_before_is_left_out() -> None:
    """The query does not count it; a source that does not say when it has recorded something is believed."""
    times = ("1970-01-01T00:01:39Z", "1970-01-01T00:01:41.000+00:00", "no time", None)
    told = [{"answer": 1, "identity": name, "recorded_at": at} for name, at in zip("abcd", times, strict=True)]
    truth = lines(*told, {"answer": 1, "identity": "e"}, {"answer": 1, "served": True, "at": 102.0})
    assert served(truth, "r", 100) == [102.0] * 4


def test_an_observation_is_there_once_as_many_are_stored() -> None:
    found = latencies([10.0, 10.0, 11.0, 12.0], [(9.0, 0), (10.5, 1), (10.75, 3), (12.0, 3), (14.0, 4)])
    assert found == [-0.25, 0.5, 0.75, 2.0]


def test_what_is_not_stored_is_missing() -> None:
    found = Latency(1, 1, 3, latencies([1.0, 2.0, 3.0], [(1.5, 1), (2.5, 2)]))
    assert found.missing == 1


def test_more_than_was_served_is_counted_once() -> None:
    assert latencies([1.0], [(1.5, 5), (2.0, 6)]) == [0.5]


@pytest.mark.parametrize(
    ("count", "p50", "p99"), [(1, 0.0, 0.0), (2, 1.0, 1.0), (100, 50.0, 99.0), (1000, 500.0, 990.0)]
)
def test_quantiles_are_of_the_nearest_rank(count: int, p50: float, p99: float) -> None:
    found = Latency(1, 1, count, [float(number) for number in range(count)]).quantiles()
    assert (found["p50"], found["p99"], found["max"]) == (p50, p99, count - 1)
