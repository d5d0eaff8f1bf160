"""From a response of a source to records: one for each observation, and a dead letter for each malformed part."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from berny.runtime.kafka import RECORD_BYTES, Record, dead_letter
from berny.runtime.spool import Answer

OVERHEAD_BYTES = 4096


class MalformedResponse(Exception):
    """A complete response that is not what the source promises."""


@dataclass(frozen=True)
class Observation:
    """What a source reports about one object at one time."""

    identity: str
    key: str
    """Records of one key stay in order."""
    content: dict[str, Any]
    """Fields of the record's value."""


@dataclass(frozen=True)
class BadPart:
    """A malformed part of a response, and why it is malformed; the other parts are not affected."""

    reason: str
    where: str
    """Its path in the response, such as ``StopMonitoringDelivery[0].MonitoredStopVisit[3]``."""
    value: Any


def identity(content: Any, *names: str) -> str:
    """Return the identity of an observation (32 hex digits): a digest of its names and its content."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    # JSON may contain lone surrogates, which strict UTF-8 can't encode.
    digest = hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()
    return hashlib.sha256("\n".join([*names, digest]).encode("utf-8", "surrogatepass")).hexdigest()[:32]


def records(
    answer: Answer, topic: str, source: str, data_origin: str, parse: Callable[[Any], Iterable[Observation | BadPart]]
) -> list[tuple[str, Record]]:
    """Return identity and record of each observation of a response, then a dead letter without identity for each bad part.

    A response that can't be parsed becomes one dead letter. A record's value is JSON: identity, observed_at (Unix seconds),
    data_origin, spool_offset and the observation's content.

    Args:
        answer: the response from the spool.
        topic: the topic of the records; dead letters go to ``<topic>.dlq``.
        source: the source's name, for the origin of dead letters.
        data_origin: distinguishes responses of the API from simulated ones.
        parse: yields the parts of the parsed JSON, or raises MalformedResponse.
    """
    where = {"source": source, "spool_offset": answer.offset}
    common = {"observed_at": answer.fetched_at, "data_origin": data_origin, "spool_offset": answer.offset}
    good: list[tuple[str, Record]] = []
    letters: list[tuple[str, Record]] = []
    try:
        for part in parse(json.loads(answer.body)):
            if isinstance(part, Observation):
                good.append((part.identity, _record(topic, where, part, common)))
            else:
                letters.append(("", dead_letter(topic, part.reason, where | {"part": part.where}, _json(part.value))))
    except (ValueError, RecursionError, MalformedResponse) as error:
        return [("", dead_letter(topic, f"{type(error).__name__}: {error}", where, answer.body))]
    return good + letters


def _record(topic: str, where: dict[str, Any], part: Observation, common: dict[str, Any]) -> Record:
    value = _json({"identity": part.identity, **common, **part.content})
    key = part.key.encode(errors="replace")
    if len(value) + len(key) > RECORD_BYTES - OVERHEAD_BYTES:
        return dead_letter(topic, "larger than the limit for a record", where | {"identity": part.identity}, value)
    return Record(topic, key, value)


def _json(value: object) -> bytes:
    # ASCII escapes also represent lone surrogates, which UTF-8 can't encode.
    return json.dumps(value).encode()
