"""A run of a timer: it continues from the last run's watermark, exclusively, and advances it after each completed step.

The calendar is systemd's (``Persistent=true``). The next run catches up on one that was missed, failed or was killed: the
watermark in the stage's state directory advances only after the work.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from berny.runtime import stage
from berny.runtime.disk import write_durably
from berny.runtime.stage import EnvironmentSettings, log

LOGGER = logging.getLogger("timer")
FILE = "timer.json"


class TimerSettings(EnvironmentSettings):
    """The environment of every timer."""

    berny_state_dir: Path


@dataclass(frozen=True)
class Step:
    """A completed part of a run, verified if possible."""

    watermark: Any
    """JSON: everything up to here is done. Take it from the data (an id, an offset): the clock may be wrong."""
    records: int = 0
    """The number of records that the sink has acknowledged."""


@dataclass(frozen=True)
class State:
    """The progress of a timer."""

    watermark: Any = None
    """None before the first step."""
    completed_at: str = ""
    """When a run last completed, UTC; empty if none has."""


Work = Callable[[Any], Iterable[Step]]
"""Works from a watermark to now, and yields a step whenever a part is done and durable."""


def read_state(folder: Path) -> State:
    """Return the progress of the timer with this state directory."""
    try:
        return State(**json.loads((folder / FILE).read_text()))
    except FileNotFoundError:
        return State()


def run(settings: TimerSettings, work: Work, stop: threading.Event) -> bool:
    """Run a timer once; return False if another run of it is active.

    A run that is stopped ends after the current step; a run that fails keeps the completed steps.
    """
    folder = settings.berny_state_dir
    with _alone(folder) as alone:
        if not alone:
            log(LOGGER, logging.WARNING, "another run of this timer is active: this one does nothing")
            return False
        stage.READY.set(1)
        since = time.monotonic()
        state = read_state(folder)
        records = 0
        for step in work(state.watermark):
            state = State(step.watermark, state.completed_at)
            _keep(folder, state)
            stage.RECORDS_OUT.inc(step.records)
            records += step.records
            if stop.is_set():
                log(
                    LOGGER,
                    logging.WARNING,
                    "stopped; the next run continues",
                    watermark=state.watermark,
                    records=records,
                )
                return True
        _keep(folder, State(state.watermark, time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())))
        seconds = time.monotonic() - since
        stage.BATCH_SECONDS.observe(seconds)
        log(
            LOGGER, logging.INFO, "the run is complete", watermark=state.watermark, records=records,
            seconds=round(seconds, 1),
        )  # fmt: skip
        return True


def _keep(folder: Path, state: State) -> None:
    write_durably(folder / FILE, json.dumps(asdict(state)))


@contextmanager
def _alone(folder: Path) -> Iterator[bool]:
    """Yield whether no other run holds the lock, which is released when its process ends."""
    handle = os.open(folder / f"{FILE}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(handle)
