"""OpenWeather: what an observation is, what is flagged, and the client against the simulator over real HTTP."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st
from memory import Topics
from simulated import NOON, Clock, Served

from berny.lab.simulation import load_simulations
from berny.pipelines.openweather import harness, openweather, producer
from berny.pipelines.openweather.controller import climate
from berny.pipelines.openweather.controller.climate import CITIES
from berny.pipelines.openweather.controller.simulator import FAULTS, Simulator
from berny.pipelines.openweather.openweather import OpenWeather, cities, observations, pace
from berny.runtime.check import read_truth
from berny.runtime.poller import Pace, Poller
from berny.runtime.response import BadPart, MalformedResponse, Observation
from berny.runtime.source import NotFound, Refused, RetryLater, Unauthorized
from berny.runtime.spool import Answer

KEY = "a key nobody may=see"
WEATHER = {
    "coord": {"lon": 2.35, "lat": 48.85},
    "weather": [{"id": 500, "main": "Rain", "description": "light rain", "icon": "10d"}],
    "main": {"temp": 7.5, "pressure": 1012, "humidity": 87},
    "wind": {"speed": 4.1, "deg": 240},
    "rain": {"1h": 0.4},
    "dt": 1763985600,
    "sys": {"country": "FR", "sunrise": 1763968800, "sunset": 1764000000},
    "id": 2988507,
    "name": "Paris",
    "cod": 200,
}
FORECAST = {
    "cod": "200",
    "message": 0,
    "cnt": 0,
    "list": [],
    "city": {"id": 2988507, "coord": {"lat": 48.85, "lon": 2.35}},
}
AIR = {"coord": {"lon": 2.35, "lat": 48.85}, "list": [{"main": {"aqi": 2}, "components": {}, "dt": 1763985600}]}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


@pytest.fixture
def served(tmp_path: Path, clock: Clock) -> Iterator[Served]:
    """A simulator whose clock stands still; each call of the weather gets a new observation once time has passed."""
    one = Served(Simulator(1, 10.0, tmp_path / "truth.jsonl", clock))
    yield one
    one.close()


def body(weather: Any = WEATHER, forecast: Any = FORECAST, air: Any = AIR, **other: Any) -> dict[str, Any]:
    """Return what a poll returns, parsed."""
    named = {"weather": weather, "forecast": forecast, "air_pollution": air}
    return {"city": "Paris", "missing": {}, **{name: json.dumps(part) for name, part in named.items()}, **other}


def one(answer: dict[str, Any]) -> Observation:
    """Return the only part of an answer, an observation."""
    [found] = observations(answer)
    assert isinstance(found, Observation)
    return found


def client(served: Served, *names: str, key: str = KEY) -> OpenWeather:
    """Return a client of a simulator."""
    return OpenWeather(served.url, key, names or ("Paris",))


def fail(served: Served, kind: str, **words: float) -> None:
    """Let the simulator fail from now on."""
    requests.post(f"{served.url}/_simulator/faults", json={"kind": kind} | words, timeout=5).raise_for_status()


def truth(served: Served) -> list[dict[str, Any]]:
    """Return the lines of the ground truth."""
    return [json.loads(line) for line in served.simulator.truth.read_text().splitlines()]


def records(answer: bytes) -> list[tuple[str, dict[str, Any]]]:
    """Return identity and value of each record, the topic among it, that the producer makes of an answer."""
    made = producer.records(Answer(7, NOON, answer), "weather-api", "simulated")
    return [(identity, {"topic": record.topic, **json.loads(record.value)}) for identity, record in made]


# -- cities and calls --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("Paris", ["Paris"]),
        (" Paris, Lyon ,Paris,, Nice", ["Paris", "Lyon", "Nice"]),
        ("Paris,FR; London,GB;", ["Paris,FR", "London,GB"]),
        (" , ", []),
    ],
)
def test_cities(text: str, names: list[str]) -> None:
    assert cities(text) == names


@pytest.mark.parametrize("count", [1, 7, 60, 190, 200, 1000])
@pytest.mark.parametrize("seconds", [0.0, 60.0, 600.0])
def test_calls_of_a_minute_are_kept_to(count: int, seconds: float) -> None:
    """In no minute more than 60, wherever it begins, and however much time passes between the calls of a poll."""
    every = pace(seconds, count, 60).seconds
    assert every * count >= seconds
    for within in (0.0, 1.0, every):
        calls = [every * poll + within * call / 2 for poll in range(50) for call in range(openweather.CALLS)]
        assert max(sum(begin <= call < begin + 60 for call in calls) for begin in calls) <= 60


def test_pace_without_a_limit() -> None:
    """A simulator is asked as often as a lab wants; ten minutes for each of eight cities are 75 s between two."""
    assert pace(1, 4, 0).seconds == 0.25 and pace(600, 8, 60).seconds == 75


# -- observations ------------------------------------------------------------------------------------------------------


def test_identity_is_this_for_ever() -> None:
    """Another identity for the same weather would make a duplicate of all that is stored."""
    assert one(body()).identity == "22a6292922d31a6773840551c4430ab5"


def test_identity_is_that_of_the_weather_alone() -> None:
    """What is beside it is told with the next observation; anything else that the weather says is another one."""
    same = [body(forecast={**FORECAST, "cnt": 1}), body(air=None), body(missing={"forecast": "timed out"})]
    same += [body(WEATHER | {"cod": "200", "base": "stations"})]
    assert {part.identity for answer in same for part in observations(answer) if isinstance(part, Observation)} == {
        one(body()).identity
    }
    others = [WEATHER | {"dt": 1763985601}, WEATHER | {"id": 1}, WEATHER | {"visibility": 1}]
    assert len({one(body(weather)).identity for weather in [WEATHER, *others]}) == 4


def test_content_has_the_five_parts() -> None:
    """As the source has them, and what they measure."""
    found = one(body())
    assert found.key == "2988507"
    assert found.content == {
        "city": "Paris", "city_id": 2988507, "name": "Paris", "dt": 1763985600,
        "weather": WEATHER, "forecast": FORECAST, "air_pollution": AIR,
        "precipitation": {"rain": {"1h": 0.4}, "snow": None},
        "sun": {"sunrise": 1763968800, "sunset": 1764000000},
        "measured": {"temp": 7.5, "rain_1h": 0.4, "aqi": 2}, "flagged": {}, "missing": {},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "measured", "flagged"),
    [
        ({"main": {"temp": 288.44}}, {"rain_1h": 0.4, "aqi": 2}, {"temp": 288.44}),
        ({"main": {"temp": "7.5"}}, {"rain_1h": 0.4, "aqi": 2}, {"temp": "7.5"}),
        ({"main": {"temp": True}}, {"rain_1h": 0.4, "aqi": 2}, {"temp": True}),
        ({"main": {"temp": 10**400}}, {"rain_1h": 0.4, "aqi": 2}, {"temp": 10**400}),
        ({"main": {}}, {"rain_1h": 0.4, "aqi": 2}, {}),
        ({"main": {"temp": -90}}, {"temp": -90, "rain_1h": 0.4, "aqi": 2}, {}),
        ({"rain": {"3h": 1.5}}, {"temp": 7.5, "rain_3h": 1.5, "aqi": 2}, {}),
        ({"rain": {"1h": -1}, "snow": {"1h": 0}}, {"temp": 7.5, "snow_1h": 0, "aqi": 2}, {"rain_1h": -1}),
        ({"rain": [1], "snow": "much"}, {"temp": 7.5, "aqi": 2}, {}),
        ({"rain": None}, {"temp": 7.5, "aqi": 2}, {}),
    ],
)
def test_absurd_values_are_flagged(change: Any, measured: Any, flagged: Any) -> None:
    """They stay in the weather as they came; 0 is told, and what is not told is not 0."""
    content = one(body(WEATHER | change)).content
    assert (content["measured"], content["flagged"]) == (measured, flagged)
    assert content["weather"] == WEATHER | change


@pytest.mark.parametrize("aqi", [0, 6, "2", None, 2.5])
def test_air_is_measured_from_1_to_5(aqi: Any) -> None:
    content = one(body(air={"list": [{"main": {"aqi": aqi}}]})).content
    assert content["measured"].get("aqi") == (aqi if aqi == 2.5 else None)
    assert content["flagged"] == ({"aqi": aqi} if aqi in (0, 6, "2") else {})


@pytest.mark.parametrize("air", [{}, {"list": []}, {"list": {}}, {"list": [1]}, {"list": [{"main": []}]}])
def test_air_that_says_nothing(air: Any) -> None:
    assert "aqi" not in one(body(air=air)).content["measured"]


@pytest.mark.parametrize(
    ("weather", "why"),
    [
        ({name: value for name, value in WEATHER.items() if name != "main"}, "weather: without main"),
        (WEATHER | {"main": [7.5]}, "weather: without main"),
        (WEATHER | {"dt": "1763985600"}, "weather: dt is '1763985600'"),
        (WEATHER | {"dt": 1763985600.5}, "weather: dt is"),
        (WEATHER | {"dt": True}, "weather: dt is True"),
        (WEATHER | {"dt": 0}, "weather: dt is 0"),
        (WEATHER | {"dt": 1763985600000}, "weather: dt is"),
        (WEATHER | {"id": None}, "weather: id is None"),
        ({"cod": 401, "message": "Invalid API key"}, "cod is 401: Invalid API key"),
        ({"cod": "404", "message": "city not found"}, "cod is '404': city not found"),
        ([], "weather: no object"),
        (None, "weather: no object"),
    ],
)
def test_what_is_no_weather_is_one_dead_letter(weather: Any, why: str) -> None:
    """With all that came about the city."""
    [(identity, letter)] = records(json.dumps(body(weather)).encode())
    assert identity == "" and letter["topic"] == "weather-api.dlq" and why in letter["reason"]


@pytest.mark.parametrize("text", ["", "{", "<html>", "[" * 100_000, '{"cod": "500"}', "7", "\udcff"])
def test_what_is_wrong_beside_the_weather_is_alone_a_dead_letter(text: str) -> None:
    """The weather is published, without it."""
    (identity, record), (nothing, letter) = records(json.dumps(body() | {"forecast": text}).encode())
    assert record["forecast"] is None and record["air_pollution"] == AIR and identity == one(body()).identity
    assert nothing == "" and letter["origin"]["part"] == "forecast"


@given(JSON)
def test_any_json_is_an_observation_or_an_error_of_ours(value: Any) -> None:
    """Whatever comes in place of a response or inside it: an error of another kind would end the producer."""
    inside = [body(WEATHER | {name: value}) for name in ("dt", "id", "main", "rain", "sys", "cod", "name")]
    beside = [body(value), body(forecast=value), body(air=value), body(air={"list": value}), {"weather": value}]
    for answer in [value, {"not_found": value}, *inside, *beside]:
        with suppress(MalformedResponse):
            assert all(isinstance(part, Observation | BadPart) for part in observations(answer))


def test_record() -> None:
    """The observation, and who, when and where from."""
    [(identity, record)] = records(json.dumps(body()).encode())
    assert record["topic"] == "weather-api" and record["identity"] == identity
    assert (record["observed_at"], record["data_origin"], record["spool_offset"]) == (NOON, "simulated", 7)
    assert {"weather", "forecast", "air_pollution", "precipitation", "sun"} <= record.keys()


# -- the client --------------------------------------------------------------------------------------------------------


def test_poll_has_all_responses(served: Served, clock: Clock) -> None:
    """City after city; what they measure is what the simulator says is true."""
    names = ("Paris", "Lyon", "Lille")
    one_client = client(served, *names)
    found = []
    for _ in range(12):
        clock.now += 1
        found.append(records(one_client.poll())[0])
    assert [record["city"] for _, record in found] == [*names] * 4
    assert [record["name"] for _, record in found] == [*names] * 4
    told = {line["identity"]: line for line in truth(served) if "identity" in line}
    assert len(told) == 12
    for identity, record in found:
        line = told[identity]
        assert (record["city_id"], record["dt"], record["measured"]) == (line["city_id"], line["dt"], line["measured"])
        assert record["missing"] == record["flagged"] == {} and len(record["forecast"]["list"]) == climate.FORECASTS
        assert "aqi" in record["measured"]


def test_what_is_beside_the_weather_may_be_missing(served: Served) -> None:
    """The message says why; where the city is, is remembered."""
    one_client = client(served)
    fail(served, "500")
    [(_, record)] = records(one_client.poll())
    assert record["forecast"] is record["air_pollution"] is None
    assert "returned 500: Internal server error" in record["missing"]["forecast"]
    assert record["missing"]["air_pollution"] == "where the city is, the forecast says"
    assert records(one_client.poll())[0][1]["missing"] == {}
    fail(served, "429")
    [(_, record)] = records(one_client.poll())
    assert record["forecast"] is None and record["measured"]["aqi"]
    assert "returned 429: Your account is temporary blocked" in record["missing"]["forecast"]


@pytest.mark.parametrize("kind", ["429", "500", "cut"])
def test_without_weather_there_is_nothing(served: Served, kind: str) -> None:
    """It is asked for later; nothing of it counts as served."""
    fail(served, kind, seconds=60)
    with pytest.raises(RetryLater):
        client(served).poll()
    assert not [line for line in truth(served) if line.get("served")]


def test_key_that_is_refused_needs_a_person(served: Served) -> None:
    """The message says what to do, and not the key."""
    fail(served, "401")
    with pytest.raises(
        Unauthorized, match=r"returned 401: Invalid API key.*OPENWEATHER_API_KEY is missing, wrong, or"
    ) as no:
        client(served).poll()
    assert KEY not in str(no.value) and "***" not in str(no.value)
    with pytest.raises(Unauthorized, match="OPENWEATHER_API_KEY is empty"):
        client(served, key="")


def test_unknown_city_costs_no_other(served: Served, clock: Clock) -> None:
    """It is a dead letter with the city's name; where none is known, a person has to act."""
    one_client = client(served, "Pariss", "Lyon")
    for _ in range(3):
        clock.now += 1
        [(identity, letter)] = records(one_client.poll())
        assert identity == "" and letter["topic"] == "weather-api.dlq"
        assert (
            "q=Pariss&units=metric returned 404: city not found. Correct OPENWEATHER_BASE_URL and CITY"
            in letter["reason"]
        )
        [(identity, record)] = records(one_client.poll())
        assert identity and record["city"] == "Lyon"
    one_client = client(served, "Pariss", "Lion")
    assert records(one_client.poll())[0][0] == ""
    with pytest.raises(NotFound, match="q=Lion"):
        one_client.poll()


def test_city_that_was_unknown_for_a_while(served: Served) -> None:
    """It does not count for ever."""
    one_client = client(served, "Paris", "Lyon")
    for _ in range(3):
        fail(served, "404")
        assert "not_found" in json.loads(one_client.poll())
        assert "weather" in json.loads(one_client.poll())


@pytest.mark.parametrize(("kind", "why"), [("malformed", "weather: Expecting"), ("no_main", "weather: without main")])
def test_weather_that_is_none_comes_whole(served: Served, kind: str, why: str) -> None:
    """So it is kept, and is a dead letter."""
    fail(served, kind)
    [(identity, letter)] = records(client(served).poll())
    assert identity == "" and why in letter["reason"]


def test_absurd_temperatures_of_the_simulator(served: Served) -> None:
    fail(served, "absurd")
    [(identity, record)] = records(client(served).poll())
    assert record["flagged"]["temp"] in climate.ABSURD and "temp" not in record["measured"]
    [line] = [line for line in truth(served) if "identity" in line]
    assert line["identity"] == identity and line["measured"] == record["measured"]


def test_weather_that_is_not_new_is_told_again(served: Served, clock: Clock) -> None:
    """As the API does between its measurements; at the rate there is something new."""
    requests.post(f"{served.url}/_simulator/run", json={"rate": 1}, timeout=5)
    one_client, told = client(served), []
    for _ in range(20):
        clock.now += 0.25
        told.append(records(one_client.poll())[0][0])
    assert len(set(told)) in (5, 6)
    requests.post(f"{served.url}/_simulator/run", json={"rate": 0}, timeout=5)
    clock.now += 100
    assert {records(one_client.poll())[0][0] for _ in range(5)} == {told[-1]}


def test_simulation_and_simulator_agree() -> None:
    """The lab's cities are those of the climate, and its faults those of the simulator."""
    simulation = load_simulations()["openweather"]
    assert {*cities(simulation.settings["CITY"])} <= {*CITIES}
    assert {*simulation.faults} <= {*FAULTS}
    fits = [pace(float(simulation.settings["OPENWEATHER_POLL_SECONDS"]), 6, 0).seconds <= 0.2]
    assert fits == [True], "five observations a second are what tests serve"


# -- the climate -------------------------------------------------------------------------------------------------------


def test_a_climate_has_all_that_the_source_has() -> None:
    """Rain and snow by both spans, gusts or none, both kinds of ``cod``; winters are colder than summers."""
    said = [climate.weather(city, 1764547200 + 3600 * n, n, 1)[0] for city in CITIES.values() for n in range(300)]
    assert {span for weather in said for kind in ("rain", "snow") for span in weather.get(kind, {})} == {"1h", "3h"}
    assert {"rain" in weather for weather in said} == {"gust" in weather["wind"] for weather in said} == {True, False}
    assert {repr(weather["cod"]) for weather in said} == {"200", "'200'"}
    summer = [climate.weather(CITIES["Paris"], 1782864000, n, 1)[0]["main"]["temp"] for n in range(50)]
    winter = [climate.weather(CITIES["Paris"], 1768953600, n, 1)[0]["main"]["temp"] for n in range(50)]
    assert min(summer) > max(winter)
    [when, *_] = climate.forecast(CITIES["Paris"], 1763985601, 1)["list"]
    assert when["dt_txt"] == "2025-11-24 15:00:00"


# -- to the topic ------------------------------------------------------------------------------------------------------


def settings(folder: Path, url: str, **other: Any) -> producer.Settings:
    """Return the environment of a producer."""
    words = {"berny_pipeline": "openweather", "berny_stage": "producer", "berny_metrics_port": 1,
             "berny_spool_dir": folder, "berny_spool_max_bytes": 1 << 26, "kafka_bootstrap_servers": "-",
             "openweather_base_url": url, "openweather_api_key": KEY}  # fmt: skip
    return producer.Settings.model_validate(words | other)


def test_every_observation_is_published_once(tmp_path: Path) -> None:
    """Through faults, to one record each, at the pace of many cities."""
    (tmp_path / "spool").mkdir()
    served = Served(Simulator(1, 40.0, tmp_path / "truth.jsonl"))
    topics, stop = Topics(), threading.Event()
    poller = Poller(
        settings(tmp_path / "spool", served.url),
        client(served, *CITIES),
        Pace(0.005),
        lambda answer: producer.records(answer, "weather-api", "simulated"),
        topics,
        stop,
    )
    thread = threading.Thread(target=poller.run)
    thread.start()

    def expected() -> set[str]:
        whole = {line["answer"] for line in truth(served) if line.get("served")}
        return {line["identity"] for line in truth(served) if "identity" in line and line["answer"] in whole}

    def came() -> Counter[str]:
        return Counter(json.loads(value)["identity"] for value in topics.values("weather-api"))

    try:
        for kind in ("none", "absurd", "no_main", "malformed", "500"):
            fail(served, kind)
            time.sleep(0.5)
        requests.post(f"{served.url}/_simulator/run", json={"rate": 0}, timeout=5)
        deadline = time.monotonic() + 30
        # Two whole polls later nothing new is on its way.
        answers = served.simulator.answers + 2 * len(CITIES)
        while not (expected() <= came().keys() and served.simulator.answers >= answers) and time.monotonic() < deadline:
            time.sleep(0.05)
    finally:
        stop.set()
        thread.join(30)
        served.close()
    assert len(came()) > 20 and came() == Counter(expected())
    assert len(topics.values("weather-api.dlq")) == 2


def test_settings_have_the_names_of_the_runbook(tmp_path: Path) -> None:
    """BOOTSTRAP_SERVERS, where given, is used in place of the cluster's; a CITY without a city is refused."""
    plain = settings(tmp_path, "http://127.0.0.1:9")
    assert (plain.kafka_bootstrap_servers, plain.topic_name, plain.city) == ("-", "weather-api", "Paris")
    other = settings(tmp_path, "http://127.0.0.1:9", bootstrap_servers="kafka:9092", topic_name="other")
    assert (other.kafka_bootstrap_servers, other.topic_name) == ("kafka:9092", "other")
    stop: Callable[[], threading.Event] = threading.Event
    with pytest.raises(Refused, match="CITY names no city"):
        producer.poller(settings(tmp_path, "http://127.0.0.1:9", city=","), stop())


# -- the harness -------------------------------------------------------------------------------------------------------


def test_what_was_polled_is_what_is_expected(served: Served, clock: Clock) -> None:
    """Identities of a spool's bodies, values of records and the ground truth agree; flagged values are in none."""
    one_client, bodies = client(served, "Paris", "Nice"), []
    for kind in ("none", "absurd", "no_main", "none"):
        clock.now += 1
        fail(served, kind)
        bodies.append(one_client.poll())
    deadline = time.monotonic() + 10
    while sum("served" in line for line in truth(served)) < 4 and time.monotonic() < deadline:
        # A client may have a response a moment before that is noted.
        time.sleep(0.01)
    found = dict(harness.values(record for answer in bodies for _, record in records(answer)))
    told = read_truth(map(json.dumps, truth(served)), harness.expected)
    assert len(found) == 3 and told.expected == found
    assert {identity for answer in bodies for identity in harness.identities(answer)} == found.keys()
    assert harness.identities(b"no JSON") == harness.identities(b"[]") == set()
