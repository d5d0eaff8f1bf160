"""How long ``site.yml`` takes on a lab, by task."""

from __future__ import annotations

import re
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from berny.controller.progress import Say
from berny.lab.lab import Lab
from berny.lab.make import play

CHANGED = re.compile(r"^\w+ +: .*\bchanged=(\d+)", re.M)


@dataclass(frozen=True)
class Converge:
    """One run."""

    seconds: float
    changed: int
    """Tasks that changed something, over all hosts."""
    tasks: dict[str, float]
    """Seconds by title; what a play does before its first task counts for the play."""


def durations(starts: Sequence[tuple[str, float]], end: float) -> dict[str, float]:
    """Return how long each title took, from when each began and when the last of them ended."""
    found: dict[str, float] = defaultdict(float)
    for (title, begin), (_, following) in pairwise([*starts, ("", end)]):
        found[title] += following - begin
    return dict(found)


def measure(lab: Lab, say: Say, *options: str) -> Converge:
    """Converge the lab, with further options of ansible-playbook.

    Raises:
        LabError: the run failed.
    """
    starts: list[tuple[str, float]] = []

    def began(title: str) -> None:
        starts.append((title, time.monotonic()))
        say(title)

    since = time.monotonic()
    output = play(lab, "site.yml", began, *options)
    end = time.monotonic()
    return Converge(end - since, sum(map(int, CHANGED.findall(output))), durations(starts, end))


def slowest(runs: Sequence[Converge], count: int) -> dict[str, float]:
    """Return the tasks that took longest, in seconds: the median of all runs, 0 where one had no such task."""
    titles = {title for run in runs for title in run.tasks}
    found = {title: median(run.tasks.get(title, 0.0) for run in runs) for title in titles}
    return dict(sorted(found.items(), key=lambda pair: -pair[1])[:count])
