"""From a record of ``idfm-processed`` to a point of the measurement ``health``: a pure function, so a replay overwrites.

Two observations must not meet at one point (same tags, same time). The time is RecordedAtTime, told to the millisecond, plus
0 to 999,999 ns out of the identity; the tag ``slot`` is one of 64 out of the journey. Two trains recorded in the same
millisecond with the same direction, mission and stop then meet with odds of 1 in 64 million; two observations of one train
in the same millisecond with odds of 1 in a million.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from typing import Any

from influxdb_client import Point, WritePrecision

from berny.pipelines.idfm import prim

MEASUREMENT = "health"
SLOTS = 64


class NoPoint(ValueError):
    """A record is not one that a point can be made of; the message says why."""


def _number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])


def _text(value: object) -> str:
    """Return text that can be written: half a surrogate, which JSON can tell, becomes a question mark."""
    return str(value).encode(errors="replace").decode()


def milliseconds(moment: object) -> int | None:
    """Return milliseconds since 1970 of a time as ``prim.moment`` has it, or None where it is not one."""
    told = prim.moment(moment)
    return (told - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) // dt.timedelta(milliseconds=1) if told else None


def nanoseconds(recorded_at: object, identity: str) -> int:
    """Return a point's time: nanoseconds since 1970 of a time as ``prim.moment`` has it, told apart by the identity.

    Raises:
        NoPoint: it is not one.
    """
    since = milliseconds(recorded_at)
    if since is None:
        raise NoPoint(f"RecordedAtTime {recorded_at!r} is no time with an offset")
    return since * 1_000_000 + _number(identity) % 1_000_000


def point(record: dict[str, Any]) -> Point:
    """Return the point of a record; an unknown delay is no field, never a 0.

    Raises:
        NoPoint: identity or time is missing or malformed.
    """
    identity = record.get("identity")
    if not isinstance(identity, str) or not identity.isascii() or not identity:
        raise NoPoint("a record needs an identity")
    made = Point(MEASUREMENT).time(nanoseconds(record.get("recorded_at"), identity), WritePrecision.NS)
    for tag in ("line", "direction", "mission", "stop"):
        made.tag(tag, _text(record.get(tag) or "unknown"))
    journey = _text(record.get("journey") or "")
    made.tag("slot", str(_number(journey) % SLOTS))
    delay = record.get("delay_sec")
    if delay is not None and not record.get("cancelled"):
        if isinstance(delay, bool) or not isinstance(delay, int | float):
            raise NoPoint(f"delay_sec is {delay!r}, not a number")
        try:
            made.field("delay", float(delay))
        except OverflowError as error:
            raise NoPoint(f"delay_sec: {error}") from None
    made.field("identity", identity).field("journey", journey).field("cancelled", bool(record.get("cancelled")))
    for name in ("status", "status_told", "destination", "platform", "data_origin", "theoretical", "predicted"):
        if record.get(name) is not None:
            made.field(name, _text(record[name]))
    # As a number, when the train is due: what is expected, else what was planned. Dashboards compare it with now.
    due = milliseconds(record.get("predicted"))
    due = milliseconds(record.get("theoretical")) if due is None else due
    if due is not None:
        made.field("due_ms", due)
    return made
