"""What rows have shown, kept by commit, and the page that is made of it."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

from berny.faults.bench import AGAIN, Outcome
from berny.faults.rows import Row
from berny.lab.plan import state_folder
from berny.model.topology import CHECKOUT

PAGE = CHECKOUT / "docs" / "faults.md"
# What is measured does not depend on what is said of it.
WORDS = [".", ":!docs", ":!*.md", ":!tests", ":!molecule"]


def commit() -> str:
    """Return the commit that results belong to: the last that changed more than documents, ``-dirty`` with changes since."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout.strip()

    dirty = "-dirty" if git("status", "--porcelain", "--", *WORDS) else ""
    return git("log", "-1", "--format=%h", "--", *WORDS) + dirty


def machine() -> str:
    """Return what the box is: cores, memory, kernel."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} cores, {memory:.0f} GiB, Linux {platform.release()}"


def read_lines(file: Path) -> list[Any]:
    """Return the entries of a file of JSON lines, none where there is no file. What a crash left of a line is none."""
    found = []
    for line in file.read_text().splitlines() if file.exists() else []:
        with suppress(ValueError):
            found.append(json.loads(line))
    return found


def add_line(file: Path, entry: dict[str, Any]) -> None:
    """Append an entry to a file of JSON lines, synced. A line that a crash cut off does not swallow it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a+b") as lines:
        if lines.tell():
            lines.seek(-1, os.SEEK_END)
            if lines.read() != b"\n":
                lines.write(b"\n")
        lines.write(json.dumps(entry).encode() + b"\n")
        lines.flush()
        os.fsync(lines.fileno())


class Results:
    """The outcomes of one commit, a line of JSON each; a row that is run again replaces its outcome."""

    def __init__(self, of: str, folder: Path | None = None) -> None:
        self.commit = of
        self.file = (folder or state_folder().parent / "faults") / f"{of}.jsonl"

    def read(self) -> dict[str, Outcome]:
        """Return the newest outcome of each row. One of other fields than today's is none."""
        found = {}
        for entry in read_lines(self.file):
            with suppress(TypeError):
                outcome = Outcome(**entry)
                found[outcome.row] = outcome
        return found

    def add(self, outcome: Outcome) -> None:
        """Keep an outcome."""
        add_line(self.file, outcome.as_dict())


def seconds(value: float | None) -> str:
    """Return a time as it is shown."""
    return "never" if value is None else f"{value:.0f} s"


def summary(outcomes: list[Outcome]) -> str:
    """Return the last line of a run."""
    lost, duplicate, wrong = (sum(getattr(one, word) for one in outcomes) for word in ("lost", "duplicate", "wrong"))
    rows = sum(1 for one in outcomes if not one.row.startswith(AGAIN))
    return f"faults: {rows} rows, {lost} lost, {duplicate} duplicate, {wrong} wrong"


def verdict(outcome: Outcome) -> str:
    """Return in a few words why a row does not hold, or that it does."""
    if not outcome.expected:
        return f"FAILED: {outcome.words or 'nothing was served'}"
    counts = [
        f"{count} {word}" for word in ("lost", "duplicate", "wrong", "unexpected") if (count := getattr(outcome, word))
    ]
    if outcome.unspooled_answers > outcome.unspooled_allowed:
        counts.append(f"{outcome.unspooled} unspooled in {outcome.unspooled_answers} answers")
    if outcome.unspooled_elsewhere:
        counts.append(f"{outcome.unspooled_elsewhere} answers unspooled while nothing was broken")
    if outcome.acknowledged < outcome.minimum:
        counts.append(f"{outcome.acknowledged} acknowledged, {outcome.minimum} wanted")
    if outcome.caught_up is None:
        counts.append(f"never caught up{': ' if outcome.words else ''}{outcome.words}")
    if outcome.whole is None:
        counts.append(f"not whole again{': ' if outcome.words else ''}{outcome.words}")
    given_up = f" but for {outcome.given_up} given up" if outcome.given_up else ""
    return f"FAILED: {', '.join(counts)}" if counts else f"holds{given_up}"


def line(outcome: Outcome) -> str:
    """Return an outcome on one line."""
    if outcome.row.startswith(AGAIN):
        return f"{outcome.steps[0]}: {verdict(outcome)}; {outcome.expected} expected"
    slow = (
        ""
        if outcome.fresh is not None and outcome.fresh <= outcome.fresh_bound
        else f" (bar {outcome.fresh_bound:.0f} s)"
    )
    return (
        f"{outcome.row}: {verdict(outcome)}; {outcome.expected} expected, {outcome.acknowledged} acknowledged meanwhile; "
        f"silent {seconds(outcome.silence)}, fresh after {seconds(outcome.fresh)}{slow}, "
        f"caught up after {seconds(outcome.caught_up)}, whole after {seconds(outcome.whole)}"
    )


def page(of: str, outcomes: dict[str, Outcome], rows: dict[str, Row]) -> str:
    """Return the page: what was run, on what, and what each row has shown."""
    told = [outcomes[name] for name in rows if name in outcomes]
    told += [one for name, one in outcomes.items() if name not in rows and not name.startswith(AGAIN)]
    again = [f"- {line(one)}" for name, one in outcomes.items() if name.startswith(AGAIN)]
    seeds = sorted({outcome.seed for outcome in told})
    head = f"""# Faults

Made by `berny faults report`. Commit {of}; {machine()}; seeds {", ".join(map(str, seeds))};
{sum(1 for name in rows if name in outcomes)} rows run, of {len(rows)}. `{summary(list(outcomes.values()))}`

Each row: the simulator serves observations as a run of its own, something is broken, held and healed; then every sink is held
against what was served. *Acknowledged*: observations that were served whole during the fault, and kept. *Silent*: the
longest time in which no newer point came. *Fresh*: from the healing to a point recorded after it, and the bar; where nobody
heals, the longest silence. *Caught up*: until every sink had everything.
*Whole*: until nothing was missing anywhere. Figures are of one run on a box that all machines share.

| row | what | verdict | expected | acknowledged (least) | silent | fresh (bar) | caught up | whole | repeated on topics |
|---|---|---|---|---|---|---|---|---|---|
"""
    lines = []
    for one in told:
        row = rows.get(one.row)
        about = row.about + (f"; given up: {row.gives_up}" if row.gives_up else "") if row else "; ".join(one.steps)
        cells = [
            one.row,
            about,
            verdict(one),
            str(one.expected),
            f"{one.acknowledged} ({one.minimum})",
            seconds(one.silence),
        ]
        cells += [
            f"{seconds(one.fresh)} ({one.fresh_bound:.0f} s)",
            seconds(one.caught_up),
            seconds(one.whole),
            str(one.topic_duplicates),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    missing = [f"`{name}`" for name in rows if name not in outcomes]
    tail = f"\nNot run at this commit: {', '.join(missing)}.\n" if missing else ""
    once_more = "\nA later fault may take what an earlier one left:\n\n" + "\n".join(again) + "\n" if again else ""
    return head + "\n".join(lines) + "\n" + once_more + tail
