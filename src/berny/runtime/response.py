"""From a response of a source to records: one for each observation, a dead letter for each part that is none."""

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
    """What a source says of one thing at one moment."""

    identity: str
    key: str
    """Records of one key stay in order."""
    content: dict[str, Any]
    """Fields of the record's value."""


@dataclass(frozen=True)
class BadPart:
    """A part of a response that is no observation, and why; its neighbours are none the worse."""

    reason: str
    where: str
    """Its path in the response, such as ``StopMonitoringDelivery[0].MonitoredStopVisit[3]``."""
    value: Any


def identity(content: Any, *names: str) -> str:
    """Return the identity of an observation (32 hex digits): what names it, and a digest of all that it says."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    # Half a surrogate, which JSON may hold, has no UTF-8 proper.
    digest = hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()
    return hashlib.sha256("\n".join([*names, digest]).encode("utf-8", "surrogatepass")).hexdigest()[:32]


def records(
    answer: Answer, topic: str, source: str, data_origin: str, parse: Callable[[Any], Iterable[Observation | BadPart]]
) -> list[tuple[str, Record]]:
    """Return identity and record of each observation of a response, then a dead letter, without identity, of each bad part.

    What is no response becomes one dead letter. A record's value is JSON: identity, observed_at (Unix seconds),
    data_origin, spool_offset and the observation's content.

    Args:
        answer: the response, as the spool has it.
        topic: where records go; dead letters go to ``<topic>.dlq``.
        source: its name, for the origin of dead letters.
        data_origin: tells responses of the API from simulated ones.
        parse: takes parsed JSON apart, or raises MalformedResponse.
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
    if len(value) + len(part.key) > RECORD_BYTES - OVERHEAD_BYTES:
        return dead_letter(topic, "larger than a record may be", where | {"identity": part.identity}, value)
    return Record(topic, part.key.encode(errors="replace"), value)


def _json(value: object) -> bytes:
    # As ASCII: half a surrogate, which JSON may hold, has no UTF-8.
    return json.dumps(value).encode()
