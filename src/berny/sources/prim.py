"""PRIM, the API of Île-de-France Mobilités: stop monitoring (SIRI Lite).

Source of the format: "Prochains passages" of the PRIM catalogue, and the SIRI 2.0 profile of Île-de-France.
"""

from __future__ import annotations

import hashlib
import json
import random
from typing import Any

import requests
import urllib3

CAP_SECONDS = 300.0
DAY_SECONDS = 86400.0


class Unauthorized(Exception):
    """The key is refused: a person has to act."""


class RetryLater(Exception):
    """The source can't answer now. ``seconds`` is what it asked to wait, or None."""

    def __init__(self, reason: str, seconds: float | None = None) -> None:
        super().__init__(reason)
        self.seconds = seconds


class MalformedAnswer(Exception):
    """A complete answer that is not one of stop monitoring."""


class PrimError(Exception):
    """The API reports an error inside an answer."""


def backoff(attempt: int, retry_after: float | None = None) -> float:
    """Return the seconds to wait after ``attempt`` failures in a row: exponential with full jitter, 300 at most.

    What the source asked for is the least.
    """
    return max(retry_after or 0.0, random.uniform(0, min(CAP_SECONDS, 2.0 ** min(attempt, 9))))


def visits(answer: Any) -> list[dict[str, Any]]:
    """Return the visits of a parsed answer: each ``MonitoredStopVisit`` of each delivery.

    Raises:
        MalformedAnswer: the shape is another.
        PrimError: a delivery holds an ErrorCondition (its Status may still be "true").
    """
    try:
        found = []
        for delivery in answer["Siri"]["ServiceDelivery"]["StopMonitoringDelivery"]:
            error = delivery.get("ErrorCondition")
            if error:
                information = error.get("ErrorInformation") or {}
                raise PrimError(information.get("ErrorText") or json.dumps(error, ensure_ascii=False))
            for visit in delivery.get("MonitoredStopVisit") or []:
                if not isinstance(visit, dict):
                    raise MalformedAnswer("a MonitoredStopVisit is no object")
                found.append(visit)
        return found
    except (KeyError, TypeError, AttributeError) as error:
        raise MalformedAnswer(f"no Siri.ServiceDelivery.StopMonitoringDelivery list: {error!r}") from None


def _inside(value: Any, *path: str) -> str:
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value if isinstance(value, str) else ""


def journey(visit: dict[str, Any]) -> str:
    """Return the journey's id, or an empty string."""
    return _inside(visit, "MonitoredVehicleJourney", "FramedVehicleJourneyRef", "DatedVehicleJourneyRef")


def stop(visit: dict[str, Any]) -> str:
    """Return the stop's id, or an empty string."""
    return _inside(visit, "MonitoringRef", "value")


def identity(visit: dict[str, Any]) -> str:
    """Return the identity of an observation (32 hex digits): journey, stop, RecordedAtTime and the visit's own digest."""
    canonical = json.dumps(visit, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    # Half a surrogate, which JSON may hold, has no UTF-8 proper.
    digest = hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()
    named = "\n".join([journey(visit), stop(visit), _inside(visit, "RecordedAtTime"), digest])
    return hashlib.sha256(named.encode("utf-8", "surrogatepass")).hexdigest()[:32]


class Prim:
    """The client. ``poll`` returns the body of one complete answer, unparsed."""

    def __init__(
        self, base_url: str, api_key: str, monitoring_ref: str, line_ref: str, timeout: tuple[float, float] = (5, 20)
    ) -> None:
        self._url = f"{base_url.rstrip('/')}/marketplace/stop-monitoring"
        self._query = {"MonitoringRef": monitoring_ref, "LineRef": line_ref}
        self._timeout = timeout
        self._session = requests.Session()
        self._session.headers.update({"apikey": api_key, "Accept": "application/json"})
        self._session.trust_env = False

    def poll(self) -> bytes:
        """Return the body of an answer that came whole, with status 200.

        Raises:
            Unauthorized: the key is refused (401, 403).
            RetryLater: a limit (429), an error of the server, a time-out, or an answer cut short.
        """
        try:
            with self._session.get(self._url, params=self._query, timeout=self._timeout, stream=True) as answer:
                if answer.status_code in (401, 403):
                    raise Unauthorized(
                        f"{self._url} answers {answer.status_code}: PRIM_API_KEY is missing, wrong or not allowed to read "
                        "stop-monitoring. Get a key at prim.iledefrance-mobilites.fr, run site.yml with PRIM_API_KEY set, "
                        "then start the pipeline again"
                    )
                if answer.status_code != 200:
                    raise RetryLater(f"answers {answer.status_code}", _retry_after(answer))
                return self._whole(answer)
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            raise RetryLater(type(error).__name__) from None

    @staticmethod
    def _whole(answer: requests.Response) -> bytes:
        answer.raw.enforce_content_length = True
        body = b"".join(answer.iter_content(1 << 16))
        told = answer.headers.get("Content-Length")
        if told and "Content-Encoding" not in answer.headers and len(body) < int(told):
            raise RetryLater(f"the answer was cut short: {len(body)} of {told} bytes")
        return body


def _retry_after(answer: requests.Response) -> float | None:
    try:
        return min(DAY_SECONDS, max(0.0, float(answer.headers["Retry-After"])))
    except (KeyError, ValueError):
        return None
