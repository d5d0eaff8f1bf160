"""PRIM, the API of Île-de-France Mobilités: stop monitoring (SIRI Lite).

Source of the format: "Prochains passages" of the PRIM catalogue, and the SIRI 2.0 profile of Île-de-France.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import random
import re
import ssl
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
import urllib3
from requests import exceptions as failures

CAP_SECONDS = 300.0
DAY_SECONDS = 86400.0
SAID_BYTES = 64 << 10
SAID_CHARACTERS = 300

TIME = (
    "(19|20|21)[0-9]{2}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}(:[0-9]{2}([.][0-9]{1,9})?)?"
    "(Z|[+-](0[0-9]|1[0-4]):[0-5][0-9])"
)
"""A time (ISO 8601, for Python and for Spark). One without an offset is none: whether it is UTC or Paris, nobody knows."""
ENVELOPE = ("ItemIdentifier", "ValidUntilTime")
"""What a visit says of the message and not of the train."""

BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
"""Debian's: what update-ca-certificates writes."""
TIMES_OF_A_CERTIFICATE = (9, 10)
"""OpenSSL's X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED: a clock is set, a certificate renewed."""


class Refused(Exception):
    """No retry helps: a person has to act. The message says what was asked and what came back."""


class Unauthorized(Refused):
    """The key is refused."""


class RetryLater(Exception):
    """The source can't answer now. ``seconds`` is what it asked to wait, or None."""

    def __init__(self, reason: str, seconds: float | None = None) -> None:
        super().__init__(reason)
        self.seconds = seconds


class MalformedAnswer(Exception):
    """A complete answer that is not one of stop monitoring."""


def backoff(attempt: int, retry_after: float | None = None) -> float:
    """Return the seconds to wait after ``attempt`` failures in a row: exponential with full jitter, 300 at most.

    What the source asked for is the least.
    """
    return max(retry_after or 0.0, random.uniform(0, min(CAP_SECONDS, 2.0 ** min(attempt, 9))))


# -- what a response holds ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class BadPart:
    """A part of a response that is no visit, and why; its neighbours are none the worse."""

    reason: str
    where: str
    """Its path in the response, such as ``StopMonitoringDelivery[0].MonitoredStopVisit[3]``."""
    value: Any


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
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    # Half a surrogate, which JSON may hold, has no UTF-8 proper.
    digest = hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()
    named = "\n".join([journey(visit), stop(visit), _text_inside(visit, "RecordedAtTime"), digest])
    return hashlib.sha256(named.encode("utf-8", "surrogatepass")).hexdigest()[:32]


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


def _shown(url: str) -> str:
    """Return an address without the user and password that it may hold."""
    return re.sub(r"//[^?#]*@", "//", url)


def _address(name: str, url: str) -> str:
    """Return an address that can be asked.

    Raises:
        Refused: it can't; the message has it without a password.
    """
    try:
        parts = urlsplit(url)
        fit = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fit = False
    if not fit or set(url) & set(" \r\n\t"):
        raise Refused(f"{name} is {_shown(url)!r}: it has to be http:// or https://, a host, and a port if it has one")
    return url


def _trusted() -> str | bool:
    """Return the certificates that this machine trusts: an operator's own CA is among them, as requests' own has it not."""
    paths = ssl.get_default_verify_paths()
    return paths.cafile or (str(BUNDLE) if BUNDLE.exists() else paths.capath) or True


def _root(error: BaseException) -> BaseException:
    """Return the failure that a library's ones are about."""
    kinds = (OSError, urllib3.exceptions.HTTPError)
    while isinstance(inner := error.__cause__ or error.__context__, kinds):
        error = inner
    return error


def said(body: bytes) -> str:
    """Return in one line what a response that is no good says: its ErrorCondition, else how it begins."""
    text = body.decode(errors="replace")
    with suppress(ValueError, RecursionError, MalformedAnswer):
        text = "; ".join(part.reason for part in read(json.loads(text))[1]) or text
    return "".join(letter for letter in " ".join(text.split()) if letter.isprintable())[:SAID_CHARACTERS]


class Prim:
    """The client. ``poll`` returns the body of one complete answer, unparsed.

    Args:
        base_url: the API's address.
        api_key: the key; no message ever has it.
        monitoring_ref: the stop.
        line_ref: the line.
        timeout: seconds to connect, seconds to wait for more.
        proxy: address of a proxy, or empty; the environment's are not asked.

    Raises:
        Refused: an address or the key can't be used; nothing was asked.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str,
        monitoring_ref: str,
        line_ref: str,
        timeout: tuple[float, float] = (5, 20),
        proxy: str = "",
    ) -> None:
        self._url = f"{_address('PRIM_BASE_URL', base_url).rstrip('/')}/marketplace/stop-monitoring"
        self._query = {"MonitoringRef": monitoring_ref, "LineRef": line_ref}
        self._asked = _shown(f"{self._url}?MonitoringRef={monitoring_ref}&LineRef={line_ref}")
        self._timeout = timeout
        self._key = api_key
        if not api_key:
            raise Unauthorized("PRIM_API_KEY is empty")
        odd = re.search("^ |[^ -~]", api_key)
        if odd:
            raise Unauthorized(
                f"PRIM_API_KEY can't be sent: character {odd.start() + 1} of {len(api_key)} is a line break, or another that "
                "no header can hold. Give the key again without it: run site.yml with PRIM_API_KEY set"
            )
        self._session = requests.Session()
        self._session.headers.update({"apikey": api_key, "Accept": "application/json"})
        self._session.trust_env = False
        self._session.verify = _trusted()
        if proxy:
            self._session.proxies = dict.fromkeys(("http", "https"), _address("PRIM_PROXY", proxy))
            self._asked += f" through the proxy {_shown(proxy)}"

    def poll(self) -> bytes:
        """Return the body of an answer that came whole, with status 200.

        Raises:
            Unauthorized: the key is refused (401, 403).
            Refused: the source or a proxy says that the request is wrong (other 3xx and 4xx), or its certificate is not
                trusted.
            RetryLater: a limit (429), an error of the server, a time-out, or an answer cut short.
        """
        try:
            # A redirect would take the key along, to whatever host it names.
            with self._session.get(
                self._url, params=self._query, timeout=self._timeout, stream=True, allow_redirects=False
            ) as answer:
                if answer.status_code != 200:
                    raise self._refusal(answer)
                return self._whole(answer)
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            raise self._failure(error) from None

    def _told(self, what: str) -> str:
        return f"{self._asked} {what}".replace(self._key, "***")

    def _refusal(self, answer: requests.Response) -> Exception:
        status = answer.status_code
        where = f" to {_shown(answer.headers['Location'])}" if "Location" in answer.headers else ""
        body = said(next(answer.iter_content(SAID_BYTES), b""))
        told = self._told(f"answers {status}{where}" + (f": {body}" if body else ""))
        if status in (401, 403):
            return Unauthorized(
                f"{told}. PRIM_API_KEY is missing, wrong or not allowed to read stop-monitoring. Get a key at "
                "prim.iledefrance-mobilites.fr, run site.yml with PRIM_API_KEY set, then start the pipeline again"
            )
        if status in (408, 425, 429) or not 300 <= status < 500:
            return RetryLater(told, _retry_after(answer))
        what = "PRIM_PROXY" if status == 407 else "PRIM_BASE_URL, PRIM_MONITORING_REF and PRIM_LINE_REF"
        return Refused(f"{told}. Correct {what}, run site.yml, then start the pipeline again")

    def _failure(self, error: Exception) -> Exception:
        root = _root(error)
        told = self._told(f"failed: {type(root).__name__}: {root}")
        if isinstance(root, ssl.SSLCertVerificationError) and root.verify_code not in TIMES_OF_A_CERTIFICATE:
            return Refused(
                f"{told}. If a proxy or a CA of your own is between, put its certificate into "
                "/usr/local/share/ca-certificates, run update-ca-certificates there, then start the pipeline again"
            )
        if isinstance(error, failures.ProxyError) and re.search(r"Tunnel connection failed: 4\d\d", str(root)):
            return Refused(f"{told}. Correct PRIM_PROXY or the proxy, run site.yml, then start the pipeline again")
        if isinstance(error, failures.InvalidURL | failures.InvalidSchema | failures.InvalidHeader):
            return Refused(f"{told}. Correct PRIM_BASE_URL or PRIM_PROXY")
        return RetryLater(told)

    def _whole(self, answer: requests.Response) -> bytes:
        answer.raw.enforce_content_length = True
        body = b"".join(answer.iter_content(1 << 16))
        told = answer.headers.get("Content-Length")
        if told and "Content-Encoding" not in answer.headers and len(body) < int(told):
            raise RetryLater(self._told(f"was cut short: {len(body)} of {told} bytes"))
        return body


def _retry_after(answer: requests.Response) -> float | None:
    try:
        return min(DAY_SECONDS, max(0.0, float(answer.headers["Retry-After"])))
    except (KeyError, ValueError):
        return None
