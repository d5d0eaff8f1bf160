"""The toy's wire format: new items at a rate, each with the next number."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from aiohttp import web

from berny.controller import simulator
from berny.pipelines.toy import source

REPEATS = 2
"""How many items of the response before a response repeats."""


class Simulator(simulator.Simulator):
    """The source; its arguments are those of every simulator."""

    kinds = ("500", "bad_parts")

    def __init__(self, truth: Path, rate: float, run: str) -> None:
        super().__init__(truth, rate, run)
        self._recent: list[dict[str, Any]] = []

    def routes(self) -> Iterable[web.RouteDef]:
        """Return the path of the items."""
        return [web.get("/items", self.respond)]

    def items(self) -> list[dict[str, Any]]:
        """Return the items since the last call, then a few that were served before."""
        count, _, now = self.due()
        first = self.observations
        # Made anew after a restart, an item of the same name has another time.
        fresh = [{"name": f"item-{number}", "number": number, "at": now} for number in range(first, first + count)]
        self.observations += count
        repeated, self._recent = self._recent[-REPEATS:], fresh or self._recent
        return fresh + repeated

    async def respond(self, request: web.Request) -> web.StreamResponse:
        """Serve the items."""
        kind = self.fault()
        if not request.headers.get("X-Api-Key") or kind == "500":
            return web.json_response({}, status=500 if kind else 401)
        mark, items = self.mark(), self.items()
        told = [{"number": item["number"], "recorded": item["at"], "at": time.time()} for item in items]
        self.note(mark, [{"identity": source.identity(item), **words} for item, words in zip(items, told, strict=True)])
        self.served += len(items)
        parts: list[Any] = [None, {"number": 1}] if kind == "bad_parts" else []
        # No two responses are the same: a line that is in HDFS twice was landed twice.
        return await self.send(request, json.dumps({"at": time.time(), "items": [*parts, *items]}).encode(), mark)
