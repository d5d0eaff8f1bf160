"""PRIM, the API of Île-de-France Mobilités: stop monitoring (SIRI Lite).

Source of the format: "Prochains passages" of the PRIM catalogue, and the SIRI 2.0 profile of Île-de-France.
"""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from berny.runtime import response
from berny.runtime.http_source import SAID_CHARACTERS, HttpSource
from berny.runtime.response import BadPart, MalformedResponse, Observation

TIME = (
    "(19|20|21)[0-9]{2}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}(:[0-9]{2}([.][0-9]{1,9})?)?"
    "(Z|[+-](0[0-9]|1[0-4]):[0-5][0-9])"
)
"""A time (ISO 8601, for Python and for Spark). One without an offset is none: whether it is UTC or Paris, nobody knows."""
ENVELOPE = ("ItemIdentifier", "ValidUntilTime")
"""What a visit says of the message and not of the train."""


class MalformedAnswer(MalformedResponse):
    """A complete answer that is not one of stop monitoring."""


# -- what a response holds ---------------------------------------------------------------------------------------------


def read(answer: Any) -> tuple[list[dict[str, Any]], list[BadPart]]:
    """Return the visits of a parsed response, each ``MonitoredStopVisit`` of each delivery, and the parts that are none.

    An ErrorCondition is such a part (Status may still be "true"), and so is a visit or a delivery that is no object.

    Raises:
        MalformedAnswer: the shape is another.
    """
    try:
        service = answer["Siri"]["ServiceDelivery"]
        error = service.get("ErrorCondition")
        deliveries = service.get("StopMonitoringDelivery") if error else service["StopMonitoringDelivery"]
    except (KeyError, TypeError, AttributeError) as wrong:
        raise MalformedAnswer(f"no Siri.ServiceDelivery.StopMonitoringDelivery list: {wrong!r}") from None
    bad = [BadPart(_error_text(error), "ErrorCondition", error)] if error else []
    if not isinstance(deliveries, list) and not error:
        raise MalformedAnswer("no Siri.ServiceDelivery.StopMonitoringDelivery list: it is something else")
    found: list[dict[str, Any]] = []
    for number, delivery in enumerate(deliveries if isinstance(deliveries, list) else []):
        for part in _parts(delivery, f"StopMonitoringDelivery[{number}]"):
            if isinstance(part, BadPart):
                bad.append(part)
            else:
                found.append(part)
    return found, bad


def _parts(delivery: Any, where: str) -> Iterator[dict[str, Any] | BadPart]:
    if not isinstance(delivery, dict):
        yield BadPart("a delivery that is no object", where, delivery)
        return
    error = delivery.get("ErrorCondition")
    if error:
        rest = {name: value for name, value in delivery.items() if name != "MonitoredStopVisit"}
        yield BadPart(_error_text(error), where, rest)
    listed = delivery.get("MonitoredStopVisit")
    if listed is not None and not isinstance(listed, list):
        yield BadPart("a MonitoredStopVisit that is no list", f"{where}.MonitoredStopVisit", listed)
        return
    for number, visit in enumerate(listed or []):
        inside = f"{where}.MonitoredStopVisit[{number}]"
        yield visit if isinstance(visit, dict) else BadPart("a visit that is no object", inside, visit)


def _error_text(error: Any) -> str:
    information = error.get("ErrorInformation") if isinstance(error, dict) else None
    words = (
        [information.get(name) for name in ("ErrorText", "ErrorDescription")] if isinstance(information, dict) else []
    )
    told = ": ".join(dict.fromkeys(word for word in words if isinstance(word, str) and word))
    return f"ErrorCondition: {told or json.dumps(error)}"[:SAID_CHARACTERS]


def visits(answer: Any) -> list[dict[str, Any]]:
    """Return the visits of a parsed response.

    Raises:
        MalformedAnswer: it is none of stop monitoring.
    """
    return read(answer)[0]


def _inside(value: Any, *path: str) -> Any:
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _text_inside(value: Any, *path: str) -> str:
    found = _inside(value, *path)
    return found if isinstance(found, str) else ""


def journey(visit: dict[str, Any]) -> str:
    """Return the journey's id, or an empty string."""
    return _text_inside(visit, "MonitoredVehicleJourney", "FramedVehicleJourneyRef", "DatedVehicleJourneyRef")


def stop(visit: dict[str, Any]) -> str:
    """Return the stop's id, or an empty string."""
    return _text_inside(visit, "MonitoringRef", "value")


def identity(visit: dict[str, Any]) -> str:
    """Return the identity of an observation (32 hex digits): journey, stop, RecordedAtTime and a digest of the visit.

    The digest leaves out ``ENVELOPE``: the same said of the same train under another number is the same observation. It is
    another one when the source recorded it at another moment, or says anything else.
    """
    content = {name: value for name, value in visit.items() if name not in ENVELOPE}
    return response.identity(content, journey(visit), stop(visit), _text_inside(visit, "RecordedAtTime"))


def observations(answer: Any) -> list[Observation | BadPart]:
    """Return each visit of a parsed response as an observation, and the parts that are none.

    Raises:
        MalformedAnswer: it is none of stop monitoring.
    """
    found, bad = read(answer)
    named = [Observation(identity(visit), f"{journey(visit)}|{stop(visit)}", {"visit": visit}) for visit in found]
    return [*named, *bad]


# -- what a visit says of its train ------------------------------------------------------------------------------------


def moment(text: object) -> dt.datetime | None:
    """Return the moment of a time as ``TIME`` has it, or None where it is not one."""
    if not isinstance(text, str) or not re.fullmatch(TIME, text):
        return None
    try:
        return dt.datetime.fromisoformat(text)
    except ValueError:
        return None


@dataclass(frozen=True)
class Movement:
    """An arrival or a departure: the names of its fields in a MonitoredCall."""

    expected: str
    aimed: str
    status: str


DEPARTURE = Movement("ExpectedDepartureTime", "AimedDepartureTime", "DepartureStatus")
ARRIVAL = Movement("ExpectedArrivalTime", "AimedArrivalTime", "ArrivalStatus")


def cancels(status: object) -> bool:
    """Tell whether a status says that the train does not run."""
    return str(status).lower() == "cancelled"


def outcome(visit: dict[str, Any]) -> tuple[float | None, bool]:
    """Return delay in seconds, None where it is unknown, and whether cancelled. This is the definition:

    - The departure counts where one of its two times is known, else the arrival. A status decides nothing here: the source
      says ``DepartureStatus: onTime`` of trains that end at the stop.
    - The train is cancelled where the status of what counts says so; where that is not told, the other one. Of a call with
      no time at all either will do.
    - The delay is expected minus aimed time of what counts, where both are known and the train is not cancelled.

    The columns of the analytics say the same in Spark's words; tests hold both against each other.
    """
    call = _inside(visit, "MonitoredVehicleJourney", "MonitoredCall")
    call = call if isinstance(call, dict) else {}
    departs, arrives = (
        any(moment(call.get(name)) for name in (movement.expected, movement.aimed)) for movement in (DEPARTURE, ARRIVAL)
    )
    counts, other = (DEPARTURE, ARRIVAL) if departs else (ARRIVAL, DEPARTURE)
    told = [call.get(movement.status) for movement in (counts, other)]
    told = [status for status in told if status not in (None, "")]
    cancelled = any(map(cancels, told[:1] if departs or arrives else told))
    expected, aimed = moment(call.get(counts.expected)), moment(call.get(counts.aimed))
    if cancelled or not expected or not aimed:
        return None, cancelled
    return (expected - aimed).total_seconds(), False


# -- the client --------------------------------------------------------------------------------------------------------


class Prim(HttpSource):
    """The client. ``poll`` returns the body of one complete answer, unparsed.

    Args:
        base_url: the API's address.
        api_key: the key; no message ever has it.
        monitoring_ref: the stop.
        line_ref: the line.
        timeout: seconds to connect, seconds to wait for more.
        proxy: address of a proxy, or empty.

    Raises:
        Refused: an address or the key can't be used; nothing was asked.
    """

    prefix = "PRIM"
    request_settings = "PRIM_BASE_URL, PRIM_MONITORING_REF and PRIM_LINE_REF"
    key_advice = (
        "PRIM_API_KEY is missing, wrong or not allowed to read stop-monitoring. Get a key at "
        "prim.iledefrance-mobilites.fr, run site.yml with PRIM_API_KEY set"
    )

    def __init__(
        self,
        base_url: str,
        api_key: str,
        monitoring_ref: str,
        line_ref: str,
        timeout: tuple[float, float] = (5, 20),
        proxy: str = "",
    ) -> None:
        query = {"MonitoringRef": monitoring_ref, "LineRef": line_ref}
        path, headers = "marketplace/stop-monitoring", {"apikey": api_key}
        super().__init__(base_url, path, query, api_key, headers=headers, timeout=timeout, proxy=proxy)

    def explain(self, body: str) -> str:
        """Return its ErrorCondition, else all of it."""
        with suppress(ValueError, RecursionError, MalformedAnswer):
            return "; ".join(part.reason for part in read(json.loads(body))[1]) or body
        return body
