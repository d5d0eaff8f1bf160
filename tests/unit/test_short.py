"""The short form of the bench: figures beside those of the page, made comparable by a calibration."""

from __future__ import annotations

import pytest

from berny.lab import figures, short
from berny.lab.figures import Figures, Sheet
from berny.lab.short import CALIBRATION, beside, calibrate, on_page

COMMAND = "berny bench short"


def page(command: str, **found: float) -> str:
    """Return a page with one result."""
    rows = [[name, f"{value:.1f}"] for name, value in found.items()]
    return figures.markdown([Figures(command, [Sheet("short form", ["figure", "value"], rows)], "m", "c", "d", "l")])


def test_the_page_of_a_command_is_read_and_no_other() -> None:
    text = (
        page(f"{COMMAND} --all", a=1) + page(COMMAND, **{CALIBRATION: 20, "time, s": 17.5}) + "## Kafka\n\n| x | 3 |\n"
    )
    assert on_page(text, COMMAND) == {CALIBRATION: 20, "time, s": 17.5}
    assert on_page(text, "berny bench other") == {}


@pytest.mark.parametrize(
    ("now", "speed", "ratio", "worse"),
    [(19, 1, 1.9, False), (21, 1, 2.1, True), (30, 2, 1.5, False), (10, 0.4, 2.5, True)],
)
def test_a_slower_machine_may_take_longer(now: float, speed: float, ratio: float, worse: bool) -> None:
    time, size = beside(
        {CALIBRATION: 30 * speed, "time, s": now, "memory, MiB": 15},
        {CALIBRATION: 30, "time, s": 10, "memory, MiB": 10},
    )
    assert time.ratio == pytest.approx(ratio)
    assert time.worse is worse
    assert size.ratio == 1.5 and not size.worse


def test_what_the_page_does_not_have_is_shown_and_not_judged() -> None:
    """On the first day, say, or a figure that is new."""
    one = beside({CALIBRATION: 30, "time": 10}, {})[0]
    assert (one.now, one.page, one.ratio, one.worse) == (10, None, None, False)


def test_the_calibration_measures_something() -> None:
    assert calibrate(1) > 0
    assert short.WORSE > 1
