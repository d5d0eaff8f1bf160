"""The set checker: the ground truth of what a source served against what each sink holds.

Definitions (docs/architecture.md, "Delivery"): *lost*, acknowledged and not in a sink that should have it (two identities
that overwrote each other count as lost); *duplicate*, one identity at two points, rows or lines; *wrong*, there with another
value; *unexpected*, in a sink but never served; *unspooled*, served whole but never kept.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Set
from dataclasses import dataclass, field
from typing import Any

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
    component: str = ""
    """Where the sink is kept."""

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

    def as_dict(self) -> dict[str, Any]:
        """Return the counts for JSON."""
        counts = {word: len(getattr(self, word)) for word in ("lost", "wrong", "unexpected")}
        where = {"component": self.component, "transport": self.duplicates_allowed}
        return {"found": self.found, "duplicate": self.duplicate, **counts, **where}


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
    component: str = "",
) -> SinkReport:
    """Hold a sink's records (identity, value) against what is expected of it.

    Args:
        sink: its name.
        records: what it holds.
        expected: the value of each identity that it should hold.
        served: every identity that was ever served, in whatever run.
        duplicates_allowed: for topics.
        component: where the sink is kept.
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
        component=component,
    )


# -- the ground truth ----------------------------------------------------------------------------------------------

Expected = Callable[[dict[str, Any]], tuple[Hashable, float | None]]
"""Returns, of a line of the ground truth that is an observation, its value and the Unix time that it was recorded at."""


@dataclass
class Truth:
    """What was served: the value by identity, of some runs and of all; when each was served first, in which response."""

    expected: dict[str, Hashable]
    served: set[str]
    at: dict[str, float]
    answer: dict[str, tuple[str, int]]
    spooled: set[str]
    """What the spool says that it has kept."""
    recorded: dict[str, float]
    """Unix time."""

    def kept(self, seconds: float) -> dict[str, Hashable]:
        """Return what is expected of a sink that takes nothing older than so many seconds."""
        too_old = {one for one, moment in self.recorded.items() if moment < self.at[one] - seconds}
        return {one: value for one, value in self.expected.items() if one not in too_old}


def read_truth(lines: Iterable[str], expected: Expected, runs: Collection[str] | None = None) -> Truth:
    """Read a simulator's ground truth; only responses that were written to the socket whole are expected anywhere.

    A line is an observation (``run``, ``answer``, ``identity``, ``at`` and what ``expected`` reads), or says that a response
    was ``served`` whole. The source may repeat itself: an observation belongs to the run that served it first. Lines of
    ``spooled`` may follow.
    """
    answers: dict[tuple[str, int], list[dict[str, Any]]] = {}
    whole: set[tuple[str, int]] = set()
    truth = Truth({}, set(), {}, {}, set(), {})
    for line in lines:
        entry = json.loads(line)
        if "spooled" in entry:
            truth.spooled.add(entry["spooled"])
            continue
        key = (entry["run"], entry["answer"])
        if entry.get("served"):
            whole.add(key)
        elif "identity" in entry:
            answers.setdefault(key, []).append(entry)
    first: dict[str, str] = {}
    for key, entries in answers.items():
        for entry in entries:
            identity = entry["identity"]
            truth.served.add(identity)
            own = first.setdefault(identity, key[0])
            if key in whole and (runs is None or own in runs):
                truth.expected[identity], recorded = expected(entry)
                truth.at.setdefault(identity, entry["at"])
                truth.answer.setdefault(identity, key)
                if recorded is not None:
                    truth.recorded[identity] = recorded
    return truth


# -- all sinks of a pipeline ---------------------------------------------------------------------------------------


def same(value: Any) -> Hashable:
    """Return what a sink is to hold that keeps the value."""
    return value


def present(value: Any) -> Hashable:
    """Return what a sink is to hold of which only the identities are read."""
    return True


@dataclass(frozen=True)
class Sink:
    """One sink of a pipeline, and how it is read."""

    name: str
    component: str
    """Where it is kept."""
    read: Callable[[float], Iterable[tuple[str, Hashable]]]
    """Returns identity and value of what it got since a Unix time."""
    expects: Callable[[Any], Hashable] = same
    """Returns, of an observation's value, what the sink is to hold."""
    transport: bool = False
    """Delivered to at least once: duplicates are counted and no more."""
    keep: float = math.inf
    """It takes nothing that was recorded longer ago than so many seconds."""
    audit: Callable[[], list[SinkReport]] = list
    """Reports what the last reading found beside the identities."""


def check(sinks: Iterable[Sink], truth: Truth, since: float = 0) -> Report:
    """Return the report over what came into all sinks since a Unix time."""
    held = [(sink, list(sink.read(since))) for sink in sinks]
    # The spool forgets in the end: what a sink has was kept as well.
    kept = truth.spooled.union(*({identity for identity, _ in records} for _, records in held))
    unspooled = frozenset(truth.expected.keys() - kept)
    reports = []
    for sink, records in held:
        due = {one: sink.expects(value) for one, value in truth.kept(sink.keep).items() if one not in unspooled}
        words = {"duplicates_allowed": sink.transport, "component": sink.component}
        reports += [check_sink(sink.name, records, due, truth.served, **words), *sink.audit()]  # type: ignore[arg-type]
    return Report(len(truth.expected), unspooled, reports)
