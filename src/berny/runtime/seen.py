"""Which observations were seen, as ranges: for sources that number their observations from 1 on.

An identity is ``SOURCE:NUMBER``. A topic repeats observations after a failure, in any order; once all of a source were seen,
they are one range, so the state stays small.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

SOURCES = 1000
"""As many sources are remembered: those that were seen last."""

Ranges = list[list[int]]
"""First and last number of each range, inclusive, in order, with gaps between."""


def parted(identity: str) -> tuple[str, int]:
    """Return source and number of an identity.

    Raises:
        ValueError: it has no number.
    """
    source, _, number = identity.rpartition(":")
    return source, int(number)


class Seen:
    """The observations that were seen, by source.

    Args:
        ranges: what ``ranges`` of a former one had, which JSON can represent.
        most: how many sources are remembered.
    """

    def __init__(self, ranges: dict[str, Ranges] | None = None, most: int = SOURCES) -> None:
        self.ranges = {source: [list(one) for one in found] for source, found in (ranges or {}).items()}
        self._most = most

    def __contains__(self, identity: str) -> bool:
        source, number = parted(identity)
        found = self.ranges.get(source, [])
        after = bisect_right(found, number, key=lambda one: one[0])
        return after > 0 and number <= found[after - 1][1]

    def add(self, identities: Iterable[str]) -> None:
        """Add observations, and forget the sources that were added to least recently."""
        numbers: dict[str, set[int]] = {}
        for source, number in map(parted, identities):
            numbers.setdefault(source, set()).add(number)
        for source, found in numbers.items():
            merged: Ranges = []
            for first, last in sorted([*self.ranges.pop(source, []), *([one, one] for one in found)]):
                if merged and first <= merged[-1][1] + 1:
                    merged[-1][1] = max(merged[-1][1], last)
                else:
                    merged.append([first, last])
            self.ranges[source] = merged
        for source in list(self.ranges)[: -self._most]:
            del self.ranges[source]
