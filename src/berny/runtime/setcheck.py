"""The set checker: what a source served against what each sink holds.

Definitions ("Definitions" in docs/design/delivery.md): *lost*, acknowledged and not in a sink that should have it (two
identities that overwrote each other count as lost); *duplicate*, one identity at two points, rows or lines; *wrong*, there
with another value; *unexpected*, in a sink but never served; *unspooled*, served whole but never kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Set
from dataclasses import dataclass, field

EXAMPLES = 3


@dataclass(frozen=True)
class SinkReport:
    """What is wrong with one sink; ``duplicates_allowed`` for transport, where they are counted and no more."""

    sink: str
    found: int
    lost: frozenset[str]
    duplicate: int
    wrong: frozenset[str]
    unexpected: frozenset[str]
    duplicates_allowed: bool = False

    @property
    def clean(self) -> bool:
        """Tell whether nothing is wrong."""
        return not (self.lost or self.wrong or self.unexpected or (self.duplicate and not self.duplicates_allowed))

    def __str__(self) -> str:
        parts = [f"{self.sink}: {self.found} found", f"{len(self.lost)} lost", f"{self.duplicate} duplicate"]
        parts += [f"{len(self.wrong)} wrong", f"{len(self.unexpected)} unexpected"]
        examples = [
            f"{name}: {', '.join(sorted(which)[:EXAMPLES])}"
            for name, which in (("lost", self.lost), ("wrong", self.wrong), ("unexpected", self.unexpected))
            if which
        ]
        return ", ".join(parts) + (f" ({'; '.join(examples)})" if examples else "")


@dataclass(frozen=True)
class Report:
    """All sinks, and what was served whole but never kept."""

    expected: int
    unspooled: frozenset[str]
    sinks: list[SinkReport] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Tell whether nothing is wrong; a run that expected nothing proves nothing and is not clean."""
        return bool(self.expected) and not self.unspooled and all(sink.clean for sink in self.sinks)

    def __str__(self) -> str:
        lines = [f"{self.expected} expected, {len(self.unspooled)} unspooled", *map(str, self.sinks)]
        return "\n".join(lines)


def check_sink(
    sink: str,
    records: Iterable[tuple[str, Hashable]],
    expected: Mapping[str, Hashable],
    served: Set[str],
    *,
    duplicates_allowed: bool = False,
) -> SinkReport:
    """Hold a sink's records (identity, value) against what is expected of it.

    Args:
        sink: its name.
        records: what it holds.
        expected: the value of each identity that it should hold.
        served: every identity that was ever served, in whatever run.
        duplicates_allowed: for topics.
    """
    values: dict[str, set[Hashable]] = {}
    counts: Counter[str] = Counter()
    for identity, value in records:
        counts[identity] += 1
        values.setdefault(identity, set()).add(value)
    return SinkReport(
        sink,
        found=len(values.keys() & expected.keys()),
        lost=frozenset(expected.keys() - values.keys()),
        duplicate=sum(count - 1 for identity, count in counts.items() if identity in expected),
        wrong=frozenset(i for i, value in expected.items() if i in values and values[i] != {value}),
        unexpected=frozenset(values.keys() - served),
        duplicates_allowed=duplicates_allowed,
    )
