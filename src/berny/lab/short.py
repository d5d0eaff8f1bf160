"""A short measurement, compared with the same one in docs/figures.md, which another machine may have made."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median

CALIBRATION = "calibration, ms"
"""The figure that all others are relative to."""
TIMES = (", ms", ", s")
"""How the name of a figure that is a time ends."""
WORSE = 2.0
"""How many times a figure may be that of the page."""
ROW = re.compile(r"^\| ([^|]+) \| ([0-9.]+) \|", re.M)


def calibrate(times: int = 9) -> float:
    """Return how long a fixed piece of work takes here, in milliseconds: a median of several times."""

    def once() -> float:
        since = time.perf_counter()
        value = [{"number": number, "text": "x" * 64} for number in range(2000)]
        for _ in range(5):
            hashlib.sha256(json.dumps(json.loads(json.dumps(value))).encode() * 4).hexdigest()
        return 1000 * (time.perf_counter() - since)

    return median(once() for _ in range(times))


@dataclass(frozen=True)
class Beside:
    """A figure, of which more is worse, and that of the page."""

    name: str
    now: float
    page: float | None
    """None where the page has none."""
    speed: float
    """How many times as long as then the calibration takes now."""

    @property
    def ratio(self) -> float | None:
        """Return how many times the page's figure it is, were the machines equally fast."""
        return self.now / self.page / self.speed if self.page else None

    @property
    def worse(self) -> bool:
        """Return whether it is more than ``WORSE`` times as bad."""
        return self.ratio is not None and self.ratio > WORSE


def on_page(page: str, command: str) -> dict[str, float]:
    """Return the figures that a page of ``figures.markdown`` has of a command, by name."""
    section = re.search(rf"^### `{re.escape(command)}`$(.*?)(?=^#|\Z)", page, re.M | re.S)
    return {name: float(value) for name, value in ROW.findall(section[1])} if section else {}


def beside(now: Mapping[str, float], page: Mapping[str, float]) -> list[Beside]:
    """Return each figure with that of the page; both mappings have the calibration, or the page has nothing.

    Only times depend on the speed of the machine.
    """
    speed = now[CALIBRATION] / page[CALIBRATION] if CALIBRATION in page else 1.0
    return [
        Beside(name, value, page.get(name), speed if name.endswith(TIMES) else 1.0)
        for name, value in now.items()
        if name != CALIBRATION
    ]
