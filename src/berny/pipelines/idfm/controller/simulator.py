"""A server with PRIM's wire format, and the truth of what it served.

Before an answer is sent, its observations with their true delays are on disk (``truth``); once the client's kernel has
acknowledged all of it, one more line says that it was served. The delays are the timetable's own, not read back from the
answer.
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
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from aiohttp import web

from berny.pipelines.idfm import prim
from berny.pipelines.idfm.controller.timetable import CANCELLED, Train, near, visit

LOGGER = logging.getLogger("simulator")
FAULTS = (
    "400", "401", "403", "429", "500", "slow", "cut", "malformed", "bad_parts", "expired", "twice", "out_of_order", "empty",
)  # fmt: skip
STALE_SECONDS = 6 * 3600
EXPIRED_SECONDS = 400 * 86400
"""Older than whatever a sink keeps."""
UNKNOWN_LINE = {"ErrorInformation": {"ErrorText": "Le couple MonitoringRef/LineRef n'existe pas"}}
REPEATS = 4
"""How many observations of earlier answers an answer repeats, as the API does."""
SLOW_SECONDS = 30
DELIVERY_SECONDS = 120


@dataclass
class Fault:
    """A way to fail, for a number of answers or until a moment."""

    kind: str
    left: int | None = None
    until: float | None = None

    def active(self, now: float) -> bool:
        """Tell whether it still applies."""
        return (self.left is None or self.left > 0) and (self.until is None or now < self.until)


@dataclass
class Observation:
    """A visit as it is served, and what is true of it."""

    visit: dict[str, Any]
    identity: str
    delay: float | None
    cancelled: bool


@dataclass
class Simulator:
    """The service day, served at a rate.

    Args:
        seed: the same seed and the same clock give the same observations.
        rate: new observations a second.
        truth: file that the truth is appended to.
        recordings: folder of recorded answers to replay instead.
    """

    seed: int
    rate: float
    truth: Path
    recordings: Path | None = None
    clock: Callable[[], float] = time.time
    run: str = ""
    answers: int = 0
    observations: int = 0
    served: int = 0
    faults: list[Fault] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._told: dict[str, int] = {}
        self._last = self.clock()
        self._due = 0.0
        self._turn = 0
        self._repeats = 0
        self._recent: list[Observation] = []
        self._recorded = self._read_recordings() if self.recordings else None
        # What a crash left of a last line is no line.
        whole = self.truth.read_bytes() if self.truth.exists() else b""
        self._file = self.truth.open("a")
        self._file.truncate(whole.rfind(b"\n") + 1)
        lines = self.truth.read_text().splitlines()
        self.answers = max((json.loads(line)["answer"] for line in lines[-1:]), default=0)

    def _read_recordings(self) -> Iterator[bytes]:
        assert self.recordings
        return iter([path.read_bytes() for path in sorted(self.recordings.glob("*.json"))])

    # -- observations ------------------------------------------------------------------------------------------------

    def observe(self, age: float = 0) -> list[Observation]:
        """Return the observations since the last call, recorded ``age`` seconds ago, then a few that were told before."""
        now = self.clock()
        self._due = min(self._due + self.rate * (now - self._last), 60 * max(self.rate, 1))
        count, since, self._last = int(self._due), self._last, now
        self._due -= count
        trains = near(self.seed, now)
        fresh = [self._one(trains, since + (now - since) * (index + 1) / (count + 1) - age) for index in range(count)]
        repeated = [self._again(one) for one in self._recent[-REPEATS:]]
        self._recent = (self._recent + fresh)[-REPEATS:]
        self.observations += len(fresh)
        return fresh + repeated

    def _one(self, trains: list[Train], moment: float) -> Observation:
        one = trains[self._turn % len(trains)]
        self._turn += 1
        told = self._told[one.journey] = self._told.get(one.journey, -1) + 1
        recorded_at = moment - (STALE_SECONDS if one.kind == "stale" else 0)
        made, delay = visit(one, told, recorded_at)
        return Observation(made, prim.identity(made), delay, one.kind in CANCELLED)

    def _again(self, one: Observation) -> Observation:
        """Return an observation as the API repeats it: the same train, under another number."""
        self._repeats += 1
        return replace(one, visit=one.visit | {"ItemIdentifier": f"RATP-SIV:Item::46007-again-{self._repeats}:LOC"})

    def answer(self, observations: list[Observation], bad_parts: bool = False) -> bytes:
        """Return an answer of the API that holds observations; with ``bad_parts`` among parts that are none."""
        now = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(self.clock())) + ".000Z"
        delivery: dict[str, Any] = {"ResponseTimestamp": now, "Version": "2.0", "Status": "true"}
        deliveries: list[Any] = [delivery | {"MonitoredStopVisit": [one.visit for one in observations]}]
        if bad_parts:
            deliveries[0]["MonitoredStopVisit"][1:1] = [None, "text"]
            deliveries.insert(0, delivery | {"ErrorCondition": UNKNOWN_LINE})
        service = {
            "ResponseTimestamp": now,
            "ProducerRef": "IVTR_HET",
            "ResponseMessageIdentifier": f"IVTR_HET:ResponseMessage:{self.seed}-{self.answers}:LOC:",
            "StopMonitoringDelivery": deliveries,
        }
        return json.dumps({"Siri": {"ServiceDelivery": service}}, ensure_ascii=False).encode()

    # -- truth -------------------------------------------------------------------------------------------------------

    def note(self, mark: dict[str, Any], lines: list[dict[str, Any]]) -> None:
        """Append lines of the answer that ``mark`` (its number and run) tells to the truth, and sync it."""
        self._file.write("".join(json.dumps({**mark, **line}) + "\n" for line in lines))
        self._file.flush()
        os.fsync(self._file.fileno())

    def _note_observations(self, mark: dict[str, Any], observations: list[Observation]) -> None:
        self.note(
            mark,
            [
                {
                    "identity": one.identity,
                    "delay": one.delay,
                    "cancelled": one.cancelled,
                    "recorded_at": one.visit["RecordedAtTime"],
                    "journey": prim.journey(one.visit),
                    "at": time.time(),
                }
                for one in observations
            ],
        )

    # -- HTTP --------------------------------------------------------------------------------------------------------

    def fault(self) -> str | None:
        """Return the kind of fault that applies to this answer, and count it."""
        for one in self.faults:
            if one.active(self.clock()):
                if one.left is not None:
                    one.left -= 1
                return one.kind
        self.faults.clear()
        return None

    async def monitor(self, request: web.Request) -> web.StreamResponse:
        """Answer a call of stop monitoring."""
        kind = self.fault()
        if not request.headers.get("apikey") or kind == "401":
            return web.json_response({"message": "No API key found in request"}, status=401)
        if kind == "400":
            delivery = {"Version": "2.0", "Status": "false", "ErrorCondition": UNKNOWN_LINE}
            siri = {"Siri": {"ServiceDelivery": {"StopMonitoringDelivery": [delivery]}}}
            return web.json_response(siri, status=400)
        if kind == "403":
            return web.Response(status=403, text="<html><body>403 Forbidden</body></html>", content_type="text/html")
        if kind == "429":
            return web.json_response({"message": "API rate limit exceeded"}, status=429, headers={"Retry-After": "2"})
        if kind == "500":
            return web.Response(status=500, text="Internal Server Error")
        if kind == "slow":
            await asyncio.sleep(SLOW_SECONDS)
        self.answers += 1
        # Other answers may begin before this one has ended.
        mark = {"answer": self.answers, "run": self.run}
        if kind == "malformed":
            self.note(mark, [{"malformed": True}])
            return await self._send(request, mark, b'{"Siri": {"ServiceDelivery": {"StopMonitoringDelivery": [{"Monit')
        if self._recorded is not None:
            body, observations = self._replay()
        else:
            observations = [] if kind == "empty" else self.observe(EXPIRED_SECONDS if kind == "expired" else 0)
            if kind == "twice":
                observations = observations + observations
            if kind == "out_of_order":
                observations = observations[::-1]
            body = self.answer(observations, kind == "bad_parts")
        self._note_observations(mark, observations)
        self.served += len(observations)
        return await self._send(request, mark, body, cut=kind == "cut")

    def _replay(self) -> tuple[bytes, list[Observation]]:
        body = next(self._recorded or iter(()), None)
        if body is None:
            return self.answer([]), []
        return body, [Observation(v, prim.identity(v), *prim.outcome(v)) for v in prim.visits(json.loads(body))]

    async def _send(
        self, request: web.Request, mark: dict[str, Any], body: bytes, cut: bool = False
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        response.content_length = len(body)
        await response.prepare(request)
        if cut:
            await response.write(body[: len(body) // 2])
            if request.transport:
                request.transport.close()
            return response
        await response.write(body)
        await response.write_eof()
        if request.transport and await _delivered(request.transport):
            self.note(mark, [{"served": True}])
        return response

    async def set_fault(self, request: web.Request) -> web.Response:
        """Fail from now on: ``{"kind": …, "count": N}`` or ``{"kind": …, "seconds": S}``; ``{"kind": "none"}`` heals."""
        words = await request.json()
        if words.get("kind") == "none":
            self.faults.clear()
            return web.json_response({})
        if words.get("kind") not in FAULTS:
            return web.json_response({"error": f"kind is one of {', '.join(FAULTS)}, none"}, status=400)
        until = self.clock() + float(words["seconds"]) if "seconds" in words else None
        left = None if until else int(words.get("count", 1))
        self.faults.append(Fault(words["kind"], left, until))
        return web.json_response({})

    async def set_run(self, request: web.Request) -> web.Response:
        """Name the run that answers belong to from now on, and set the rate: ``{"run": …, "rate": …}``."""
        words = await request.json()
        self.run, self.rate = str(words.get("run", self.run)), float(words.get("rate", self.rate))
        return web.json_response({})

    async def stats(self, request: web.Request) -> web.Response:
        """Tell what was served."""
        shown = {name: getattr(self, name) for name in ("answers", "observations", "served", "rate", "run", "seed")}
        return web.json_response(shown | {"faults": [one.kind for one in self.faults if one.active(self.clock())]})

    def application(self) -> web.Application:
        """Return the server."""
        made = web.Application()
        made.router.add_get("/marketplace/stop-monitoring", self.monitor)
        made.router.add_post("/_simulator/faults", self.set_fault)
        made.router.add_post("/_simulator/run", self.set_run)
        made.router.add_get("/_simulator/stats", self.stats)
        return made


async def _delivered(transport: asyncio.Transport) -> bool:
    """Wait until the other end's kernel has acknowledged all that was written (``SIOCOUTQ``, tcp(7)), or has gone.

    A network that was cut delivers calls late, of clients that have given up since; what is written to those would pass for
    served.
    """
    deadline = time.monotonic() + DELIVERY_SECONDS
    # Of its own, or it could not be asked about a connection that ended meanwhile.
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
    LOGGER.info("serving at http://%s:%d, truth in %s", listen, port, simulator.truth)
    web.run_app(simulator.application(), host=listen, port=port, print=None, access_log=None)
