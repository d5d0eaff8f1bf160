"""Raw answers on their way to HDFS: when a file is due, and which days go. HDFS itself is asked on the lab."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from berny.runtime.landing import Landing, expired
from berny.runtime.spool import Spool

DAY = 86400.0
NOW = 20_000 * DAY
"""A day's first second: 2024-10-04 UTC."""
KEEP = 90 * DAY


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    """An empty spool that only HDFS reads."""
    made = Spool(tmp_path, 1 << 30, ["hdfs"])
    yield made
    made.close()


# -- retention ---------------------------------------------------------------------------------------------------------


def days(*ages: float) -> dict[str, float]:
    """Return days by name that were last written to so many days ago."""
    return {f"dt={age:g}": NOW - age * DAY for age in ages}


def test_days_go_when_they_are_over_age() -> None:
    """Counted from the newest day but one."""
    assert expired(days(0, 1, 90, 91, 92, 200), NOW, KEEP) == ["dt=200", "dt=92"]
    assert expired(days(0), NOW, KEEP) == expired({}, NOW, KEEP) == []


@pytest.mark.parametrize("ahead", [1 * DAY, 400 * DAY, 40_000 * DAY])
def test_clock_that_is_far_ahead_drops_no_day(ahead: float) -> None:
    """For a second, with nothing written; and after it, or still in it, with a day that it has written."""
    kept = days(0, 1, 40, 89)
    assert expired(kept, NOW + ahead, KEEP) == []
    written = kept | {"dt=ahead": NOW + ahead}
    assert expired(written, NOW + ahead, KEEP) == []
    assert expired(written | {"dt=next": NOW + ahead + DAY}, NOW, KEEP) == []


def test_clock_that_is_behind_drops_no_day() -> None:
    """It keeps more than it has to, never less; and what was written under an old name is new."""
    assert expired(days(0, 1, 91, 200), NOW - 150 * DAY, KEEP) == []
    assert expired(days(0, 1) | {"dt=1970-01-01": NOW}, NOW, KEEP) == []


def test_pipeline_that_was_off_for_long_drops_nothing_at_once() -> None:
    """What it had stays until it has written two new days."""
    assert expired(days(100, 101, 150), NOW, KEEP) == []
    assert expired(days(0, 100, 101, 150), NOW, KEEP) == []
    assert expired(days(0, 1, 100, 101, 150), NOW, KEEP) == ["dt=100", "dt=101", "dt=150"]


# -- files -------------------------------------------------------------------------------------------------------------


def planned(spool: Spool) -> tuple[int, int, str] | None:
    """Return first offset, last offset and path of the file that is due."""
    return Landing("http://127.0.0.1:9", "idfm", "/raw", 300, 1 << 20)._plan(spool, spool.cursor("hdfs"), False)


def test_answer_fetched_in_the_future_is_not_waited_for(spool: Spool) -> None:
    """The clock was hours ahead when it was fetched: its file is due now, and not when that moment has come."""
    now = time.time()
    offset = spool.append(b"{}", now - 10)
    assert planned(spool) is None
    spool.advance("hdfs", offset)
    ahead = spool.append(b"{}", now + 5 * 3600)
    found = planned(spool)
    assert found and found[:2] == (ahead, ahead)


def test_a_file_holds_neighbours_of_one_day(spool: Spool) -> None:
    """One that a wrong clock has put between them ends the file; none is filed under another's day."""
    today = [spool.append(b"{}", NOW + second) for second in range(3)]
    ahead = spool.append(b"{}", NOW + 400 * DAY)
    spool.append(b"{}", NOW + 4)
    assert planned(spool) == (today[0], today[-1], f"/raw/dt=2024-10-04/raw-{today[0]:020d}-{today[-1]:020d}.jsonl")
    spool.advance("hdfs", today[-1])
    found = planned(spool)
    assert found and found[:2] == (ahead, ahead) and "/dt=2025-11-08/" in found[2]
