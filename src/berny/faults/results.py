"""The outcomes of fault cases, stored by commit, and the page generated from them."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from berny.faults.bench import AGAIN, Outcome
from berny.faults.cases import FaultCase
from berny.lab.json_lines import add_line, read_lines
from berny.lab.measured import machine
from berny.lab.plan import state_folder
from berny.model.topology import CHECKOUT

PAGE = CHECKOUT / "docs" / "faults.md"


class Results:
    """The outcomes of one commit, a line of JSON each; a case that runs again replaces its outcomes."""

    def __init__(self, of: str, folder: Path | None = None) -> None:
        self.commit = of
        self.file = (folder or state_folder().parent / "faults") / f"{of}.jsonl"

    def read(self) -> list[Outcome]:
        """Return the newest outcome of each case and pipeline, ignoring those with other fields than today's."""
        found = {}
        for entry in read_lines(self.file):
            with suppress(TypeError):
                outcome = Outcome(**entry)
                found[outcome.case, outcome.pipeline] = outcome
        return list(found.values())

    def add(self, outcome: Outcome) -> None:
        """Store an outcome."""
        add_line(self.file, outcome.as_dict())


def seconds(value: float | None) -> str:
    """Return a time in readable form."""
    return "never" if value is None else f"{value:.0f} s"


def summary(outcomes: list[Outcome]) -> str:
    """Return the summary line of a run."""
    lost, duplicate, wrong = (sum(getattr(one, word) for one in outcomes) for word in ("lost", "duplicate", "wrong"))
    cases = len({one.case for one in outcomes if not one.case.startswith(AGAIN)})
    return f"faults: {cases} cases, {lost} lost, {duplicate} duplicate, {wrong} wrong"


def verdict(outcome: Outcome) -> str:
    """Return briefly whether a case passed, and why not."""
    if not outcome.expected:
        return f"FAILED: {outcome.words or 'nothing was served'}"
    counts = [
        f"{count} {word}" for word in ("lost", "duplicate", "wrong", "unexpected") if (count := getattr(outcome, word))
    ]
    if outcome.unspooled_answers > outcome.unspooled_allowed:
        counts.append(f"{outcome.unspooled} unspooled in {outcome.unspooled_answers} responses")
    if outcome.unspooled_elsewhere:
        counts.append(f"{outcome.unspooled_elsewhere} responses unspooled while nothing was broken")
    if outcome.acknowledged < outcome.minimum:
        counts.append(f"{outcome.acknowledged} acknowledged, {outcome.minimum} required")
    if outcome.caught_up is None:
        counts.append(f"never caught up{': ' if outcome.words else ''}{outcome.words}")
    if outcome.healthy is None:
        counts.append(f"not healthy again{': ' if outcome.words else ''}{outcome.words}")
    given_up = f", {outcome.given_up} given up" if outcome.given_up else ""
    return f"FAILED: {', '.join(counts)}" if counts else f"passed{given_up}"


def several(outcomes: list[Outcome]) -> bool:
    """Return whether outcomes belong to more than one pipeline, so each has to name its own."""
    return len({outcome.pipeline for outcome in outcomes}) > 1


def line(outcome: Outcome, name_pipeline: bool = False) -> str:
    """Return an outcome on one line."""
    of = f" ({outcome.pipeline})" if name_pipeline else ""
    if outcome.case.startswith(AGAIN):
        return f"{outcome.steps[0]}{of}: {verdict(outcome)}; {outcome.expected} expected"
    slow = (
        ""
        if outcome.fresh is not None and outcome.fresh <= outcome.fresh_bound
        else f" (limit {outcome.fresh_bound:.0f} s)"
    )
    return (
        f"{outcome.case}{of}: {verdict(outcome)}; "
        f"{outcome.expected} expected, {outcome.acknowledged} acknowledged during the fault; "
        f"silent {seconds(outcome.silence)}, fresh after {seconds(outcome.fresh)}{slow}, "
        f"caught up after {seconds(outcome.caught_up)}, healthy after {seconds(outcome.healthy)}"
    )


COLUMNS = [
    "case", "what", "verdict", "expected", "acknowledged (minimum)", "silent", "fresh (limit)", "caught up", "healthy",
    "duplicates on topics",
]  # fmt: skip


def page(of: str, outcomes: list[Outcome], cases: dict[str, FaultCase]) -> str:
    """Return the page: what was run, on which host, and the outcome of each case."""
    run = {outcome.case for outcome in outcomes}
    named = several(outcomes)
    own = [one for one in outcomes if not one.case.startswith(AGAIN)]
    told = [one for name in cases for one in own if one.case == name] + [one for one in own if one.case not in cases]
    again = [f"- {line(one, named)}" for one in outcomes if one.case.startswith(AGAIN)]
    seeds = sorted({outcome.seed for outcome in told})
    columns = [COLUMNS[0], *(["pipeline"] if named else []), *COLUMNS[1:]]
    head = f"""# Faults

Made by `berny faults report`. Commit {of}; {machine()}; seeds {", ".join(map(str, seeds))};
{sum(1 for name in cases if name in run)} of {len(cases)} cases run. `{summary(outcomes)}`

In each case the simulators serve observations as a run of its own while a fault is injected, held and healed; then every
sink is compared with what was served. *Acknowledged*: observations that were served completely during the fault, and stored
in the spool. *Silent*: the longest time without a newer point. *Fresh*: the time from the healing to a point recorded after
it, and its limit; for faults that are not healed, the longest silence. *Caught up*: the time until every sink had
everything. *Healthy*: the time until all probes were healthy. Figures are from one run, on one host that all machines share.

| {" | ".join(columns)} |
|{"---|" * len(columns)}
"""
    lines = []
    for one in told:
        case = cases.get(one.case)
        about = case.about + (f"; given up: {case.gives_up}" if case.gives_up else "") if case else "; ".join(one.steps)
        cells = [
            one.case,
            *([one.pipeline] if named else []),
            about,
            verdict(one),
            str(one.expected),
            f"{one.acknowledged} ({one.minimum})",
            seconds(one.silence),
            f"{seconds(one.fresh)} ({one.fresh_bound:.0f} s)",
            seconds(one.caught_up),
            seconds(one.healthy),
            str(one.topic_duplicates),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    missing = [f"`{name}`" for name in cases if name not in run]
    tail = f"\nNot run at this commit: {', '.join(missing)}.\n" if missing else ""
    once_more = (
        "\nComparisons after the last case, since a later fault may destroy what an earlier one left:\n\n"
        + "\n".join(again)
        + "\n"
        if again
        else ""
    )
    return head + "\n".join(lines) + "\n" + once_more + tail
