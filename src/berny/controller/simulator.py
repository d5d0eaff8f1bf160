"""Common parts of simulators of sources: the ground truth of what was served, rate, faults, and control at ``/_simulator``.

The observations of a response are written to the ground truth before it is sent; once the client's kernel has acknowledged
all of it, another line records that it was served.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import logging
import os
import struct
import termios
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from aiohttp import web

LOGGER = logging.getLogger("simulator")
DELIVERY_SECONDS = 120
MOST_SECONDS = 60
"""After a longer pause, a client gets no more observations than are due in this time."""


@dataclass
class Fault:
    """A fault that is active for a number of responses or until a Unix time."""

    kind: str
    left: int | None = None
    until: float | None = None

    def active(self, now: float) -> bool:
        """Return whether it is still active."""
        return (self.left is None or self.left > 0) and (self.until is None or now < self.until)


class Simulator:
    """A simulated source. A pipeline's simulator derives from it, adds the source's paths, and serves observations at a rate.

    Args:
        truth: the file that the ground truth is appended to.
        rate: new observations per second.
        run: name of the run in the ground truth.
        clock: returns the Unix time.
    """

    kinds: ClassVar[tuple[str, ...]]
    """The kinds of faults that it supports."""

    def __init__(self, truth: Path, rate: float, run: str = "", clock: Callable[[], float] = time.time) -> None:
        self.truth, self.rate, self.run, self.clock = truth, rate, run, clock
        self.observations = self.served = 0
        self.faults: list[Fault] = []
        self._due, self._last = 0.0, clock()
        # Drop a last line that was truncated by a crash.
        content = truth.read_bytes() if truth.exists() else b""
        self._file = truth.open("a")
        self._file.truncate(content.rfind(b"\n") + 1)
        # Responses overlap: the last line may belong to an earlier one.
        lines = truth.read_text().splitlines()[-100:]
        self.answers: int = max((json.loads(line)["answer"] for line in lines), default=0)

    def routes(self) -> Iterable[web.RouteDef]:
        """Return the paths of the source."""
        raise NotImplementedError

    def due(self) -> tuple[int, float, float]:
        """Return how many new observations are due, and the span since the last call, in Unix seconds."""
        now = self.clock()
        self._due = min(self._due + self.rate * (now - self._last), MOST_SECONDS * max(self.rate, 1))
        count, since, self._last = int(self._due), self._last, now
        self._due -= count
        return count, since, now

    # -- truth -------------------------------------------------------------------------------------------------------

    def mark(self) -> dict[str, Any]:
        """Count a response, and return the mark of its lines in the truth, since responses overlap."""
        self.answers += 1
        return {"answer": self.answers, "run": self.run}

    def note(self, mark: dict[str, Any], lines: list[dict[str, Any]]) -> None:
        """Append lines of a response to the truth and sync it."""
        self._file.write("".join(json.dumps({**mark, **line}) + "\n" for line in lines))
        self._file.flush()
        os.fsync(self._file.fileno())

    async def send(
        self,
        request: web.Request,
        body: bytes,
        mark: dict[str, Any] | None = None,
        cut: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> web.StreamResponse:
        """Send a response, or half of it with ``cut``; if it has a mark, record that it was served."""
        response = web.StreamResponse(headers=headers or {"Content-Type": "application/json"})
        response.content_length = len(body)
        await response.prepare(request)
        if cut:
            await response.write(body[: len(body) // 2])
            if request.transport:
                request.transport.close()
            return response
        await response.write(body)
        await response.write_eof()
        if mark and request.transport and await _delivered(request.transport):
            self.note(mark, [{"served": True, "at": self.clock()}])
        return response

    # -- control -----------------------------------------------------------------------------------------------------

    def fault(self, kinds: Collection[str] = ()) -> str | None:
        """Return the kind of the active fault, one of ``kinds`` if given, and count the response."""
        now = self.clock()
        self.faults = [one for one in self.faults if one.active(now)]
        for one in self.faults:
            if not kinds or one.kind in kinds:
                if one.left is not None:
                    one.left -= 1
                return one.kind
        return None

    async def set_fault(self, request: web.Request) -> web.Response:
        """Inject a fault: ``{"kind": …, "count": N}`` or ``{"kind": …, "seconds": S}``; ``{"kind": "none"}`` heals all."""
        words = await request.json()
        if words.get("kind") == "none":
            self.faults.clear()
            return web.json_response({})
        if words.get("kind") not in self.kinds:
            return web.json_response({"error": f"kind is one of {', '.join(self.kinds)}, none"}, status=400)
        until = self.clock() + float(words["seconds"]) if "seconds" in words else None
        left = None if until else int(words.get("count", 1))
        self.faults.append(Fault(words["kind"], left, until))
        return web.json_response({})

    async def set_run(self, request: web.Request) -> web.Response:
        """Set the name of the current run, and the rate: ``{"run": …, "rate": …}``."""
        words = await request.json()
        self.run, self.rate = str(words.get("run", self.run)), float(words.get("rate", self.rate))
        return web.json_response({})

    async def stats(self, request: web.Request) -> web.Response:
        """Return counts of what was served, the rate and the run."""
        shown = {name: getattr(self, name) for name in ("answers", "observations", "served", "rate", "run")}
        return web.json_response(shown | {"faults": [one.kind for one in self.faults if one.active(self.clock())]})

    def application(self) -> web.Application:
        """Return the web application."""
        made = web.Application()
        made.router.add_routes(self.routes())
        made.router.add_post("/_simulator/faults", self.set_fault)
        made.router.add_post("/_simulator/run", self.set_run)
        made.router.add_get("/_simulator/stats", self.stats)
        return made


async def _delivered(transport: asyncio.Transport) -> bool:
    """Wait until the peer's kernel has acknowledged everything (``SIOCOUTQ``, tcp(7)), or the connection has ended.

    After a network cut, requests arrive late from clients that have given up meanwhile. Responses to them must not count as
    served.
    """
    deadline = time.monotonic() + DELIVERY_SECONDS
    # A duplicate of the socket can be queried even after the connection has ended.
    with closing(transport.get_extra_info("socket").dup()) as connection:
        while time.monotonic() < deadline:
            ended = transport.is_closing()
            waiting = struct.unpack("i", fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(4)))[0]
            if not waiting and not transport.get_write_buffer_size():
                return True
            if ended:
                return False
            await asyncio.sleep(0.005)
    return False


def serve(listen: str, port: int, simulator: Simulator) -> None:
    """Serve until SIGTERM or SIGINT."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    LOGGER.info("serving at http://%s:%d, truth in %s", listen, port, simulator.truth)
    web.run_app(simulator.application(), host=listen, port=port, print=None, access_log=None)
