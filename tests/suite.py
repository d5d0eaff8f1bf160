"""How a run of the suite behaves: its parts, the lab that is built beside the quick ones, where it stops, what it keeps.

A part is a folder below ``tests``. Tests with the marker ``second_tier`` are those of ``make test-all`` alone.
"""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from berny.lab.json_lines import add_line, read_lines
from berny.lab.plan import state_folder
from berny.model.topology import CHECKOUT
from support import NAME, RATE, Cluster, console

PARTS = ("style", "unit", "lab", "vm", "roles", "cluster", "contract", "faults", "removal")
"""In the order in which they run, the cheapest first."""
QUICK = {"style", "unit"}
CLUSTER = {"cluster", "contract", "faults", "removal"}
STOP_SECONDS = 20
HEALTHY_SECONDS = 180


def part_of(nodeid: str) -> str:
    """Return the part that a test belongs to."""
    return Path(nodeid.split("::")[0]).parts[1]


def is_quick(item: pytest.Item) -> bool:
    """Return whether a test needs no machine, and runs while the lab is built."""
    return part_of(item.nodeid) in QUICK or item.get_closest_marker("quick") is not None


def rank(item: pytest.Item) -> float:
    """Return what tests are ordered by: the part, quick tests of other parts after the quick parts, then what runs beside.

    What needs a component's archive comes after the other quick tests: the lab that is built meanwhile may have to make it.
    """
    if item.get_closest_marker("beside"):
        return len(QUICK) - 0.25
    part = part_of(item.nodeid)
    if "archive" in getattr(item, "fixturenames", ()):
        return len(QUICK) - 0.5
    return len(QUICK) - 0.75 if is_quick(item) and part not in QUICK else PARTS.index(part)


def revision(checkout: Path) -> str:
    """Return the commit that is tested, with a digest of what is not committed."""

    def git(*words: str) -> bytes:
        return subprocess.run(["git", *words], cwd=checkout, capture_output=True, check=True).stdout

    changes = git("diff", "HEAD", "--binary")
    for name in sorted(git("ls-files", "--others", "--exclude-standard", "-z").split(b"\0")):
        if name:
            changes += name + (checkout / os.fsdecode(name)).read_bytes()
    short = git("rev-parse", "--short=12", "HEAD").decode().strip()
    return f"{short}-{hashlib.sha256(changes).hexdigest()[:8]}" if changes else short


class Ledger:
    """The tests that passed at a revision, a line of JSON each, so that a run can be continued."""

    def __init__(self, of: str, folder: Path | None = None) -> None:
        self.revision = of
        self.file = (folder or state_folder().parent / "tests") / f"{of}.jsonl"

    def read(self) -> dict[str, float]:
        """Return the seconds that each test took which passed."""
        return {entry["test"]: entry["seconds"] for entry in read_lines(self.file)}

    def add(self, test: str, seconds: float) -> None:
        """Keep that a test passed."""
        add_line(self.file, {"test": test, "seconds": round(seconds, 2)})


class Build:
    """``berny lab start`` of every component for the tests' lab, beside the tests that need no machine."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.log = Path(tempfile.mkstemp(prefix=f"berny-{name}-", suffix=".log")[1])
        self.since = time.monotonic()
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "berny.cli",
                    "lab",
                    "start",
                    "--name",
                    name,
                    "--rate",
                    str(RATE),
                    "--everything",
                ],
                cwd=CHECKOUT,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait(self) -> str:
        """Show what it prints until it has ended; return why it failed, or nothing."""
        waited = time.monotonic()
        with self.log.open() as shown:
            while True:
                ended = self.process.poll() is not None
                while line := shown.readline():
                    console.print(line.rstrip(), highlight=False, markup=False, soft_wrap=True)
                if ended:
                    break
                time.sleep(0.2)
        took, alone = time.monotonic() - self.since, time.monotonic() - waited
        console.print(f"lab {self.name}: {took:.0f} s, {alone:.0f} s of it waited for", highlight=False)
        return "" if self.process.returncode == 0 else self._why()

    def _why(self) -> str:
        plays = sorted((state_folder() / self.name).glob("*.log"), key=lambda log: log.stat().st_mtime)
        failed = [
            task for log in plays for task in log.read_text(errors="replace").split("\nTASK ") if "fatal:" in task
        ]
        return "\n".join([*self.log.read_text(errors="replace").splitlines()[-15:], *failed])[-12000:]

    def end(self) -> None:
        """End it if it still runs; what it has made is removed by name afterwards."""
        with suppress(ProcessLookupError):
            for kind in (signal.SIGINT, signal.SIGKILL):
                if self.process.poll() is None:
                    os.killpg(self.process.pid, kind)
                    with suppress(subprocess.TimeoutExpired):
                        self.process.wait(STOP_SECONDS)
        self.log.unlink(missing_ok=True)


class Suite:
    """The plugin; one for each session."""

    def __init__(self, config: pytest.Config) -> None:
        self.ledger = Ledger(revision(config.rootpath)) if config.getoption("--continue") else None
        self.counts: dict[str, Counter[str]] = defaultdict(Counter)
        self.seconds: dict[str, float] = defaultdict(float)
        self.reports: dict[str, list[pytest.TestReport]] = defaultdict(list)
        self.build: Build | None = None
        self.cluster: Cluster | None = None
        """While there is one."""
        self.asked: set[str] = set()
        self.began = time.time()
        """Unix time, of the test that runs."""

    # -- what runs ---------------------------------------------------------------------------------------------------

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Order the parts, and leave out what has passed before."""
        items.sort(key=rank)
        self.asked = {part_of(item.nodeid) for item in items}
        passed = self.ledger.read() if self.ledger else {}
        before = [item for item in items if item.nodeid in passed]
        for item in before:
            self.counts[part_of(item.nodeid)]["passed before"] += 1
        if before:
            items[:] = [item for item in items if item.nodeid not in passed]
            config.hook.pytest_deselected(items=before)

    def pytest_deselected(self, items: list[pytest.Item]) -> None:
        """Count what the first tier leaves out."""
        for item in items:
            if item.get_closest_marker("second_tier") and not self.ledger:
                self.counts[part_of(item.nodeid)]["second tier"] += 1

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Begin the lab at once where nothing but quick tests comes before it."""
        parts = {part_of(item.nodeid) for item in session.items if not is_quick(item)}
        alone = parts and parts <= CLUSTER
        if alone and "BERNY_LAB" not in os.environ and not session.config.option.collectonly:
            self.begin()

    def begin(self) -> Build:
        """Begin the lab unless that was done."""
        self.build = self.build or Build(NAME)
        return self.build

    # -- where it stops ----------------------------------------------------------------------------------------------

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[Any]:
        """Stop where what follows would only repeat a failure, or take long to be red all the same."""
        failed = item.session.testsfailed
        self.began = time.time()
        result = yield
        following = part_of(nextitem.nodeid) if nextitem else ""
        if item.session.testsfailed and is_quick(item) and nextitem and not is_quick(nextitem):
            item.session.shouldfail = "style or unit tests failed, so no machine was tested"
        broken = item.session.testsfailed > failed and following and not item.session.shouldfail
        # Removed, it is not healthy, and need not be.
        if self.cluster and broken and following != "removal":
            lacking = self.cluster.lacking(HEALTHY_SECONDS)
            if lacking:
                item.session.shouldfail = f"after {item.name} the cluster is not healthy any more: {lacking}"
        return result

    # -- what it shows -----------------------------------------------------------------------------------------------

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Iterator[Any]:
        """Add to a failure on a cluster which units of which hosts are not as they should be, and their last lines."""
        report = yield
        if report.failed and self.cluster:
            report.sections.append(("the cluster at that moment", self.cluster.diagnosis(self.began)))
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count, add up times, and keep what passed."""
        part = part_of(report.nodeid)
        self.seconds[part] += report.duration
        phases = self.reports[report.nodeid]
        phases.append(report)
        if report.when != "teardown":
            return
        outcome = "passed" if all(phase.passed for phase in phases) else "failed"
        if any(phase.skipped for phase in phases):
            outcome = "skipped"
        self.counts[part][outcome] += 1
        if self.ledger and outcome == "passed":
            self.ledger.add(report.nodeid, sum(phase.duration for phase in phases))
        del self.reports[report.nodeid]

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the time and the counts of each part; parts that were not asked for are named."""
        out = terminalreporter
        out.section("parts")
        columns = ("passed", "failed", "skipped", "passed before", "second tier")
        out.write_line(f"{'part':10}" + "".join(f"{column:>15}" for column in columns) + f"{'not run':>10}{'time':>10}")
        for part in PARTS:
            counts = self.counts[part]
            if part not in self.asked and not counts:
                if self.ledger:
                    out.write_line(f"{part:10}" + f"{'left out':>15}")
                continue
            ran = sum(counts[outcome] for outcome in ("passed", "failed", "skipped"))
            chosen = sum(part_of(item.nodeid) == part for item in out._session.items) if out._session else ran
            line = f"{part:10}" + "".join(f"{counts[column] or '-':>15}" for column in columns)
            out.write_line(line + f"{chosen - ran or '-':>10}{self.seconds[part]:>8.0f} s")
        if self.ledger:
            out.write_line(f"revision {self.ledger.revision}: the same command continues, without what passed")

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Nothing left to run is no failure."""
        if session.exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED and any(
            counts["passed before"] for counts in self.counts.values()
        ):
            session.exitstatus = pytest.ExitCode.OK

    def pytest_unconfigure(self) -> None:
        """Leave no process behind."""
        if self.build:
            self.build.end()
