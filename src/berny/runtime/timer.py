"""A timer's run: it works from where the last one came to, alone, and notes how far it has come once that is done.

The calendar is systemd's (``Persistent=true``). A run that was missed, failed or was killed is made up by the next one: the
watermark in the stage's state directory moves only after the work that it stands for.
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
    """What every timer finds in its environment."""

    berny_state_dir: Path


@dataclass(frozen=True)
class Step:
    """A part of a run that is done, and verified where it can be."""

    watermark: Any
    """JSON: everything up to here is done. Take it from the data (an id, an offset): the clock may be wrong."""
    records: int = 0
    """How many the sink has acknowledged."""


@dataclass(frozen=True)
class State:
    """How far a timer has come."""

    watermark: Any = None
    """None: it has never done anything."""
    completed_at: str = ""
    """When a run last came to its end, UTC; empty if none has."""


Work = Callable[[Any], Iterable[Step]]
"""Works from a watermark to now, and yields a step each time that something is done for good."""


def read_state(folder: Path) -> State:
    """Return how far a timer has come, by its state directory."""
    try:
        return State(**json.loads((folder / FILE).read_text()))
    except FileNotFoundError:
        return State()


def run(settings: TimerSettings, work: Work, stop: threading.Event) -> bool:
    """Run a timer once; False where another run of it is at work.

    A run that is stopped ends after the step at hand; one that fails keeps the steps that it has done.
    """
    folder = settings.berny_state_dir
    with _alone(folder) as alone:
        if not alone:
            log(LOGGER, logging.WARNING, "a run of this timer is at work: this one does nothing")
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
                    LOGGER, logging.WARNING, "stopped; the next run goes on", watermark=state.watermark, records=records
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
    """Yield whether no other run holds the lock, which ends with the process that has it."""
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
