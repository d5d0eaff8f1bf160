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
"""A time (ISO 8601, as Python and Spark parse it). The offset is required: without, it could be UTC or Paris time."""
_TIME = re.compile(TIME)
ENVELOPE = ("ItemIdentifier", "ValidUntilTime")
"""Fields of a visit that describe the message, not the train."""


class MalformedAnswer(MalformedResponse):
    """A complete response that is not a response of stop monitoring."""


# -- the parts of a response -------------------------------------------------------------------------------------------


def read(answer: Any) -> tuple[list[dict[str, Any]], list[BadPart]]:
    """Return the visits of a parsed response, each ``MonitoredStopVisit`` of each delivery, and its bad parts.

    Bad parts are each ErrorCondition (Status may still be "true"), and visits and deliveries that are not objects.

    Raises:
        MalformedAnswer: the structure is not that of stop monitoring.
    """
    try:
        service = answer["Siri"]["ServiceDelivery"]
        error = service.get("ErrorCondition")
        deliveries = service.get("StopMonitoringDelivery") if error else service["StopMonitoringDelivery"]
    except (KeyError, TypeError, AttributeError) as wrong:
        raise MalformedAnswer(f"no Siri.ServiceDelivery.StopMonitoringDelivery list: {wrong!r}") from None
    bad = [BadPart(_error_text(error), "ErrorCondition", error)] if error else []
    if not isinstance(deliveries, list) and not error:
        raise MalformedAnswer("Siri.ServiceDelivery.StopMonitoringDelivery is not a list")
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
        yield BadPart("the delivery is not an object", where, delivery)
        return
    error = delivery.get("ErrorCondition")
    if error:
        rest = {name: value for name, value in delivery.items() if name != "MonitoredStopVisit"}
        yield BadPart(_error_text(error), where, rest)
    listed = delivery.get("MonitoredStopVisit")
    if listed is not None and not isinstance(listed, list):
        yield BadPart("MonitoredStopVisit is not a list", f"{where}.MonitoredStopVisit", listed)
        return
    for number, visit in enumerate(listed or []):
        inside = f"{where}.MonitoredStopVisit[{number}]"
        yield visit if isinstance(visit, dict) else BadPart("the visit is not an object", inside, visit)


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
        MalformedAnswer: it is not a response of stop monitoring.
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

    The digest excludes ``ENVELOPE``, so a repetition of the same content under another message number has the same identity.
    Another RecordedAtTime, or any other content, makes another observation.
    """
    content = {name: value for name, value in visit.items() if name not in ENVELOPE}
    return response.identity(content, journey(visit), stop(visit), _text_inside(visit, "RecordedAtTime"))


def observations(answer: Any) -> list[Observation | BadPart]:
    """Return each visit of a parsed response as an observation, and the bad parts.

    Raises:
        MalformedAnswer: it is not a response of stop monitoring.
    """
    found, bad = read(answer)
    named = [Observation(identity(visit), f"{journey(visit)}|{stop(visit)}", {"visit": visit}) for visit in found]
    return [*named, *bad]


# -- the outcome of a visit --------------------------------------------------------------------------------------------


def moment(text: object) -> dt.datetime | None:
    """Parse a time in the format ``TIME``; return None if it is not one."""
    if not isinstance(text, str) or not _TIME.fullmatch(text):
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
    """Return whether a status means that the train does not run."""
    return str(status).lower() == "cancelled"


def outcome(visit: dict[str, Any]) -> tuple[float | None, bool]:
    """Return the delay in seconds, None if it is unknown, and whether the train is cancelled. This is the definition:

    - The departure counts if one of its two times is known, else the arrival. The status is not considered here, since the
      source reports ``DepartureStatus: onTime`` for trains that terminate at the stop.
    - The train is cancelled if the status of the departure or arrival that counts says so, or the other one if that is
      missing. For a call without any time, either is sufficient.
    - The delay is expected minus aimed time of what counts, if both are known and the train is not cancelled.

    ``columns.judged`` implements the same definition in Spark; tests compare both.
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
    """The client. ``poll`` returns the body of one complete response, unparsed.

    Args:
        base_url: the API's address.
        api_key: the key; messages mask it.
        monitoring_ref: the stop.
        line_ref: the line.
        timeout: seconds to connect, seconds to wait for data.
        proxy: address of a proxy, or empty.

    Raises:
        Refused: an address or the key can't be used; no request was made.
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
        """Return the text of its ErrorCondition, or else the body."""
        with suppress(ValueError, RecursionError, MalformedAnswer):
            return "; ".join(part.reason for part in read(json.loads(body))[1]) or body
        return body
