"""A simulator of a pipeline's source, run in the network namespace for external systems on the lab's bridge."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from berny.lab.plan import LabError, Plan
from berny.lab.simulation import Simulation

# On a host where four machines boot at the same time.
START_SECONDS = 60
ASK_SECONDS = 30
"""How long a simulator may take that serves a thousand observations a second on a busy machine."""


def _folder(plan: Plan) -> Path:
    return plan.folder / "simulators"


def started(plan: Plan) -> list[str]:
    """Return the pipelines whose simulators were started in a lab; another checkout may have started some."""
    return sorted(file.stem for file in _folder(plan).glob("*.pid"))


class Process:
    """A simulator's process: its number, log and ground truth are in the lab's folder."""

    def __init__(self, plan: Plan, pipeline: str) -> None:
        self.plan = plan
        self.pipeline = pipeline
        folder = _folder(plan)
        self.pid_file = folder / f"{pipeline}.pid"
        self.log = folder / f"{pipeline}.log"
        self.truth = folder / f"{pipeline}.truth.jsonl"

    def pid(self) -> int | None:
        """Return the running process's number, or None."""
        with suppress(OSError, ValueError):
            pid = int(self.pid_file.read_text())
            if {b"simulate", self.pipeline.encode()} <= {*Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")}:
                return pid
        return None

    def stop(self) -> None:
        """End the simulator."""
        pid = self.pid()
        if pid:
            os.kill(pid, signal.SIGTERM)
            for _ in range(50):
                if not self.pid():
                    break
                with suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)
                time.sleep(0.1)
            else:
                os.kill(pid, signal.SIGKILL)
        self.pid_file.unlink(missing_ok=True)


class Simulator(Process):
    """The simulator of a pipeline of this checkout, controlled at ``/_simulator``:

    ``stats`` returns what it has served, ``run`` names the run and sets the rate, ``faults`` injects faults.
    """

    def __init__(self, plan: Plan, pipeline: str, simulation: Simulation) -> None:
        super().__init__(plan, pipeline)
        self.simulation = simulation
        self.url = f"http://{plan.simulator}:{simulation.port}"

    def start(self, *options: str) -> None:
        """Start the simulator unless it runs, and wait until it responds.

        Raises:
            LabError: it does not; the message names its log.
        """
        if self.pid():
            return
        self.log.parent.mkdir(exist_ok=True)
        command = ["ip", "netns", "exec", self.plan.namespace, sys.executable, "-m", "berny.cli"]
        command += ["simulate", self.pipeline, "--listen", self.plan.simulator, "--port", str(self.simulation.port)]
        command += ["--truth", str(self.truth), *options]
        with self.log.open("ab") as out:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
            )
        self.pid_file.write_text(str(process.pid))
        for _ in range(START_SECONDS * 10):
            with suppress(OSError):
                self.ask("/_simulator/stats")
                return
            if process.poll() is not None:
                break
            time.sleep(0.1)
        raise LabError(f"the simulator of {self.pipeline} does not respond at {self.url}; see {self.log}")

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Restore the run and the rate of new observations afterwards."""
        before = self.ask("/_simulator/stats")
        try:
            yield
        finally:
            self.ask("/_simulator/run", {word: before[word] for word in ("run", "rate")})

    def ask(self, path: str, data: dict[str, Any] | None = None) -> Any:
        """Return the JSON of the simulator's response; ``data`` is posted."""
        body = None if data is None else json.dumps(data).encode()
        request = urllib.request.Request(self.url + path, data=body, headers={"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=ASK_SECONDS) as answer:
            return json.loads(answer.read() or b"null")
