"""A climate made from a seed: what OpenWeather says of ten cities, in its own words, and what of that is true.

The shapes are those of the API: ``cod`` a number here and a text there, ``rain`` and ``snow`` only while they fall, with one
span or the other, ``wind.gust`` only at times, ``dt`` in seconds of UTC.
"""

from __future__ import annotations

import datetime as dt
import math
import random
from dataclasses import dataclass
from typing import Any

DAY = 86400
FORECASTS = 40
STEP = 3 * 3600
ABSURD = (9999.0, -300.0, "12.5", True)
"""Temperatures that are none."""


@dataclass(frozen=True)
class City:
    """A city, by its number in OpenWeather (GeoNames')."""

    id: int
    name: str
    lat: float
    lon: float
    warmth: float
    """Mean temperature of a year, degrees Celsius."""


CITIES = {
    city.name: city
    for city in (
        City(2988507, "Paris", 48.8534, 2.3488, 12.4),
        City(2995469, "Marseille", 43.2965, 5.3698, 15.5),
        City(2996944, "Lyon", 45.7485, 4.8467, 12.9),
        City(2972315, "Toulouse", 43.6043, 1.4437, 13.8),
        City(2990440, "Nice", 43.7031, 7.2661, 16.0),
        City(2990969, "Nantes", 47.2172, -1.5534, 12.5),
        City(2973783, "Strasbourg", 48.5839, 7.7455, 10.9),
        City(3031582, "Bordeaux", 44.8404, -0.5805, 13.8),
        City(2998324, "Lille", 50.6330, 3.0586, 10.8),
        City(2983990, "Rennes", 48.1120, -1.6743, 11.9),
    )
}


def temperature(city: City, moment: float, draw: random.Random) -> float:
    """Return degrees Celsius: coldest at the end of January and before sunrise."""
    year = -8 * math.cos(2 * math.pi * (moment / DAY - 28) / 365.2425)
    day = -4 * math.cos(2 * math.pi * (moment / DAY - 4 / 24))
    return round(city.warmth + year + day + draw.gauss(0, 1.2), 2)


def _fall(temp: float, draw: random.Random, spans: tuple[str, ...]) -> dict[str, dict[str, float]]:
    """Return ``rain`` or ``snow`` in millimetres by span, or neither."""
    if draw.random() > 0.3:
        return {}
    return {"snow" if temp < 0 else "rain": {draw.choice(spans): round(draw.expovariate(0.8), 2)}}


def _sky(temp: float, draw: random.Random) -> dict[str, Any]:
    """Return what current weather and forecasts share."""
    wind: dict[str, Any] = {"speed": round(draw.expovariate(0.3), 2), "deg": draw.randint(0, 359)}
    if draw.random() < 0.4:
        wind["gust"] = round(wind["speed"] * draw.uniform(1.2, 2.5), 2)
    main = {"temp": temp, "feels_like": round(temp - wind["speed"] / 4, 2), "temp_min": round(temp - 0.8, 2)}
    main |= {"temp_max": round(temp + 0.8, 2), "pressure": draw.randint(980, 1040), "humidity": draw.randint(30, 100)}
    kind = draw.choice(((800, "Clear", "clear sky", "01d"), (804, "Clouds", "overcast clouds", "04d")))
    words = dict(zip(("id", "main", "description", "icon"), kind, strict=True))
    return {"weather": [words], "main": main, "wind": wind, "clouds": {"all": draw.randint(0, 100)}}


def weather(
    city: City, moment: int, number: int, seed: int, absurd: bool = False
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the ``number``-th response about the weather of a city, and what it measures: only what is plausible."""
    draw = random.Random(f"{seed}/{city.id}/{number}/weather")
    temp = temperature(city, moment, draw)
    fall = _fall(temp, draw, ("1h", "1h", "1h", "3h"))
    noon = moment // DAY * DAY + DAY // 2 - int(city.lon * 240)
    said = {
        "coord": {"lon": city.lon, "lat": city.lat},
        "base": "stations",
        **_sky(temp, draw),
        "visibility": draw.choice((10000, 8000, 4500)),
        **fall,
        "dt": moment,
        # A number of its own has each, however fast they come.
        "sys": {"type": 2, "id": number, "country": "FR", "sunrise": noon - 5 * 3600, "sunset": noon + 5 * 3600},
        "timezone": 3600,
        "id": city.id,
        "name": city.name,
        "cod": draw.choice((200, 200, 200, "200")),
    }
    measured = {"temp": temp} | {f"{kind}_{span}": mm for kind, spans in fall.items() for span, mm in spans.items()}
    if absurd:
        said["main"]["temp"] = draw.choice(ABSURD)
        del measured["temp"]
    return said, measured


def forecast(city: City, moment: int, seed: int) -> dict[str, Any]:
    """Return the forecast of five days, which is made anew every three hours."""
    begins = moment // STEP * STEP + STEP
    listed = []
    for when in range(begins, begins + FORECASTS * STEP, STEP):
        draw = random.Random(f"{seed}/{city.id}/{begins}/{when}")
        temp = temperature(city, when, draw)
        text = dt.datetime.fromtimestamp(when, dt.UTC).strftime("%Y-%m-%d %H:%M:%S")
        told = {"visibility": 10000, "pop": round(draw.random(), 2), "sys": {"pod": "d"}, "dt_txt": text}
        listed.append({"dt": when, **_sky(temp, draw), **_fall(temp, draw, ("3h",)), **told})
    place = {"id": city.id, "name": city.name, "coord": {"lat": city.lat, "lon": city.lon}, "country": "FR"}
    return {"cod": "200", "message": 0, "cnt": len(listed), "list": listed, "city": place}


def air(city: City, moment: int, seed: int) -> dict[str, Any]:
    """Return the pollution of the air, which is measured every hour."""
    hour = moment // 3600 * 3600
    draw = random.Random(f"{seed}/{city.id}/{hour}/air")
    names = ("co", "no", "no2", "o3", "so2", "pm2_5", "pm10", "nh3")
    components = {name: round(draw.expovariate(0.05), 2) for name in names}
    told = {"main": {"aqi": draw.randint(1, 5)}, "components": components, "dt": hour}
    return {"coord": {"lon": city.lon, "lat": city.lat}, "list": [told]}
