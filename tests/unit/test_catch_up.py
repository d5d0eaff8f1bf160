"""How fast a pipeline catches up: what is stopped, and what is computed of it."""

from __future__ import annotations

import pytest

from berny.lab.catch_up import CatchUp, behind
from berny.lab.plan import LabError


def test_what_is_stored_per_second_is_compared_with_the_rate() -> None:
    found = CatchUp(rate=100, observations=360_000, published_in=360, first=20, seconds=90)
    assert (found.published_per_second, found.per_second, found.times_real_time) == (1000, 4000, 40)


@pytest.mark.parametrize(
    ("pipeline", "stopped"),
    [
        ("idfm", {"berny-idfm-analytics", "berny-idfm-influx-consumer"}),
        ("openweather", {"berny-openweather-consumer"}),
    ],
)
def test_stages_with_a_spool_and_timers_are_left_alone(pipeline: str, stopped: set[str]) -> None:
    """The source is polled all the time, and a timer reads what is in its table when it runs."""
    found = behind(pipeline, {"broker": ["a"]})
    assert set(found) == stopped


def test_a_stage_that_can_not_wait_is_refused_by_name() -> None:
    """A timer, the stage with the spool, a word with a mistake."""
    assert set(behind("idfm", {"broker": ["a"]}, ["analytics"])) == {"berny-idfm-analytics"}
    with pytest.raises(
        LabError, match="idfm has no such stage that could wait: analytic, producer; there are analytics, "
    ):
        behind("idfm", {"broker": ["a"]}, ["producer", "analytic"])
