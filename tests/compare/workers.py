"""Measures a lab as it grows by workers: `python tests/compare/workers.py --workers 3 4 5 6`.

In a copy of the commit, whose lab `grow` it makes and removes. Each further worker has a DataNode, a NodeManager, a worker of
Spark and Prometheus' exporter. The components are those that the default pipelines need.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import yaml
from rich.console import Console

from berny.controller.progress import Steps
from berny.lab.figures import Sheet, show_table
from berny.model.topology import CHECKOUT

NAME = "grow"
HOSTS = "inventory/lab/hosts.yml"
GROUPS = ("datanode", "nodemanager", "spark_worker", "node_exporter")
TIMES = 3
USED = f"""
from berny.lab.lab import Lab
from berny.lab.memory import uses
print(sum(use.resident for use in uses(Lab.existing({NAME!r}))))
"""
HEAD = ["workers", "berny lab start, s", "unchanged site.yml, s", "from", "to", "memory, MiB"]


class Copy:
    """A copy of the commit, whose inventory has other machines."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "berny"
        subprocess.run(["git", "clone", "-q", str(CHECKOUT), str(self.path)], check=True)
        self.path.chmod(0o755)
        self._environment = os.environ | {"PYTHONPATH": str(self.path / "src"), "BERNY_LAB": NAME}

    def grow(self, workers: int) -> None:
        """Have so many workers in the inventory."""
        file = self.path / HOSTS
        hosts = yaml.safe_load(file.read_text())
        for number in range(workers):
            node = f"worker_{number}"
            hosts["all"]["hosts"].setdefault(node, None)
            for group in GROUPS if number > 2 else ():
                hosts["all"]["children"][group]["hosts"][node] = None
        file.write_text(yaml.safe_dump(hosts))

    def run(self, *command: str) -> tuple[float, str]:
        """Run a program; return its seconds, and what it prints."""
        since = time.monotonic()
        done = subprocess.run(command, cwd=self.path, env=self._environment, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)}: {(done.stdout + done.stderr)[-3000:]}")
        return time.monotonic() - since, done.stdout

    def measure(self, workers: int) -> list[str]:
        """Return the row of a lab with so many workers."""
        self.grow(workers)
        start, _ = self.run(sys.executable, "-m", "berny.cli", "lab", "start", "--name", NAME)
        play = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "inventory/lab", "site.yml"]
        times = sorted(self.run(*play)[0] for _ in range(TIMES))
        _, used = self.run(sys.executable, "-c", USED)
        return [str(workers), *(f"{one:.0f}" for one in (start, median(times), times[0], times[-1])), used.strip()]


def main() -> None:
    """Measure."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--workers", type=int, nargs="+", default=[3, 4, 5, 6])
    given = arguments.parse_args()
    console = Console()
    rows = []
    with tempfile.TemporaryDirectory() as folder, Steps(console) as steps:
        copy = Copy(Path(folder))
        try:
            for workers in given.workers:
                with steps.step(f"{workers} workers"):
                    rows.append(copy.measure(workers))
        finally:
            # By the copy, whose inventory has all machines of the lab.
            copy.run(sys.executable, "-m", "berny.cli", "lab", "down", "--name", NAME, "--purge")
    show_table(Sheet("a lab that grows", HEAD, rows), console)


if __name__ == "__main__":
    main()
