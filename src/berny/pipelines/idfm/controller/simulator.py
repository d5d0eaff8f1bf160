"""PRIM's wire format, and the ground truth: its delays are from the timetable, not parsed from the response."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from aiohttp import web

from berny.controller import simulator
from berny.pipelines.idfm import prim
from berny.pipelines.idfm.controller.timetable import CANCELLED, Train, near, visit

FAULTS = (
    "400", "401", "403", "429", "500", "slow", "cut", "malformed", "bad_parts", "expired", "twice", "out_of_order", "empty",
)  # fmt: skip
STALE_SECONDS = 6 * 3600
EXPIRED_SECONDS = 400 * 86400
"""Older than the retention of any sink."""
UNKNOWN_LINE = {"ErrorInformation": {"ErrorText": "Le couple MonitoringRef/LineRef n'existe pas"}}
REPEATS = 4
"""How many observations of earlier responses a response repeats, as the API does."""
SLOW_SECONDS = 30


@dataclass
class Observation:
    """A visit as it is served, and its true delay and cancellation."""

    visit: dict[str, Any]
    identity: str
    delay: float | None
    cancelled: bool


class Simulator(simulator.Simulator):
    """The service day, served at a rate.

    Args:
        seed: the same seed and the same clock produce the same observations.
        rate: new observations per second.
        truth: the file that the ground truth is appended to.
        recordings: folder of recorded responses to replay instead.
        clock: returns the Unix time.
        run: name of the run in the ground truth.
    """

    kinds = FAULTS

    def __init__(
        self,
        seed: int,
        rate: float,
        truth: Path,
        recordings: Path | None = None,
        clock: Callable[[], float] = time.time,
        run: str = "",
    ) -> None:
        super().__init__(truth, rate, run, clock)
        self.seed = seed
        self._told: dict[str, int] = {}
        self._turn = 0
        self._repeats = 0
        self._recent: list[Observation] = []
        files = sorted(recordings.glob("*.json")) if recordings else []
        self._recorded: Iterator[bytes] | None = iter([path.read_bytes() for path in files]) if recordings else None

    def routes(self) -> Iterable[web.RouteDef]:
        """Return the path of stop monitoring."""
        return [web.get("/marketplace/stop-monitoring", self.monitor)]

    # -- observations ------------------------------------------------------------------------------------------------

    def observe(self, age: float = 0) -> list[Observation]:
        """Return the observations since the last call, recorded ``age`` seconds ago, then a few repeated ones."""
        count, since, now = self.due()
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
        """Return an observation as the API repeats it: the same content under another message number."""
        self._repeats += 1
        return replace(one, visit=one.visit | {"ItemIdentifier": f"RATP-SIV:Item::46007-again-{self._repeats}:LOC"})

    def answer(self, observations: list[Observation], bad_parts: bool = False) -> bytes:
        """Return a response of the API with observations; with ``bad_parts``, also malformed parts and an error."""
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

    async def monitor(self, request: web.Request) -> web.StreamResponse:
        """Handle a request of stop monitoring."""
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
        mark = self.mark()
        if kind == "malformed":
            self.note(mark, [{"malformed": True}])
            return await self.send(request, b'{"Siri": {"ServiceDelivery": {"StopMonitoringDelivery": [{"Monit', mark)
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
        return await self.send(request, body, mark, cut=kind == "cut")

    def _replay(self) -> tuple[bytes, list[Observation]]:
        body = next(self._recorded or iter(()), None)
        if body is None:
            return self.answer([]), []
        return body, [Observation(v, prim.identity(v), *prim.outcome(v)) for v in prim.visits(json.loads(body))]
