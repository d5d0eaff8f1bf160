"""The set checker: compares the contents of each sink with the ground truth of what a source served.

Definitions (docs/design/delivery.md): *lost*, acknowledged and not in a sink that should have it (two identities that
overwrote each other count as lost); *duplicate*, one identity at two points, rows or lines; *wrong*, stored with another
value; *unexpected*, in a sink but never served; *unspooled*, served completely but never stored.
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
    """Differences found in one sink. ``duplicates_allowed`` is for transport, where duplicates are only counted."""

    sink: str
    found: int
    lost: frozenset[str]
    duplicate: int
    wrong: frozenset[str]
    unexpected: frozenset[str]
    duplicates_allowed: bool = False
    component: str = ""
    """Stores the sink."""

    @property
    def clean(self) -> bool:
        """Return whether there are no differences."""
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
    """The reports of all sinks, and what was served completely but never stored."""

    expected: int
    unspooled: frozenset[str]
    sinks: list[SinkReport] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Return whether there are no differences; a run that expected nothing proves nothing and is not clean."""
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
    """Compare a sink's records (identity, value) with the expected ones.

    Args:
        sink: its name.
        records: its contents.
        expected: the value of each identity that it should contain.
        served: every identity that was ever served, in any run.
        duplicates_allowed: for topics.
        component: stores the sink.
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
"""Returns, for an observation in the ground truth, its value and the Unix time that it was recorded at."""


@dataclass
class Truth:
    """What was served, by identity: ``expected`` in some runs, ``served`` in all; and when first, in which response."""

    expected: dict[str, Hashable]
    served: set[str]
    at: dict[str, float]
    answer: dict[str, tuple[str, int]]
    spooled: set[str]
    """Identities that the spool has stored."""
    recorded: dict[str, float]
    """Unix time."""

    def kept(self, seconds: float) -> dict[str, Hashable]:
        """Return what is expected in a sink that accepts nothing older than ``seconds``."""
        too_old = {one for one, moment in self.recorded.items() if moment < self.at[one] - seconds}
        return {one: value for one, value in self.expected.items() if one not in too_old}


def read_truth(lines: Iterable[str], expected: Expected, runs: Collection[str] | None = None) -> Truth:
    """Read a simulator's ground truth; only observations of responses that were sent completely are expected.

    A line is an observation (``run``, ``answer``, ``identity``, ``at`` and what ``expected`` reads), or records that a
    response was ``served`` completely. The source may repeat itself: an observation belongs to the run that served it first.
    Lines of ``spooled`` may follow.
    """
    answers: dict[tuple[str, int], list[dict[str, Any]]] = {}
    completed: set[tuple[str, int]] = set()
    truth = Truth({}, set(), {}, {}, set(), {})
    for line in lines:
        entry = json.loads(line)
        if "spooled" in entry:
            truth.spooled.add(entry["spooled"])
            continue
        key = (entry["run"], entry["answer"])
        if entry.get("served"):
            completed.add(key)
        elif "identity" in entry:
            answers.setdefault(key, []).append(entry)
    first: dict[str, str] = {}
    for key, entries in answers.items():
        for entry in entries:
            identity = entry["identity"]
            truth.served.add(identity)
            own = first.setdefault(identity, key[0])
            if key in completed and (runs is None or own in runs):
                truth.expected[identity], recorded = expected(entry)
                truth.at.setdefault(identity, entry["at"])
                truth.answer.setdefault(identity, key)
                if recorded is not None:
                    truth.recorded[identity] = recorded
    return truth


# -- all sinks of a pipeline ---------------------------------------------------------------------------------------


def same(value: Any) -> Any:
    """Return what a sink should contain if it stores the value, or all of them."""
    return value


def present(value: Any) -> Hashable:
    """Return what a sink should contain if only its identities are read."""
    return True


@dataclass(frozen=True)
class Sink:
    """One sink of a pipeline, and how it is read."""

    name: str
    component: str
    """Stores it."""
    read: Callable[[float], Iterable[tuple[str, Hashable]]]
    """Returns identity and value of each record that arrived since a Unix time."""
    expects: Callable[[Any], Hashable] = same
    """Returns what the sink should contain for an observation's value."""
    transport: bool = False
    """Delivery to it is at least once: duplicates are only counted."""
    keep: float = math.inf
    """Retention in seconds: older observations are not accepted."""
    chooses: Callable[[Mapping[str, Any]], Mapping[str, Any]] = same
    """Returns those of the observations, in the order in which they were served, that it should have; all by default."""
    audit: Callable[[], list[SinkReport]] = list
    """Returns further findings of the last ``read``, beside the identities."""


def check(sinks: Iterable[Sink], truth: Truth, since: float = 0) -> Report:
    """Return the report on what arrived in all sinks since a Unix time."""
    held = [(sink, list(sink.read(since))) for sink in sinks]
    # The spool prunes what is delivered: what a sink has was in the spool as well.
    kept = truth.spooled.union(*({identity for identity, _ in records} for _, records in held))
    unspooled = frozenset(truth.expected.keys() - kept)
    reports = []
    for sink, records in held:
        wanted = {one: value for one, value in truth.kept(sink.keep).items() if one not in unspooled}
        due = {one: sink.expects(value) for one, value in sink.chooses(wanted).items()}
        words = {"duplicates_allowed": sink.transport, "component": sink.component}
        reports += [check_sink(sink.name, records, due, truth.served, **words), *sink.audit()]  # type: ignore[arg-type]
    return Report(len(truth.expected), unspooled, reports)
