"""An object behind S3's wire protocol, whose versions come at a rate, and the truth of what was served.

Source of the format: HeadObject and GetObject in Amazon's "S3 API Reference".
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Iterable
from email.utils import formatdate
from pathlib import Path
from typing import Any

from aiohttp import web

from berny.controller import simulator
from berny.pipelines.customers.controller import people
from berny.pipelines.customers.records import identity

ERRORS = {
    "403": (403, "SignatureDoesNotMatch", "The request signature we calculated does not match."),
    "404": (404, "NoSuchKey", "The specified key does not exist."),
    "412": (412, "PreconditionFailed", "At least one of the pre-conditions you specified did not hold"),
    "500": (500, "InternalError", "We encountered an internal error. Please try again."),
    "503": (503, "SlowDown", "Please reduce your request rate."),
}
FAULTS = ("403", "404", "500", "503", "slow", "cut", "malformed")
SLOW_SECONDS = 30
MOST_ROWS = 50_000
"""Of a version."""


class Simulator(simulator.Simulator):
    """A file whose next version has the rows that are due; it comes once the former was delivered.

    Args:
        seed: the same seed gives the same customers.
        rate: new rows a second.
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
        # After a restart too, each row is another one.
        self._number = int(clock() * 1000)
        self._versions = int(clock())
        self._delivered = True
        self._body, self._etag = b"", ""
        self._customers: list[people.Customer] = []

    def routes(self) -> Iterable[web.RouteDef]:
        """Return the object's paths."""
        return [web.head("/{bucket}/{key}", self.head), web.get("/{bucket}/{key}", self.object, allow_head=False)]

    def renew(self) -> None:
        """Make the next version if rows are due; the first one has a row at least."""
        # Asked without a rate too: time without one makes no rows due later.
        due, _, _ = self.due()
        self._waiting = min(self._waiting + due, MOST_ROWS) if self.rate else 0
        if self._etag and not (self._delivered and self._waiting):
            return
        count, self._waiting = self._waiting or 1, 0
        self._customers = [people.customer(self._number + one, self.seed) for one in range(1, count + 1)]
        self._number += count
        self._versions += 1
        self._body = people.text(self._customers, people.CODINGS[self._versions % len(people.CODINGS)])
        self._etag = hashlib.md5(self._body, usedforsecurity=False).hexdigest()
        self._delivered = False
        self.observations += count

    def _headers(self) -> dict[str, str]:
        moment = formatdate(self.clock(), usegmt=True)
        return {"ETag": f'"{self._etag}"', "Content-Type": "text/csv", "Last-Modified": moment}

    async def _refusal(self, request: web.Request, kind: str | None) -> web.Response | None:
        """Return the response to a request that is refused, or None, after a while if the server is to be slow."""
        if not request.headers.get("Authorization"):
            kind = "403"
        wanted = request.headers.get("If-Match", "").strip('"')
        if kind not in ERRORS and wanted and wanted != self._etag:
            kind = "412"
        if kind not in ERRORS:
            if kind == "slow":
                await asyncio.sleep(SLOW_SECONDS)
            return None
        status, code, message = ERRORS[kind]
        body = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{message}</Message></Error>'
        return web.Response(status=status, text=body, content_type="application/xml")

    async def head(self, request: web.Request) -> web.StreamResponse:
        """Respond with the version."""
        self.renew()
        kind = self.fault([*ERRORS, "slow"])
        refusal = await self._refusal(request, kind)
        if refusal:
            return refusal
        response = web.StreamResponse(headers=self._headers())
        response.content_length = len(self._body)
        await response.prepare(request)
        await response.write_eof()
        return response

    async def object(self, request: web.Request) -> web.StreamResponse:
        """Respond with the content."""
        kind = self.fault()
        refusal = await self._refusal(request, kind)
        if refusal:
            return refusal
        if kind == "malformed":
            return web.Response(text="<html>This is not the object.</html>", content_type="text/html")
        etag, customers = self._etag, self._customers
        mark, at = self.mark(), time.time()
        lines: list[dict[str, Any]] = [
            {"identity": identity(etag, number), "at": at, **one.truth()} for number, one in enumerate(customers, 1)
        ]
        self.note(mark, lines)
        self.served += len(customers)
        response = await self.send(request, self._body, mark, kind == "cut", self._headers())
        self._delivered = self._delivered or (kind != "cut" and etag == self._etag)
        return response
