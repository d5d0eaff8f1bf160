"""What tests against a lab share: the lab, its plays, its units."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from berny.controller.artifacts import Store
from berny.controller.artifacts.cli import fetch_all
from berny.controller.artifacts.recipes import load_recipes
from berny.controller.progress import Steps
from berny.faults.bench import wait_for_healthy
from berny.faults.targets import targets_of
from berny.lab import harness
from berny.lab.harness import PYTHON as PYTHON
from berny.lab.lab import Lab
from berny.lab.plan import LabError, load_plan, state_folder
from berny.model.component import Component
from berny.model.topology import CHECKOUT

NAME = os.environ.get("BERNY_LAB", "test")
RATE = 5
"""Observations a second that each simulator serves while a test asks for nothing else."""
# Where `tests/run` left a way past pytest's capture, progress is seen while it happens.
PROGRESS = os.environ.get("BERNY_TEST_PROGRESS")
console = Console(file=os.fdopen(int(PROGRESS), "w", buffering=1) if PROGRESS else sys.__stdout__, width=160)


# For each unit that is not active or whose probe finds something: what the probe says, and the end of the journal. For any
# other: what it has logged of errors since a moment.
DIAGNOSE = """sudo sh -c '
since=$1
shift
for unit do
    state=$(systemctl is-active "$unit")
    if health=$(timeout 15 berny-probe "$unit" --want healthy 2>&1) && [ "$state" = active ]; then
        journalctl -u "$unit" --since "@$since" --no-pager -o short-iso |
            grep -E "ERROR|FATAL|level=error|Main process exited" | tail -n 4
    else
        echo "$unit is $state; $health"
        journalctl -u "$unit" -n 8 --no-pager -o short-iso
    fi
done | cut -c1-300' diagnose"""


@dataclass
class Play:
    """A finished ``ansible-playbook``."""

    code: int
    output: str
    seconds: float

    def recap(self, word: str) -> int:
        """Return the sum over all hosts of a column of the recap."""
        rows = self.output.split("PLAY RECAP")[-1]
        return sum(int(count) for count in re.findall(rf"\b{word}=(\d+)", rows))

    @property
    def tail(self) -> str:
        """What a failing test should show: tasks that failed or changed something, and the end."""
        tasks = [part for part in self.output.split("\nTASK ") if re.search(r"^(fatal|failed|changed):", part, re.M)]
        return "\n".join([*tasks, self.output[-1500:]])


def ansible(playbook: str, *options: str, inventory: str = "inventory/lab") -> list[str]:
    """Return the words of a play against the lab's inventory, or a copy of it."""
    return [str(Path(sys.executable).with_name("ansible-playbook")), "-i", inventory, playbook, *options]


def environment(checkout: Path = CHECKOUT) -> dict[str, str]:
    """Return the environment that plays of a checkout run in; ``.venv`` has the code of the one that is tested."""
    own = {} if checkout == CHECKOUT else {"PYTHONPATH": str(checkout / "src")}
    return os.environ | {"BERNY_LAB": NAME, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_FORCE_COLOR": "0"} | own


def on_controller(
    command: list[str], timeout: float = 900, checkout: Path = CHECKOUT, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a command in a checkout, as plays are; both of its outputs are its ``stdout``."""
    return subprocess.run(
        command,
        cwd=checkout,
        env=environment(checkout) | variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
    )


def berny(*words: str, checkout: Path = CHECKOUT, ok: bool = True, timeout: float = 900, **variables: str) -> str:
    """Run the command ``berny`` of a checkout and return what it prints; with ``ok`` it has to succeed."""
    since = time.monotonic()
    done = on_controller([sys.executable, "-m", "berny.cli", *words], timeout, checkout, **variables)
    console.print(f"berny {' '.join(words)}: {time.monotonic() - since:.1f} s", highlight=False)
    assert done.returncode == 0 or not ok, done.stdout[-6000:]
    return done.stdout


def play(
    playbook: str, *options: str, ok: bool = True, inventory: str = "inventory/lab", checkout: Path = CHECKOUT
) -> Play:
    """Run a play of a checkout; with ``ok`` it has to succeed."""
    since = time.monotonic()
    done = on_controller(ansible(playbook, *options, inventory=inventory), checkout=checkout)
    result = Play(done.returncode, done.stdout, time.monotonic() - since)
    console.print(f"{playbook} {' '.join(options)}: {result.seconds:.1f} s", highlight=False)
    assert (result.code == 0) or not ok, result.tail
    return result


def wait_until(done: Callable[[], Any], seconds: float, words: str | Callable[[], str]) -> Any:
    """Ask until it is true, and return what it says; ``words`` say what a failing test should show."""
    deadline = time.monotonic() + seconds
    while True:
        found = done()
        if found:
            return found
        assert time.monotonic() < deadline, f"after {seconds:.0f} s: {words if isinstance(words, str) else words()}"
        time.sleep(0.5)


def installable(component: Component) -> bool:
    """Tell whether a component is to run: an optional one only where the store has its archive."""
    return not component.optional or Store().find(component.archive) is not None


class Cluster:
    """The lab of the tests with what runs on it."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.groups = lab.plan.groups
        self._lock = ExitStack()

    @contextmanager
    def held(self) -> Iterator[Cluster]:
        """Keep other commands off the lab, except while it is lent."""
        with self._lock:
            self._lock.enter_context(self.lab.locked())
            yield self

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Have another command work on the lab."""
        self._lock.close()
        try:
            yield
        finally:
            self._lock.enter_context(self.lab.locked())

    def sh(self, node: str, command: str, timeout: float = 120, ok: bool = True) -> str:
        """Run a shell command on a node and return what it prints; it has to succeed."""
        done = self.lab.run(node, command, timeout)
        assert not ok or done.returncode == 0, f"{node}: {command}: {done.stdout[-600:]}{done.stderr[-600:]}"
        return done.stdout

    def each(self, command: str, nodes: Iterable[str] = (), timeout: float = 120, ok: bool = True) -> dict[str, str]:
        """Run a shell command on several nodes at once, on all by default; return what each prints."""
        names = list(nodes) or self.groups["all"]
        with ThreadPoolExecutor(len(names)) as pool:
            return dict(zip(names, pool.map(lambda node: self.sh(node, command, timeout, ok), names), strict=True))

    def units(self) -> dict[str, list[str]]:
        """Return the nodes that each unit of the catalog and the manifests belongs on."""
        return targets_of(self.lab.plan).units

    def processes(self) -> dict[tuple[str, str], str]:
        """Return main process and its start for each unit that runs, by (node, unit)."""
        names = " ".join(f"{unit}.service" for unit in self.units())
        found = {}
        show = f"systemctl show -p Id -p ActiveState -p MainPID -p ExecMainStartTimestamp {names}"
        for node, said in self.each(show).items():
            for block in said.strip().split("\n\n"):
                facts = dict(line.split("=", 1) for line in block.splitlines())
                if facts.get("ActiveState") == "active":
                    unit = facts["Id"].removesuffix(".service")
                    found[node, unit] = f"{facts['MainPID']} {facts['ExecMainStartTimestamp']}"
        return found

    # -- pipelines: those that are named, or all of the lab ----------------------------------------------------------

    def status(self, pipeline: str) -> dict[str, Any]:
        """Return a pipeline's status."""
        return harness.status(self.lab, pipeline)

    def statuses(self, *pipelines: str) -> dict[str, dict[str, Any]]:
        """Return the status of each pipeline."""
        return {name: self.status(name) for name in self.pipelines(pipelines)}

    def pipelines(self, names: Iterable[str] = ()) -> list[str]:
        """Return the pipelines that are meant."""
        return list(names) or list(self.lab.simulators)

    def told(self) -> str:
        """Return what a person looks at when nothing flows: the pipelines' status, the stages' probes and last words."""
        said = [f"{name}: {status}" for name, status in self.statuses().items()]
        said += [str(simulator.ask("/_simulator/stats")) for simulator in self.lab.simulators.values()]
        for unit, nodes in self.units().items():
            if unit.startswith("berny-"):
                ask = f"sudo berny-probe {unit}; sudo journalctl -u {unit} -n 12 --no-pager -o short-iso | cut -c1-300"
                said += [self.sh(node, ask, ok=False) for node in nodes]
        return "\n".join(said)

    def lacking(self, seconds: float) -> str:
        """Return the first thing that is not healthy after that many seconds, or nothing."""
        try:
            wait_for_healthy(self.lab, lambda words: None, seconds)
        except (LabError, subprocess.TimeoutExpired) as error:
            return str(error)
        return ""

    def diagnosis(self, since: float) -> str:
        """Return, by host, the units that are not as they should be, with their last lines, and errors since a Unix time."""
        placed = self.units()

        def ask(node: str) -> list[str]:
            names = [unit for unit, nodes in placed.items() if node in nodes]
            done = self.lab.run(node, f"{DIAGNOSE} {since:.0f} {' '.join(names)}", 60)
            return [f"{node}: {line}" for line in (done.stdout + done.stderr).splitlines()]

        def safely(node: str) -> list[str]:
            try:
                return ask(node)
            except (LabError, subprocess.TimeoutExpired) as error:
                return [f"{node}: no response: {error}"]

        with ThreadPoolExecutor(len(self.groups["all"])) as pool:
            found = [line for lines in pool.map(safely, self.groups["all"]) for line in lines]
        return "\n".join(found) or "every unit is active, every probe reports healthy, and no error was logged"

    def load(self, run: str, rate: float, *pipelines: str) -> None:
        """Have the simulators serve ``rate`` new observations a second each, as the run ``run``."""
        for name in self.pipelines(pipelines):
            self.lab.simulators[name].ask("/_simulator/run", {"run": run, "rate": rate})

    def flows(self, *pipelines: str) -> None:
        """Wait until new observations reach the last sink."""
        self.load(f"flow-{time.time():.0f}", RATE, *pipelines)

        def flow() -> bool:
            return all((one.get("freshness_seconds") or 99) < 20 for one in self.statuses(*pipelines).values())

        wait_until(flow, 180, self.told)

    def serve(self, count: float, seconds: float = 90, *pipelines: str) -> None:
        """Wait until each simulator has served ``count`` more observations."""

        def served() -> dict[str, int]:
            names = self.pipelines(pipelines)
            return {name: self.lab.simulators[name].ask("/_simulator/stats")["served"] for name in names}

        before = served()
        wait_until(lambda: all(now >= before[name] + count for name, now in served().items()), seconds, self.told)

    def check(self, run: str, *pipelines: str) -> tuple[bool, str]:
        """Hold every sink against the ground truth of a run; return whether all are clean, and the report."""
        names = self.pipelines(pipelines)
        clean, reports = True, []
        for name in names:
            done = harness.check(self.lab, name, [run])
            clean = clean and done.returncode == 0
            report = done.stdout + done.stderr[-2000:]
            reports.append(f"{name}: {report}" if len(names) > 1 else report)
        return clean, "".join(reports)

    def settle(self, run: str, seconds: float = 150, *pipelines: str) -> str:
        """Stop the load and wait until every sink holds what it should; returns the report."""
        self.load(f"after-{run}", 0, *pipelines)
        report = ""

        def clean() -> bool:
            nonlocal report
            found, report = self.check(run, *pipelines)
            return found

        deadline = time.monotonic() + seconds
        while not clean():
            assert time.monotonic() < deadline, report
            time.sleep(1)
        console.print(report, highlight=False)
        return report


def start(cluster: Cluster, *pipelines: str) -> None:
    """Do what ``make lab PIPELINES=…`` does."""
    with cluster.lent():
        berny("lab", "start", "--name", NAME, "--rate", str(RATE), "--pipelines", " ".join(pipelines))


@contextmanager
def beside(cluster: Cluster, *pipelines: str) -> Iterator[Cluster]:
    """Yield the cluster with more pipelines; whatever happens, those are gone afterwards."""
    own = cluster.lab.plan.pipelines
    try:
        start(cluster, *own, *pipelines)
        yield Cluster(Lab.existing(NAME))
    finally:
        now = load_plan(NAME)
        if now and now.pipelines != own:
            for pipeline in pipelines:
                play("playbooks/reset.yml", "-e", f"pipeline={pipeline}", "-e", f"data={NAME}", ok=False)
            start(cluster, *own)


@contextmanager
def steps(title: str) -> Any:
    """Say on the terminal what takes long, though pytest keeps the output of tests."""
    console.print(f"\n-- {title}", highlight=False)
    with Steps(console) as shown:
        yield shown


def machines(name: str, purge: bool) -> Lab:
    """Return a lab with its machines running and the archives in the store; ``purge``: without a trace of an earlier run."""
    with steps(f"lab {name}") as shown:
        if purge:
            Lab.named(name).down(shown, purge=True)
        lab = Lab.named(name)
        lab.up(shown)
        fetch_all(list(load_recipes()), shown)
    return lab


def traces(name: str) -> dict[str, list[str]]:
    """Return everything of a lab that this host has."""

    def said(*command: str) -> list[str]:
        return subprocess.check_output(command, text=True).splitlines() if shutil.which(command[0]) else []

    links = [link["ifname"] for line in said("ip", "-j", "link") for link in json.loads(line)]
    commands = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            commands.append(path.read_bytes().decode(errors="replace"))
    return {
        "mounts": [line for line in Path("/proc/mounts").read_text().splitlines() if f"/labs/{name}/" in line],
        "links": [link for link in links if link.startswith(f"bny-{name}")],
        "tables": [table for table in said("nft", "list", "tables") if f"berny-{name}" in table],
        "loops": [loop for loop in said("losetup", "-a") if f"/labs/{name}/" in loop],
        "namespaces": [space for space in said("ip", "netns", "list") if f"berny-{name}" in space],
        "processes": [command for command in commands if f"/labs/{name}/" in command],
        "cgroups": [str(path) for path in Path("/sys/fs/cgroup").glob(f"**/berny-{name}-*") if path.is_dir()],
        "state": [str(path) for path in state_folder().iterdir() if path.name in (name, f".{name}.lock")],
    }


def remove(name: str) -> None:
    """Remove a lab; nothing of it may be left on this host."""
    with steps(f"lab {name} goes") as shown:
        Lab.named(name).down(shown, purge=True)
    left = traces(name)
    assert not any(left.values()), left
