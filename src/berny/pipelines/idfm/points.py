"""From a record of ``idfm-processed`` to a point of the measurement ``health``: a pure function, so a replay overwrites.

Two observations must not share a point (same tags, same time). The time is RecordedAtTime in milliseconds plus 0 to
999,999 ns derived from the identity; the tag ``slot`` is one of 64 derived from the journey. So two trains recorded in the
same millisecond with the same direction, mission and stop collide with a probability of 1 in 64 million, two observations of
one train in the same millisecond with 1 in a million.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from functools import lru_cache
from typing import Any

from berny.pipelines.idfm import prim
from berny.runtime.lines import line

MEASUREMENT = "health"
SLOTS = 64
EPOCH, MILLISECOND = dt.datetime(1970, 1, 1, tzinfo=dt.UTC), dt.timedelta(milliseconds=1)


class NoPoint(ValueError):
    """A record can't be converted to a point; the message says why."""


def _number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode(errors="replace")).digest()[:8])


def milliseconds(moment: object) -> int | None:
    """Return milliseconds since 1970 of a time in the format of ``prim.moment``, or None if it is not one."""
    return _milliseconds(moment) if isinstance(moment, str) else None


@lru_cache(4096)
def _milliseconds(text: str) -> int | None:
    parsed = prim.moment(text)
    return (parsed - EPOCH) // MILLISECOND if parsed else None


@lru_cache(4096)
def _slot(journey: str) -> str:
    return str(_number(journey) % SLOTS)


def nanoseconds(recorded_at: object, identity: str) -> int:
    """Return a point's time in nanoseconds since 1970: the time of recording, plus an offset derived from the identity.

    Raises:
        NoPoint: the time of recording is malformed.
    """
    since = milliseconds(recorded_at)
    if since is None:
        raise NoPoint(f"RecordedAtTime {recorded_at!r} is not a time with an offset")
    return since * 1_000_000 + _number(identity) % 1_000_000


def point(record: dict[str, Any]) -> str:
    """Return the point of a record in line protocol. An unknown delay is left out; it is never 0.

    Raises:
        NoPoint: identity or time is missing or malformed.
    """
    identity = record.get("identity")
    if not isinstance(identity, str) or not identity.isascii() or not identity:
        raise NoPoint("the record has no identity")
    time = nanoseconds(record.get("recorded_at"), identity)
    tags = {tag: str(record.get(tag) or "unknown") for tag in ("direction", "line", "mission")}
    journey = str(record.get("journey") or "")
    tags["slot"] = _slot(journey)
    tags["stop"] = str(record.get("stop") or "unknown")
    cancelled = bool(record.get("cancelled"))
    fields: dict[str, str | float | bool] = {"identity": identity, "journey": journey, "cancelled": cancelled}
    delay = record.get("delay_sec")
    if delay is not None and not cancelled:
        if isinstance(delay, bool) or not isinstance(delay, int | float):
            raise NoPoint(f"delay_sec is {delay!r}, not a number")
        try:
            fields["delay"] = float(delay)
        except OverflowError as error:
            raise NoPoint(f"delay_sec: {error}") from None
    for name in ("status", "status_told", "destination", "platform", "data_origin", "theoretical", "predicted"):
        if (value := record.get(name)) is not None:
            fields[name] = str(value)
    # The time at which the train is due, expected or else planned, as a number that dashboards can compare with now.
    due = milliseconds(record.get("predicted"))
    due = milliseconds(record.get("theoretical")) if due is None else due
    if due is not None:
        fields["due_ms"] = due
    # A lone surrogate, which JSON may contain, becomes a question mark.
    return line(MEASUREMENT, tags, fields, time).encode(errors="replace").decode()
