"""The age of a pipeline's newest point, polled each second during a fault."""

from __future__ import annotations

import subprocess
import threading
import time
from itertools import pairwise
from types import TracebackType

from berny.lab import harness
from berny.lab.lab import Lab


class Watch:
    """Polls the newest point; a machine that is down does not respond, and is polled again."""

    def __init__(self, lab: Lab, pipeline: str) -> None:
        self._command = lab.ssh(harness.node(lab, pipeline), harness.command(pipeline, "newest"))
        # A frozen or cut off machine does not close connections.
        self._command[1:1] = ["-o", "ServerAliveInterval=2", "-o", "ServerAliveCountMax=2"]
        self._process: subprocess.Popen[str] | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self.told: list[tuple[float, float]] = []
        """When it was polled, and when the newest point was recorded (Unix seconds)."""

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        if self._process:
            self._process.terminate()
        self._thread.join(10)

    def _follow(self) -> None:
        while not self._stop.is_set():
            with subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            ) as self._process:
                assert self._process.stdout is not None
                for line in self._process.stdout:
                    if line.strip():
                        self.told.append((time.time(), float(line)))
            self._stop.wait(1)

    def fresh_after(self, moment: float, seconds: float) -> float | None:
        """Wait for a point that was recorded after a moment; return when it appeared, or None after ``seconds``."""
        deadline = time.time() + seconds
        while time.time() < deadline:
            found = next((asked for asked, newest in self.told if newest > moment), None)
            if found:
                return found
            time.sleep(0.2)
        return None

    def longest_silence(self, since: float, until: float) -> float:
        """Return the longest time, within a span, between two moments at which a newer point appeared."""
        moments, newest = [since], 0.0
        for asked, recorded in self.told:
            if recorded > newest:
                newest = recorded
                if since < asked < until:
                    moments.append(asked)
        moments.append(until)
        return max(later - earlier for earlier, later in pairwise(moments))
