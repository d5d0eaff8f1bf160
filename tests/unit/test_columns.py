"""The delay as Spark computes it, against the delay that the timetable drew: real Spark, from the cluster's archive."""

from __future__ import annotations

import base64
import copy
import datetime
import itertools
import json
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from influx_lines import parse_line
from simulated import NOON

from berny.pipelines.idfm import points, prim, producer
from berny.pipelines.idfm.controller.timetable import CANCELLED, KINDS, STOP, UNKNOWN, Train, visit
from berny.runtime.kafka import LETTER_BYTES, RECORD_BYTES, dead_letter
from berny.runtime.progress import source_of
from berny.runtime.spool import Answer

TELLINGS = (0, 1, 2, 30)
WRITTEN = datetime.datetime(2025, 11, 24, 12, 0, 1, 250_000, tzinfo=datetime.UTC)
"""When all records were written to Kafka."""
Row = tuple[bytes | None, bytes | None]
"""Key and value, as they are in ``idfm-realtime``."""
Result = tuple[bytes | None, str, dict[str, Any]]
"""Key, topic and parsed value."""
Results = dict[Row, Result]
Visit = dict[str, Any]
Day = dict[str, list[tuple[Visit, int | None, dict[str, Any]]]]


def record(made: Visit) -> Row:
    """Return key and value of a visit as the producer publishes it."""
    body = json.dumps({"Siri": {"ServiceDelivery": {"StopMonitoringDelivery": [{"MonitoredStopVisit": [made]}]}}})
    [(_, one)] = producer.records(Answer(7, NOON + 0.25, body.encode()), "simulated")
    return one.key, one.value


# -- what is put in ----------------------------------------------------------------------------------------------------


def at(seconds: float, zone: str = "Z") -> str:
    """Return noon plus so many seconds as the API would write it."""
    hour, rest = divmod(seconds, 3600)
    return f"2025-11-24T{12 + (zone != 'Z') + int(hour):02d}:{int(rest) // 60:02d}:{rest % 60:06.3f}{zone}"


TIMES = [
    (at(299), at(0), 299.0, "onTime"),
    (at(300), at(0), 300.0, "late"),
    (at(0), at(60), -60.0, "onTime"),
    (at(0), at(61), -61.0, "early"),
    (at(228, "+01:00"), at(0), 228.0, "onTime"),
    (at(4.5), at(0.25), 4.25, "onTime"),
    (at(4.333), at(0), 4.333, "onTime"),
    (at(4.333), at(0.1), 4.233, "onTime"),
    ("soon", at(0), None, "unknown"),
    (at(0), "", None, "unknown"),
    (at(0, ""), at(0), None, "unknown"),
    (at(400), at(0, ""), None, "unknown"),
]
"""Expected and aimed departure, and what is to be computed of them."""

LEAST: Visit = {"RecordedAtTime": at(0), "MonitoredVehicleJourney": {"MonitoredCall": {}, "OperatorRef": {}}}
ODD: Visit = {
    "RecordedAtTime": at(1),
    "MonitoringRef": {},
    "MonitoredVehicleJourney": {
        "DirectionName": [], "DestinationName": [], "JourneyNote": [], "DirectionRef": {}, "LineRef": None,
        "MonitoredCall": {"StopPointName": [], "Order": "many"},
    },
}  # fmt: skip
LONG: Row = (b"long", random.Random(3).randbytes(100_000))
HUGE: Row = (b"huge", random.Random(4).randbytes(3_500_000))
EMPTY: Row = (b"empty", None)


def changed(one: Visit, **calls: Any) -> Visit:
    """Return a visit with changes of its call; None removes."""
    other = copy.deepcopy(one)
    call = other["MonitoredVehicleJourney"]["MonitoredCall"]
    for name, value in calls.items():
        if value is None:
            call.pop(name, None)
        else:
            call[name] = value
    return other


TIME_WORDS = (None, "", "soon", at(0, ""), at(30))
STATUS_WORDS = (None, "", "onTime", "CANCELLED")


def variants() -> list[Visit]:
    """Return a visit of each combination of times and statuses: not there, empty, no time, no offset, a time."""
    names = ("AimedDepartureTime", "ExpectedDepartureTime", "AimedArrivalTime", "ExpectedArrivalTime")
    made = []
    for number, times in enumerate(itertools.product(TIME_WORDS, repeat=4)):
        # Each with the next pair of statuses, and where times are there or not there with all of them.
        pairs = list(itertools.product(STATUS_WORDS, repeat=2))
        for departure, arrival in pairs if set(times) <= {None, at(30)} else [pairs[number % len(pairs)]]:
            call = dict(zip(names, times, strict=True)) | {"DepartureStatus": departure, "ArrivalStatus": arrival}
            made.append(changed(ODD | {"RecordedAtTime": at(number % 3600)}, **call))
    return made


def named(base: Visit, call: Visit | None = None, **journey: Any) -> Visit:
    """Return a visit with changes of its journey and of its call; None removes."""
    other = changed(base, **(call or {}))
    inside = other["MonitoredVehicleJourney"] | journey
    other["MonitoredVehicleJourney"] = {name: value for name, value in inside.items() if value is not None}
    return other


def text(value: str) -> list[dict[str, str]]:
    """Return text as SIRI Lite has it."""
    return [{"value": value}]


# What a journey tells, and the direction, mission and destination that are to be had of it.
NAMES: list[tuple[dict[str, Any], dict[str, Any], dict[str, str | None]]] = [
    ({"DirectionRef": None, "DirectionName": text("Retour")}, {}, {"direction": "Retour"}),
    ({"DirectionRef": {}, "DirectionName": text("Retour")}, {}, {"direction": "Retour"}),
    ({"DirectionRef": {"value": ""}, "DirectionName": text("R")}, {}, {"direction": "R"}),
    ({"DirectionRef": {"value": "Aller"}, "DirectionName": text("Retour")}, {}, {"direction": "Aller"}),
    ({"DirectionRef": {"value": "Aller"}, "DirectionName": []}, {}, {"direction": "Aller"}),
    ({"DirectionRef": None, "DirectionName": []}, {}, {"direction": None}),
    ({"DirectionRef": None, "DirectionName": None}, {}, {"direction": None}),
    ({"JourneyNote": [], "VehicleJourneyName": text("PEPE07")}, {}, {"mission": "PEPE"}),
    ({"JourneyNote": None, "VehicleJourneyName": text("PEPE")}, {}, {"mission": "PEPE"}),
    ({"JourneyNote": text(""), "VehicleJourneyName": text("PEPE")}, {}, {"mission": "PEPE"}),
    ({"JourneyNote": text("EKLI"), "VehicleJourneyName": text("119071")}, {}, {"mission": "EKLI"}),
    ({"JourneyNote": [], "VehicleJourneyName": text("119071")}, {}, {"mission": None}),
    ({"JourneyNote": None, "VehicleJourneyName": None}, {}, {"mission": None}),
    ({"DestinationName": None}, {"DestinationDisplay": text("Robinson")}, {"destination": "Robinson"}),
    ({"DestinationName": []}, {"DestinationDisplay": text("Robinson")}, {"destination": "Robinson"}),
    ({"DestinationName": text("")}, {"DestinationDisplay": text("Robinson")}, {"destination": "Robinson"}),
    ({"DestinationName": text("Massy")}, {"DestinationDisplay": text("Robinson")}, {"destination": "Massy"}),
    ({"DestinationName": []}, {"DestinationDisplay": []}, {"destination": None}),
]


def timed(base: Visit, expected: str, aimed: str) -> Visit:
    """Return a visit that is told to be on time, with these times of departure."""
    return changed(base, ExpectedDepartureTime=expected, AimedDepartureTime=aimed, DepartureStatus="onTime")


def letters(base: Visit) -> list[Row]:
    """Return records that no delay can be had of."""
    value = json.loads(record(base)[1] or b"")
    call = {"MonitoredVehicleJourney": {"MonitoredCall": {}}}
    bad = [
        {name: value[name] for name in value if name != "identity"},
        {name: value[name] for name in value if name != "visit"},
        value | {"visit": {"RecordedAtTime": at(0)}},
        value | {"visit": {"RecordedAtTime": at(0), "MonitoredVehicleJourney": {}}},
        value | {"visit": call},
        value | {"visit": call | {"RecordedAtTime": "yesterday"}},
        value | {"visit": call | {"RecordedAtTime": ""}},
        value | {"visit": call | {"RecordedAtTime": at(0, "")}},
        value | {"visit": call | {"RecordedAtTime": at(0)[:10]}},
        value | {"visit": call | {"RecordedAtTime": at(0) + "\n"}},
        value | {"visit": "text"},
    ]
    texts = [b"", b"no json", b"[]", b"null", b"7", b"{}", b'{"identity": "x', b"\xff\xfe\x00", "é".encode("latin-1")]
    return [(b"key", json.dumps(one).encode()) for one in bad] + [(None, text) for text in texts] + [LONG, HUGE, EMPTY]


def told(trains: dict[str, list[Train]]) -> list[tuple[str, Visit, int | None]]:
    """Return kind, visit and true delay of six trains of each kind, told four times each."""
    return [
        (kind, *visit(one, times, NOON - 90 + times + number / 1000))
        for kind, some in trains.items()
        for number, one in enumerate(some)
        for times in TELLINGS
    ]


@pytest.fixture(scope="module")
def base(trains: dict[str, list[Train]]) -> Visit:
    """A visit with both of its departure times."""
    return visit(trains["on_time"][0], 0, NOON)[0]


@pytest.fixture(scope="module")
def given(trains: dict[str, list[Train]], base: Visit) -> list[Row]:
    """All rows of the one batch, good and bad by turns: neither may take the other along."""
    visits = [one for _, one, _ in told(trains)] + variants() + [LEAST, ODD]
    visits += [named(base, call, **journey) for journey, call, _ in NAMES]
    visits += [timed(base, expected, aimed) for expected, aimed, *_ in TIMES] + [timed(base, at(400), at(0))]
    good, bad = [record(one) for one in visits], letters(base)
    mixed = [row for pair in zip(good, bad, strict=False) for row in pair]
    return list(dict.fromkeys(mixed + good[len(bad) :]))


@pytest.fixture(scope="module")
def results(given: list[Row], archive: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Results:
    """What the transformation makes of each row of the batch, by the row."""
    home = archive("spark")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPARK_HOME", str(home))
        patch.setenv("SPARK_LOCAL_IP", "127.0.0.1")
        patch.setenv("PYSPARK_PYTHON", sys.executable)
        patch.setattr(sys, "path", [str(home / "python"), *sys.path])
        from pyspark.sql import SparkSession

        from berny.pipelines.idfm.columns import transform

        settings = {
            "spark.ui.enabled": "false",
            "spark.driver.memory": "600m",
            "spark.driver.extraJavaOptions": "-XX:+UseSerialGC -XX:TieredStopAtLevel=1",
            "spark.sql.session.timeZone": "UTC",
            "spark.sql.warehouse.dir": str(tmp_path_factory.mktemp("warehouse")),
            "spark.log.level": "ERROR",
            # As a stream's rows are: by code that is generated, and an error where that can't be compiled.
            "spark.sql.optimizer.excludedRules": "org.apache.spark.sql.catalyst.optimizer.ConvertToLocalRelation",
            "spark.sql.codegen.fallback": "false",
            "spark.sql.codegen.factoryMode": "CODEGEN_ONLY",
        }
        builder = SparkSession.builder.master("local[1]").appName("tests")
        for name, value in settings.items():
            builder = builder.config(name, value)
        spark = builder.getOrCreate()
        rows = [
            (key and bytearray(key), None if value is None else bytearray(value), "idfm-realtime", 2, number, WRITTEN)
            for number, (key, value) in enumerate(given)
        ]
        schema = "key BINARY, value BINARY, topic STRING, partition INT, offset BIGINT, timestamp TIMESTAMP"
        found = transform(spark.createDataFrame(rows, schema)).collect()
        spark.stop()
    assert {tuple(row.asDict()) for row in found} == {("key", "value", "topic", "headers")}
    headers = [[(header.key, bytes(header.value)) for header in row.headers] for row in found]
    milliseconds = int(WRITTEN.timestamp() * 1000)
    assert [source_of(one) for one in headers] == [(2, number, milliseconds) for number in range(len(given))]
    made = [(row.key and bytes(row.key), row.topic, json.loads(row.value)) for row in found]
    return dict(zip(given, made, strict=True))


@pytest.fixture(scope="module")
def day(trains: dict[str, list[Train]], results: Results) -> Day:
    """By kind: visit, true delay and processed record of the timetable's visits."""
    by_kind: Day = {kind: [] for kind in KINDS}
    for kind, one, delay in told(trains):
        key, topic, processed = results[record(one)]
        assert (key, topic) == (f"{prim.journey(one)}|{STOP}".encode(), "idfm-processed")
        by_kind[kind].append((one, delay, processed))
    return by_kind


# -- delays ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_delay_is_the_true_one(day: Day, kind: str) -> None:
    """For each kind of visit that there can be: the delay that the timetable drew, or null where none is known."""
    assert len(day[kind]) == 24
    for one, delay, processed in day[kind]:
        assert processed["delay_sec"] == delay
        assert (processed["delay_sec"] is None) == (kind in UNKNOWN)
        assert processed["identity"] == prim.identity(one)


def test_delays_of_a_day_differ(day: Day) -> None:
    """The comparison would be worth little if all of them were one number."""
    delays = {delay for rows in day.values() for _, delay, _ in rows if delay is not None}
    assert len(delays) > 50
    assert min(delays) < 0 < max(delays)


def test_unknown_is_null_and_there(day: Day) -> None:
    """Null is told: a field that is left out could be a program that forgot it."""
    for kind in UNKNOWN:
        assert all("delay_sec" in processed and processed["delay_sec"] is None for _, _, processed in day[kind])


@pytest.mark.parametrize("kind", KINDS)
def test_cancelled(day: Day, kind: str) -> None:
    """Only cancelled trains are, and always a boolean."""
    assert {processed["cancelled"] for _, _, processed in day[kind]} == {kind in CANCELLED}


@pytest.mark.parametrize("kind", KINDS)
def test_status_is_computed(day: Day, kind: str) -> None:
    """Never what the API tells: it says onTime of trains minutes late."""
    for _, delay, processed in day[kind]:
        if kind in CANCELLED:
            expected = "cancelled"
        elif delay is None:
            expected = "unknown"
        else:
            expected = "late" if delay >= 300 else "early" if delay < -60 else "onTime"
        assert processed["status"] == expected


def test_status_told_is_kept_beside(results: Results, base: Visit) -> None:
    """The API tells onTime of a train 400 s late: both are there, each under its own name."""
    _, _, processed = results[record(timed(base, at(400), at(0)))]
    assert (processed["status"], processed["status_told"]) == ("late", "onTime")


def test_arrivals_count_where_there_is_no_departure(day: Day) -> None:
    """A train that ends here has arrivals only, whatever status of a departure is told; of all others that counts."""
    told_of_no_departure = [one["MonitoredVehicleJourney"]["MonitoredCall"] for one, _, _ in day["terminates"]]
    assert {call["DepartureStatus"] for call in told_of_no_departure} == {"onTime", ""}
    for one, _, processed in day["arrival_only"] + day["terminates"]:
        call = one["MonitoredVehicleJourney"]["MonitoredCall"]
        assert processed["theoretical"] == call["AimedArrivalTime"]
        assert processed["predicted"] == call["ExpectedArrivalTime"]
        assert processed["status_told"] == call["ArrivalStatus"]
    for one, _, processed in day["on_time"] + day["starts"]:
        call = one["MonitoredVehicleJourney"]["MonitoredCall"]
        assert processed["theoretical"] == call["AimedDepartureTime"]
        assert processed["predicted"] == call["ExpectedDepartureTime"]


def test_columns_are_these(day: Day, trains: dict[str, list[Train]]) -> None:
    """The topic's schema, with each value where it belongs, wherever the source has told it."""
    by_journey = {one.journey: one for some in trains.values() for one in some}
    for one, _, processed in itertools.chain(*day.values()):
        journey, train = one["MonitoredVehicleJourney"], by_journey[prim.journey(one)]
        expected = {
            "identity": prim.identity(one),
            "line": "C01743",
            "stop": STOP,
            "stop_name": "La Croix de Berny",
            "direction": train.direction,
            "destination": train.destination,
            "mission": train.mission,
            "journey": prim.journey(one),
            "platform": journey["MonitoredCall"]["ArrivalPlatformName"]["value"],
            "at_stop": journey["MonitoredCall"]["VehicleAtStop"],
            "recorded_at": one["RecordedAtTime"],
            "observed_at": NOON + 0.25,
            "data_origin": "simulated",
        }
        assert {name: processed[name] for name in expected} == expected
        computed = {"theoretical", "predicted", "delay_sec", "status", "status_told", "cancelled"}
        assert set(processed) == set(expected) | computed


def test_points_of_the_day_are_right(day: Day) -> None:
    """From visit to point: what stands in InfluxDB is the delay that the timetable drew; no two meet."""
    places = set()
    for rows in day.values():
        for one, delay, processed in rows:
            _, tags, fields, moment = parse_line(points.point(processed))
            assert fields["identity"] == f'"{prim.identity(one)}"'
            assert (float(fields["delay"]) if "delay" in fields else None) == delay
            places.add((tuple(sorted(tags.items())), moment))
    assert len(places) == sum(len(rows) for rows in day.values())


# -- edges -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("expected", "aimed", "delay", "status"), TIMES)
def test_delay_of_times(
    results: Results, base: Visit, expected: str, aimed: str, delay: float | None, status: str
) -> None:
    """Limits of the statuses, offsets, parts of a second, and what is no time: null, not an end of the query."""
    _, topic, processed = results[record(timed(base, expected, aimed))]
    assert topic == "idfm-processed"
    assert (processed["delay_sec"], processed["status"]) == (delay, status)


def test_spark_means_what_the_definition_means(results: Results) -> None:
    """``prim.outcome`` judges what the simulator replays: whatever times and statuses there are, both say the same."""
    found = {number: results[record(one)] for number, one in enumerate(variants())}
    for number, one in enumerate(variants()):
        _, topic, processed = found[number]
        assert topic == "idfm-processed"
        assert (processed["delay_sec"], processed["cancelled"]) == prim.outcome(one), one
    outcomes = {(processed["delay_sec"], processed["cancelled"]) for _, _, processed in found.values()}
    assert outcomes == {(0.0, False), (None, False), (None, True)}


@pytest.mark.parametrize(("journey", "call", "expected"), NAMES)
def test_names_are_taken_from_where_they_are(
    results: Results, base: Visit, journey: Visit, call: Visit, expected: dict[str, str | None]
) -> None:
    """Unknown is what is told nowhere; and a mission is not a number, which would make a series of every train."""
    _, _, processed = results[record(named(base, call, **journey))]
    assert {name: processed[name] for name in expected} == expected
    assert all(processed[name] for name in ("direction", "mission", "destination") if name not in expected)


@pytest.mark.parametrize("one", [LEAST, ODD])
def test_visit_with_the_least_is_processed(results: Results, one: Visit) -> None:
    """Lists may be empty and objects, too: what is not told is null, and the train is not lost."""
    _, topic, processed = results[record(one)]
    assert topic == "idfm-processed"
    assert processed["identity"] == prim.identity(one)
    assert (processed["delay_sec"], processed["status"], processed["cancelled"]) == (None, "unknown", False)
    assert processed["at_stop"] is False
    assert parse_line(points.point(processed))[1]["line"] == "unknown"


# -- dead letters ------------------------------------------------------------------------------------------------------


def test_what_is_not_understood_is_a_dead_letter(results: Results, given: list[Row], base: Visit) -> None:
    """Reason, origin and all bytes, to the right topic, under its key."""
    for row in letters(base):
        key, topic, letter = results[row]
        assert (key, topic) == (row[0], "idfm-realtime.dlq"), row
        assert letter["origin"] == {"topic": "idfm-realtime", "partition": 2, "offset": given.index(row)}
        assert letter["value_bytes"] == (None if row[1] is None else len(row[1]))
        kept = None if row[1] is None else row[1][:LETTER_BYTES]
        assert letter["value_base64"] is None if kept is None else base64.b64decode(letter["value_base64"]) == kept
        assert letter["reason"]


def test_nothing_else_is_a_dead_letter(results: Results, base: Visit) -> None:
    """Every row is one record: a result, or a letter where no result can be had."""
    dead = [row for row, (_, topic, _) in results.items() if topic == "idfm-realtime.dlq"]
    assert sorted(dead, key=str) == sorted(letters(base), key=str)
    assert {topic for _, topic, _ in results.values()} == {"idfm-realtime.dlq", "idfm-processed"}


def test_empty_record_is_told_as_empty(results: Results) -> None:
    """A tombstone has no value, which is another reason than a value that means nothing."""
    assert results[EMPTY][2]["reason"] == "empty" != results[LONG][2]["reason"]


def test_dead_letters_have_one_form(results: Results) -> None:
    """Those of Spark and those of Python programs are read by the same eyes: base64 is one line, however long."""
    ours = json.loads(dead_letter("idfm-realtime", "a reason", {}, LONG[1]).value)
    letter = results[LONG][2]
    assert set(letter) == set(ours) - {"at"}, "when it was told is the record's own time: a replay tells the same"
    assert letter["value_base64"] == ours["value_base64"]


def test_letter_about_a_record_of_any_size_can_be_sent(results: Results) -> None:
    """Else one record of 3 MB, which brokers take, stops the stream for good."""
    ours = dead_letter("idfm-realtime", "a reason", {}, HUGE[1])
    letter = results[HUGE][2]
    for one in (json.loads(ours.value), letter):
        assert one["value_bytes"] == len(HUGE[1]) > RECORD_BYTES * 3 / 4
        assert HUGE[1].startswith(base64.b64decode(one["value_base64"]))
    assert max(len(ours.value), len(json.dumps(letter))) < 1_000_000
