"""OpenWeather: current weather, the forecast of five days and air pollution of a list of cities.

Source of the format: "Current weather data", "5 day / 3 hour forecast" and "Air pollution" of OpenWeather's documentation.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from berny.runtime import response
from berny.runtime.http_source import HttpSource
from berny.runtime.poller import Pace
from berny.runtime.response import BadPart, MalformedResponse, Observation
from berny.runtime.source import NotFound, RetryLater

CALLS = 3
"""Requests of a poll."""
BESIDE = ("forecast", "air_pollution")
"""Parts that a message may lack."""
ENVELOPE = ("cod", "base")
"""What a response says of itself and not of the weather."""
TIMES = range(946_684_800, 4_102_444_800)
"""Of an observation, in Unix seconds: from 2000 to 2100."""
PLAUSIBLE = {
    "temp": (-90, 60),
    "rain_1h": (0, 500),
    "rain_3h": (0, 1000),
    "snow_1h": (0, 500),
    "snow_3h": (0, 1000),
    "aqi": (1, 5),
}
"""Degrees Celsius, millimetres, and the index of air quality: what was ever measured on earth lies between."""


# -- the client --------------------------------------------------------------------------------------------------------


def cities(text: str) -> list[str]:
    """Return the cities of ``CITY``: ``Paris, Lyon``, or with countries ``Paris,FR; Lyon,FR``."""
    names = [name.strip() for name in text.split(";" if ";" in text else ",")]
    return list(dict.fromkeys(name for name in names if name))


def pace(seconds: float, count: int, calls_a_minute: int) -> Pace:
    """Return how often a city is polled, so that each is every so many seconds, and there are no more calls than allowed.

    Of a poll before a minute begins, all calls but the first may fall into it: a poll is left for them.
    """
    least = CALLS * 60 / max(1, calls_a_minute - CALLS) if calls_a_minute else 0.0
    return Pace(max(seconds / count, least))


class OpenWeather(HttpSource):
    """The client. Each ``poll`` is about the next city of the list.

    Args:
        base_url: the API's address.
        api_key: the key; no message ever has it.
        names: the cities.
        proxy: address of a proxy, or empty.

    Raises:
        Refused: an address or the key can't be used; nothing was asked.
    """

    prefix = "OPENWEATHER"
    request_settings = "OPENWEATHER_BASE_URL and CITY"
    key_advice = (
        "OPENWEATHER_API_KEY is missing, wrong, or not active yet, which takes a new key some hours. Get one at "
        "openweathermap.org, run site.yml with OPENWEATHER_API_KEY set"
    )

    def __init__(self, base_url: str, api_key: str, names: Sequence[str], proxy: str = "") -> None:
        secret = {"appid": api_key}
        super().__init__(base_url, "", {}, api_key, secret_query=secret, timeout=(5, 10), proxy=proxy)
        self._names = names
        self._turn = 0
        self._places: dict[str, dict[str, str]] = {}
        self._unknown: set[str] = set()

    def poll(self) -> bytes:
        """Return the responses about a city: an object of ``city``, ``missing``, and the text of each response.

        The weather, which makes the observation, is asked for last: once it is there, so is the message. Without one of the
        others it goes without, and ``missing`` says why. A city that the source does not know is ``not_found``.

        Raises:
            Refused: the key is refused, or no city is known.
            RetryLater: there is no weather now.
        """
        city = self._names[self._turn % len(self._names)]
        self._turn += 1
        asked = {"q": city, "units": "metric"}
        parts: dict[str, Any] = {"city": city, "missing": {}}
        try:
            self._beside(parts, "forecast", asked)
            self._learn(city, parts.get("forecast", ""))
            self._beside(parts, "air_pollution", self._places.get(city))
            parts["weather"] = self._text("weather", asked)
        except NotFound as error:
            self._unknown.add(city)
            if self._unknown.issuperset(self._names):
                raise
            parts = {"city": city, "not_found": str(error)}
        else:
            self._unknown.discard(city)
        return json.dumps(parts).encode()

    def _text(self, part: str, query: Mapping[str, str]) -> str:
        # As JSON has it, with bytes that are no UTF-8 told apart.
        return self.get(f"data/2.5/{part}", query).decode(errors="surrogateescape")

    def _beside(self, parts: dict[str, Any], part: str, query: Mapping[str, str] | None) -> None:
        try:
            if query is None:
                raise RetryLater("where the city is, the forecast says")
            parts[part] = self._text(part, query)
        except RetryLater as error:
            parts["missing"][part] = str(error)

    def _learn(self, city: str, forecast: str) -> None:
        """Remember where a city is, if its forecast says so."""
        with suppress(ValueError, ArithmeticError, RecursionError, LookupError, TypeError):
            place = json.loads(forecast)["city"]["coord"]
            self._places[city] = {name: str(float(place[name])) for name in ("lat", "lon")}

    def explain(self, body: str) -> str:
        """Return the message of an error."""
        with suppress(ValueError, RecursionError, LookupError, TypeError):
            return str(json.loads(body)["message"])
        return body


# -- what a response holds ---------------------------------------------------------------------------------------------


def _object(name: str, text: Any) -> dict[str, Any]:
    """Return what a response says.

    Raises:
        MalformedResponse: it is no object, or an error. Its ``cod`` is a number here, a text there.
    """
    try:
        found = json.loads(text.encode(errors="surrogateescape"))
    except (AttributeError, ValueError, RecursionError) as error:
        raise MalformedResponse(f"{name}: {error}") from None
    if not isinstance(found, dict):
        raise MalformedResponse(f"{name}: no object")
    if str(found.get("cod", 200)) != "200":
        raise MalformedResponse(f"{name}: cod is {found['cod']!r}: {found.get('message')}")
    return found


def _whole(found: Any) -> bool:
    return isinstance(found, int) and not isinstance(found, bool)


def _weather(text: Any) -> dict[str, Any]:
    """Return the current weather.

    Raises:
        MalformedResponse: it is none: it has to say when, where, and ``main``.
    """
    found = _object("weather", text)
    for name, fits in (("dt", _whole(found.get("dt")) and found["dt"] in TIMES), ("id", _whole(found.get("id")))):
        if not fits:
            raise MalformedResponse(f"weather: {name} is {found.get(name)!r}")
    if not isinstance(found.get("main"), dict):
        raise MalformedResponse("weather: without main")
    return found


def _inside(value: Any, *path: str | int) -> Any:
    for name in path:
        try:
            value = value[name]
        except (LookupError, TypeError):
            return None
    return value


def _told(weather: dict[str, Any], air: dict[str, Any] | None) -> Iterator[tuple[str, Any]]:
    """Yield what is told of each of ``PLAUSIBLE``."""
    yield "temp", weather["main"].get("temp")
    for kind in ("rain", "snow"):
        for span in ("1h", "3h"):
            yield f"{kind}_{span}", _inside(weather, kind, span)
    yield "aqi", _inside(air, "list", 0, "main", "aqi")


def _is_plausible(name: str, value: Any) -> bool:
    low, high = PLAUSIBLE[name]
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def identity(weather: dict[str, Any]) -> str:
    """Return the identity of an observation (32 hex digits): the city, the moment, and all that its weather says.

    What is beside it has no say: it is another observation when the source says something else of the weather.
    """
    content = {name: value for name, value in weather.items() if name not in ENVELOPE}
    return response.identity(content, str(weather["id"]), str(weather["dt"]))


def observations(answer: Any) -> list[Observation | BadPart]:
    """Return the observation of what ``poll`` has returned; what could not be understood beside it is bad parts.

    The content has the five parts ``weather``, ``forecast``, ``air_pollution``, ``precipitation`` and ``sun``, as the source
    has them; ``measured`` has the values that aggregates are made of, and ``flagged`` those that cannot be.

    Raises:
        MalformedResponse: there is no weather.
    """
    if not isinstance(answer, dict):
        raise MalformedResponse("no responses about a city")
    if "not_found" in answer:
        return [BadPart(str(answer["not_found"]), "city", answer.get("city"))]
    weather = _weather(answer.get("weather"))
    parts: dict[str, dict[str, Any] | None] = dict.fromkeys(BESIDE)
    bad: list[Observation | BadPart] = []
    for name in BESIDE:
        try:
            parts[name] = _object(name, answer[name]) if name in answer else None
        except MalformedResponse as error:
            bad.append(BadPart(str(error), name, answer[name]))
    told = {name: value for name, value in _told(weather, parts["air_pollution"]) if value is not None}
    content = {
        "city": answer.get("city"),
        "city_id": weather["id"],
        "name": weather.get("name"),
        "dt": weather["dt"],
        "weather": weather,
        **parts,
        "precipitation": {name: weather.get(name) for name in ("rain", "snow")},
        "sun": {name: _inside(weather, "sys", name) for name in ("sunrise", "sunset")},
        "measured": {name: value for name, value in told.items() if _is_plausible(name, value)},
        "flagged": {name: value for name, value in told.items() if not _is_plausible(name, value)},
        "missing": answer.get("missing", {}),
    }
    return [Observation(identity(weather), str(weather["id"]), content), *bad]
