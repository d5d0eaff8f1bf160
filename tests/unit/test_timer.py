"""A timer's runs: none at the same time as another, none that forgets what was missed, none that moves before it is done."""

from __future__ import annotations

import calendar
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from berny.runtime.stage import ConfigurationError
from berny.runtime.timer import FILE, State, Step, TimerSettings, read_state, run

PROGRAM = """
import sys, time
from pathlib import Path
from berny.runtime import stage, timer
from berny.runtime.timer import Step, TimerSettings

def work(watermark):
    for number in range((watermark or 0) + 1, 4):
        print(number, flush=True)
        if number == 3:
            time.sleep(float(sys.argv[1]))
        yield Step(number)

def main(settings, stop):
    print("ran" if timer.run(settings, work, stop) else "did not run", flush=True)

stage.main(TimerSettings, main)
"""


class Export:
    """Rows of a table that are copied to a list, two at a time, and verified before a step is done."""

    def __init__(self, *rows: int) -> None:
        self.rows = list(rows)
        self.copied: list[int] = []
        self.began: list[int | None] = []
        self.fail_at: int | None = None
        self.wrong: Exception = OSError("HDFS is away")

    def work(self, watermark: int | None) -> Iterator[Step]:
        """Copy what is after the watermark."""
        self.began.append(watermark)
        waiting = [row for row in sorted(self.rows) if row > (watermark or 0)]
        for first in range(0, len(waiting), 2):
            some = waiting[first : first + 2]
            if self.fail_at in some:
                raise self.wrong
            self.copied += some
            yield Step(some[-1], len(some))


def settings(folder: Path) -> TimerSettings:
    """Return the settings of a timer with that state directory."""
    return TimerSettings(berny_pipeline="p", berny_stage="s", berny_metrics_port=1, berny_state_dir=folder)


def test_run_works_from_the_watermark(tmp_path: Path) -> None:
    """The first one on everything, the next on what came since; a run with nothing to do moves nothing."""
    export = Export(1, 2, 3)
    assert run(settings(tmp_path), export.work, threading.Event())
    export.rows += [4, 5]
    for _ in range(2):
        assert run(settings(tmp_path), export.work, threading.Event())
    assert export.began == [None, 3, 5]
    assert export.copied == [1, 2, 3, 4, 5]
    state = read_state(tmp_path)
    assert state.watermark == 5
    assert abs(time.time() - calendar.timegm(time.strptime(state.completed_at, "%Y-%m-%dT%H:%M:%SZ"))) < 60


def test_run_that_fails_is_made_up(tmp_path: Path) -> None:
    """What it had done stays done, and is not done again; what it had not is the next one's."""
    export = Export(1, 2, 3, 4, 5)
    export.fail_at = 4
    with pytest.raises(OSError, match="HDFS is away"):
        run(settings(tmp_path), export.work, threading.Event())
    assert read_state(tmp_path) == State(2, "")
    export.fail_at = None
    run(settings(tmp_path), export.work, threading.Event())
    assert export.began == [None, 2]
    assert export.copied == [1, 2, 3, 4, 5]


def test_run_that_needs_a_person_says_so(tmp_path: Path) -> None:
    """``stage.main`` ends it with 78, and the watermark stays."""
    export = Export(1)
    export.fail_at, export.wrong = 1, ConfigurationError("no such table: run site.yml")
    with pytest.raises(ConfigurationError):
        run(settings(tmp_path), export.work, threading.Event())
    assert read_state(tmp_path) == State()


def test_run_that_is_stopped_ends_after_its_step(tmp_path: Path) -> None:
    """It is not complete, and the next one goes on."""
    export, stop = Export(1, 2, 3, 4), threading.Event()
    stop.set()
    run(settings(tmp_path), export.work, stop)
    assert read_state(tmp_path) == State(2, "")
    run(settings(tmp_path), export.work, threading.Event())
    assert export.copied == [1, 2, 3, 4]


def test_watermark_can_be_any_json(tmp_path: Path) -> None:
    """Days with when each was changed, for example."""
    seen: list[object] = []

    def work(watermark: dict[str, float] | None) -> Iterator[Step]:
        seen.append(watermark)
        yield Step({"2025-11-24": 1763985600.5})

    for _ in range(2):
        run(settings(tmp_path), work, threading.Event())
    assert seen == [None, {"2025-11-24": 1763985600.5}]


def test_state_that_was_cut_off_while_it_was_written_is_the_former(tmp_path: Path) -> None:
    """A power cut leaves the file beside it, which nobody reads."""
    run(settings(tmp_path), Export(1, 2).work, threading.Event())
    (tmp_path / f".{FILE}").write_text('{"waterm')
    assert read_state(tmp_path).watermark == 2
    run(settings(tmp_path), Export(1, 2, 3).work, threading.Event())
    assert json.loads((tmp_path / FILE).read_text())["watermark"] == 3


# -- processes ---------------------------------------------------------------------------------------------------------


def start(folder: Path, sleep: float = 0) -> subprocess.Popen[str]:
    """Start a run as its unit does."""
    variables = {"BERNY_PIPELINE": "p", "BERNY_STAGE": "s", "BERNY_METRICS_PORT": "0", "BERNY_STATE_DIR": str(folder)}
    variables["PYTHONPATH"] = str(Path(__file__).resolve().parents[2] / "src")
    command = [sys.executable, "-c", PROGRAM, str(sleep)]
    return subprocess.Popen(command, env=os.environ | variables, stdout=subprocess.PIPE, text=True)


def until_its_last_step(process: subprocess.Popen[str]) -> None:
    """Read what a process prints until it sleeps within its last step."""
    assert process.stdout
    while process.stdout.readline() != "3\n":
        assert process.poll() is None


def test_two_runs_do_not_overlap(tmp_path: Path) -> None:
    """The second one does nothing, and is no failure; once the first has ended, the next works again."""
    with start(tmp_path, 60) as first:
        try:
            until_its_last_step(first)
            with start(tmp_path) as second:
                said, _ = second.communicate(timeout=30)
            assert (said, second.returncode) == ("did not run\n", 0)
        finally:
            first.kill()
    with start(tmp_path) as third:
        said, _ = third.communicate(timeout=30)
    assert said == "3\nran\n"


def test_run_that_was_killed_is_made_up(tmp_path: Path) -> None:
    """Its lock goes with it, the steps that it had done stay, and the one at hand is done again."""
    with start(tmp_path, 60) as first:
        until_its_last_step(first)
        first.send_signal(signal.SIGKILL)
        first.communicate(timeout=30)
    assert read_state(tmp_path) == State(2, "")
    with start(tmp_path) as second:
        said, _ = second.communicate(timeout=30)
    assert said == "3\nran\n"
    assert read_state(tmp_path).watermark == 3
