"""A server with the toy's wire format, and the ground truth of what it served.

The items of a response are on disk before it is sent; once the client's kernel has acknowledged all of it, one more line says
that it was served.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import struct
import termios
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingTCPServer
from typing import Any

from berny.pipelines.toy import source

FAULTS = ("500", "bad_parts")
REPEATS = 2
"""How many items of the response before a response repeats."""
DELIVERY_SECONDS = 120


class Simulator:
    """New items at a rate, each with the next number."""

    def __init__(self, truth: Path, rate: float, run: str) -> None:
        self.rate, self.run = rate, run
        self.answers = self.observations = self.served = 0
        self.lock = threading.Lock()
        self._faults: list[dict[str, Any]] = []
        self._due, self._last, self._recent = 0.0, time.time(), list[dict[str, Any]]()
        # What a crash left of a last line is no line.
        whole = truth.read_bytes() if truth.exists() else b""
        self._file = truth.open("a")
        self._file.truncate(whole.rfind(b"\n") + 1)
        lines = truth.read_text().splitlines()[-100:]
        self.answers = max((json.loads(line)["answer"] for line in lines), default=0)

    def note(self, *lines: dict[str, Any]) -> None:
        """Append lines to the ground truth, and sync it."""
        self._file.write("".join(json.dumps(line) + "\n" for line in lines))
        self._file.flush()
        os.fsync(self._file.fileno())

    def fault(self) -> str:
        """Return the kind of fault that applies to this response, and count it."""
        for fault in self._faults:
            if fault["left"] > 0 and time.time() < fault["until"]:
                fault["left"] -= 1
                return str(fault["kind"])
        self._faults.clear()
        return ""

    def fail(self, kind: str, count: int = 1, seconds: float = 0) -> None:
        """Fail from now on, for a number of responses or for seconds; ``none`` heals."""
        if kind not in (*FAULTS, "none"):
            raise ValueError(f"kind is one of {', '.join(FAULTS)}, none")
        until, left = (time.time() + seconds, float("inf")) if seconds else (float("inf"), count)
        self._faults = [] if kind == "none" else [*self._faults, {"kind": kind, "until": until, "left": left}]

    def items(self) -> list[dict[str, Any]]:
        """Return the items since the last call, then a few that were served before."""
        now = time.time()
        # A client that was away for long is not served all of it.
        self._due = min(self._due + self.rate * (now - self._last), 60 * max(self.rate, 1))
        count, self._last = int(self._due), now
        self._due -= count
        first = self.observations
        # Made anew after a restart, an item of the same name has another time.
        fresh = [{"name": f"item-{number}", "number": number, "at": now} for number in range(first, first + count)]
        self.observations += count
        repeated, self._recent = self._recent[-REPEATS:], fresh or self._recent
        return fresh + repeated

    def respond(self) -> tuple[int, bytes, dict[str, Any]]:
        """Return status and body of a response, and what marks it in the ground truth."""
        with self.lock:
            kind = self.fault()
            if kind == "500":
                return 500, b"{}", {}
            self.answers += 1
            mark = {"answer": self.answers, "run": self.run}
            items = self.items()
            told = [{"number": item["number"], "recorded": item["at"], "at": time.time()} for item in items]
            named = zip(items, told, strict=True)
            self.note(*({**mark, "identity": source.identity(item), **words} for item, words in named))
            self.served += len(items)
            parts: list[Any] = [None, {"number": 1}] if kind == "bad_parts" else []
            # No two responses are the same: a line that is in HDFS twice was landed twice.
            return 200, json.dumps({"at": time.time(), "items": [*parts, *items]}).encode(), mark

    def stats(self) -> dict[str, Any]:
        """Return what was served."""
        return {name: getattr(self, name) for name in ("answers", "observations", "served", "rate", "run")}

    def set_run(self, run: str | None = None, rate: float | None = None) -> None:
        """Name the run that responses belong to from now on, and set the rate."""
        self.run, self.rate = self.run if run is None else run, self.rate if rate is None else float(rate)


class Handler(BaseHTTPRequestHandler):
    """The source, and ``/_simulator``."""

    simulator: Simulator

    def do_GET(self) -> None:
        """Serve items, or what was served."""
        if self.path == "/_simulator/stats":
            self.send(200, json.dumps(self.simulator.stats()).encode())
        elif not self.headers.get("X-Api-Key"):
            self.send(401, b"{}")
        else:
            status, body, mark = self.simulator.respond()
            self.send(status, body)
            if mark and delivered(self.connection):
                with self.simulator.lock:
                    self.simulator.note({**mark, "served": True})

    def do_POST(self) -> None:
        """Set the run, or fail."""
        does: dict[str, Callable[..., None]]
        does = {"/_simulator/run": self.simulator.set_run, "/_simulator/faults": self.simulator.fail}
        words = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        try:
            with self.simulator.lock:
                does[self.path](**words)
        except (KeyError, TypeError, ValueError) as error:
            self.send(400, json.dumps({"error": str(error)}).encode())
        else:
            self.send(200, b"{}")

    def send(self, status: int, body: bytes) -> None:
        """Send a response."""
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, form: str, *words: object) -> None:
        """Log nothing of each request."""


def delivered(connection: socket.socket) -> bool:
    """Wait until the other end's kernel has acknowledged all that was written (``SIOCOUTQ``, tcp(7)), or has gone."""
    deadline = time.monotonic() + DELIVERY_SECONDS
    while time.monotonic() < deadline:
        if not struct.unpack("i", fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(4)))[0]:
            return True
        time.sleep(0.005)
    return False


class Server(ThreadingTCPServer):
    """Ends with requests under way."""

    allow_reuse_address = daemon_threads = True


def serve(listen: str, port: int, simulator: Simulator) -> None:
    """Serve until SIGTERM or SIGINT."""
    Handler.simulator = simulator
    Server((listen, port), Handler).serve_forever()
