"""Compares ways of doing one thing: all of them in turn, several times in one run, and prints medians, spread and ratio."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from statistics import median

from rich.console import Console

from berny.lab.figures import Sheet, show_table

Measured = Mapping[str, float]
"""Figures of one try by their name and unit, such as ``records/s``."""


def compare(title: str, sides: Mapping[str, Callable[[], Measured]], times: int) -> None:
    """Measure each side ``times`` times, in turn, and print a table; ratios are to the side that is named first."""
    console = Console()
    found: dict[str, list[Measured]] = {side: [] for side in sides}
    for number in range(times):
        for side, measure in sides.items():
            found[side].append(measure())
            said = ", ".join(f"{value:,.1f} {name}" for name, value in found[side][-1].items())
            console.print(f"{title}, {side} ({number + 1} of {times}): {said}", highlight=False)
    rows: list[list[str]] = []
    first = next(iter(sides))
    for name in found[first][0]:
        base = median(one[name] for one in found[first])
        for side, tries in found.items():
            values = sorted(one[name] for one in tries)
            middle = median(values)
            ratio = f"{middle / base:.2f}" if base else ""
            rows.append([name, side, *(f"{one:,.1f}" for one in (middle, values[0], values[-1])), ratio])
    show_table(Sheet(title, ["figure", "side", "median", "from", "to", "ratio"], rows), console)
