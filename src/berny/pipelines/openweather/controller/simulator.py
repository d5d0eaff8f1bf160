"""OpenWeather's wire format, and the truth of what was served: values are the climate's own, not read back."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from aiohttp import web

from berny.controller import simulator
from berny.pipelines.openweather import openweather
from berny.pipelines.openweather.controller import climate
from berny.pipelines.openweather.controller.climate import CITIES, City

ANYWHERE = ("401", "404", "429", "500", "slow", "cut")
"""Faults of every request; the others are of the current weather."""
FAULTS = (*ANYWHERE, "malformed", "no_main", "absurd")
ERRORS: dict[str, tuple[int, dict[str, Any]]] = {
    "401": (
        401,
        {"cod": 401, "message": "Invalid API key. See https://openweathermap.org/faq#error401 for more info."},
    ),
    "404": (404, {"cod": "404", "message": "city not found"}),
    "429": (429, {"cod": 429, "message": "Your account is temporary blocked due to exceeding of requests limitation."}),
    "500": (500, {"cod": 500, "message": "Internal server error"}),
}
SLOW_SECONDS = 30
WAITING_SECONDS = 2
"""New observations of more than this time do not wait for a client that asks too seldom."""


class Simulator(simulator.Simulator):
    """The climate, served at a rate: a response holds one observation, a new one when it is due, else the last one again.

    Args:
        seed: the same seed and the same clock give the same observations.
        rate: new observations a second.
        truth: file that the truth is appended to.
        clock: returns Unix time.
        run: name of the run in the truth.
    """

    kinds = FAULTS

    def __init__(
        self, seed: int, rate: float, truth: Path, clock: Callable[[], float] = time.time, run: str = ""
    ) -> None:
        super().__init__(truth, rate, run, clock)
        self.seed = seed
        self._waiting = 0
        # After a restart too, each observation has another number.
        self._number = int(clock())
        self._last_told: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {}
        self._air: dict[str, int] = {}
        """Of each city what was served since its last weather: the client puts both into one message."""

    def routes(self) -> Iterable[web.RouteDef]:
        """Return the paths of the API."""
        parts = {"weather": self.weather, "forecast": self.forecast, "air_pollution": self.air_pollution}
        return [web.get(f"/data/2.5/{name}", handler) for name, handler in parts.items()]

    async def _refusal(self, request: web.Request, kind: str | None, city: City | None) -> web.Response | None:
        """Return the response to a call that is refused, or None, after a while if the source is to be slow."""
        if not request.query.get("appid"):
            kind = "401"
        elif not city:
            kind = "404"
        if kind not in ERRORS:
            if kind == "slow":
                await asyncio.sleep(SLOW_SECONDS)
            return None
        status, body = ERRORS[kind]
        return web.json_response(body, status=status)

    async def _beside(
        self, request: web.Request, city: City | None, make: Callable[[City], dict[str, Any]]
    ) -> web.StreamResponse:
        kind = self.fault(ANYWHERE)
        refusal = await self._refusal(request, kind, city)
        if refusal:
            return refusal
        assert city
        return await self.send(request, json.dumps(make(city)).encode(), cut=kind == "cut")

    async def forecast(self, request: web.Request) -> web.StreamResponse:
        """Respond to a call of the forecast."""
        city = CITIES.get(request.query.get("q", ""))
        return await self._beside(request, city, lambda city: climate.forecast(city, int(self.clock()), self.seed))

    async def air_pollution(self, request: web.Request) -> web.StreamResponse:
        """Respond to a call of the air's pollution, which is asked for by a place."""
        places = {(str(city.lat), str(city.lon)): city for city in CITIES.values()}
        city = places.get((request.query.get("lat", ""), request.query.get("lon", "")))
        made: list[dict[str, Any]] = []
        if city:
            self._air.pop(city.name, None)

        def make(city: City) -> dict[str, Any]:
            made.append(climate.air(city, int(self.clock()), self.seed))
            return made[0]

        response = await self._beside(request, city, make)
        whole = request.transport and not request.transport.is_closing()
        if city and made and whole:
            self._air[city.name] = made[0]["list"][0]["main"]["aqi"]
        return response

    def observe(self, city: City, absurd: bool = False) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return what is said of a city's weather now, and what that measures."""
        # Asked without a rate too: time without one makes nothing due later.
        due, _, _ = self.due()
        self._waiting = min(self._waiting + due, int(WAITING_SECONDS * max(self.rate, 1))) if self.rate else 0
        if self._waiting or absurd or city.name not in self._last_told:
            self._waiting = max(0, self._waiting - 1)
            self._number += 1
            self.observations += 1
            moment = int(self.clock())
            self._last_told[city.name] = climate.weather(city, moment, self._number, self.seed, absurd)
        return self._last_told[city.name]

    async def weather(self, request: web.Request) -> web.StreamResponse:
        """Respond to a call of the current weather."""
        kind, city = self.fault(), CITIES.get(request.query.get("q", ""))
        refusal = await self._refusal(request, kind, city)
        if refusal:
            return refusal
        assert city
        mark = self.mark()
        if kind in ("malformed", "no_main"):
            self.note(mark, [{kind: True}])
            body = b'{"coord":{"lon":' if kind == "malformed" else b'{"dt": 1763985600, "id": 1, "cod": 200}'
            return await self.send(request, body, mark)
        said, measured = self.observe(city, kind == "absurd")
        aqi = self._air.pop(city.name, None)
        told = {
            "identity": openweather.identity(said),
            "city_id": city.id,
            "dt": said["dt"],
            "measured": measured | ({} if aqi is None else {"aqi": aqi}),
            "at": time.time(),
        }
        self.note(mark, [told])
        self.served += 1
        return await self.send(request, json.dumps(said).encode(), mark, cut=kind == "cut")
