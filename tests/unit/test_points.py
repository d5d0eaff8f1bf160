"""Points: unknown is never 0, no two observations meet, a replay overwrites itself."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from influx_lines import FULL, Line, parse_line

from berny.pipelines.idfm.points import MEASUREMENT, SLOTS, NoPoint, nanoseconds, point
from berny.runtime.sinks.influxdb import expired


def made(**changes: Any) -> Line:
    """Return the parsed point of the full record with changes."""
    return parse_line(point(FULL | changes))


def place(record: dict[str, Any]) -> tuple[object, ...]:
    """Return what decides whether two points are one: measurement, tags, time."""
    measurement, tags, _, moment = parse_line(point(record))
    return measurement, tuple(sorted(tags.items())), moment


def another(number: int, **changes: Any) -> dict[str, Any]:
    """Return the record of another train than the full one's, with an identity of its own."""
    digest = hashlib.sha256(f"{number}".encode()).hexdigest()
    return FULL | {"identity": digest[:32], "journey": f"RATP-SIV:VehicleJourney::RB.{digest[:8]}:LOC"} | changes


# -- values ------------------------------------------------------------------------------------------------------------


def test_known_delay_is_a_field() -> None:
    """The full record, whole: measurement, tags and fields are what dashboards ask for."""
    measurement, tags, fields, _ = made()
    assert measurement == MEASUREMENT
    assert {name: tags[name] for name in ("line", "direction", "mission", "stop")} == {
        name: FULL[name] for name in ("line", "direction", "mission", "stop")
    }
    assert fields["delay"] == "228.0"
    assert fields["identity"] == f'"{FULL["identity"]}"'
    assert fields["cancelled"] == "false"
    assert fields["destination"] == '"Aéroport Charles de Gaulle 2 TGV"'


@pytest.mark.parametrize("changes", [{"delay_sec": None}, {"cancelled": True}, {"cancelled": True, "delay_sec": 0.0}])
def test_unknown_delay_is_no_field(changes: dict[str, Any]) -> None:
    """Where aimed times are absent, or the train does not run, a 0 would be a train on time."""
    _, _, fields, _ = made(**changes)
    assert "delay" not in fields
    assert fields["identity"] == f'"{FULL["identity"]}"'


def test_record_without_the_key_has_no_delay() -> None:
    """Absent is unknown, too."""
    record = {name: value for name, value in FULL.items() if name != "delay_sec"}
    assert "delay" not in parse_line(point(record))[2]


@pytest.mark.parametrize("delay", [0, 0.0, -59.5, 12, 86400.25])
def test_delays_are_floats(delay: float) -> None:
    """An integer field among floats would be refused by InfluxDB: a 0 that is known is a 0."""
    assert not made(delay_sec=delay)[2]["delay"].endswith("i")
    assert float(made(delay_sec=delay)[2]["delay"]) == delay


def test_cancelled_train_is_a_point() -> None:
    """A train that does not run is told."""
    assert made(cancelled=True, delay_sec=None, status="cancelled")[2]["cancelled"] == "true"


@pytest.mark.parametrize("name", ["line", "direction", "mission", "stop"])
@pytest.mark.parametrize("value", [None, ""])
def test_unknown_tag_has_a_value(name: str, value: str | None) -> None:
    """InfluxDB drops empty tags: two points of different series would meet."""
    assert made(**{name: value})[1][name] == "unknown"


@given(st.dictionaries(st.sampled_from(["line", "direction", "mission", "stop"]), st.text(min_size=1)))
def test_any_text_makes_one_line(words: dict[str, str]) -> None:
    """A space, a comma or a line break of a source is never a second point."""
    text = point(FULL | words)
    assert "\n" not in text
    assert set(parse_line(text)[1]) == {"line", "direction", "mission", "slot", "stop"}


@pytest.mark.parametrize(
    ("changes", "due"),
    [
        ({}, "1763985828000i"),
        ({"predicted": None}, "1763985600000i"),
        ({"predicted": "soon"}, "1763985600000i"),
        ({"predicted": None, "cancelled": True, "delay_sec": None}, "1763985600000i"),
        ({"predicted": None, "theoretical": None}, None),
        ({"predicted": "soon", "theoretical": "2025-11-24T12:00:00"}, None),
    ],
)
def test_due_is_expected_else_planned(changes: dict[str, Any], due: str | None) -> None:
    """As a whole number, for dashboards; where neither is a time there is none."""
    assert made(**changes)[2].get("due_ms") == due


# -- time and place ----------------------------------------------------------------------------------------------------


def test_same_record_same_point() -> None:
    """A replay overwrites: nothing of a point comes from clock or chance."""
    assert point(FULL) == point(dict(reversed(FULL.items())))


def test_this_point_for_ever() -> None:
    """A change here would make every replay over existing data a duplicate."""
    assert place(FULL) == (
        "health",
        (
            ("direction", "Aller"), ("line", "C01743"), ("mission", "EKLI"), ("slot", "31"),
            ("stop", "STIF:StopArea:SP:46007:"),
        ),
        1763985480250404022,
    )  # fmt: skip


def test_moment_is_recorded_at_to_the_millisecond() -> None:
    """The identity only fills what the source does not tell."""
    moment = nanoseconds("2025-11-24T11:58:00.250Z", "x")
    start = int(dt.datetime(2025, 11, 24, 11, 58, tzinfo=dt.UTC).timestamp())
    assert start * 1000 + 250 == moment // 1_000_000


def test_offsets_count() -> None:
    """Noon in Paris is eleven in UTC in winter."""
    assert nanoseconds("2025-11-24T12:58:00.250+01:00", "x") == nanoseconds("2025-11-24T11:58:00.250Z", "x")


@given(
    st.datetimes(dt.datetime(2000, 1, 1), dt.datetime(2100, 1, 1)),
    st.datetimes(dt.datetime(2000, 1, 1), dt.datetime(2100, 1, 1)),
    st.text(),
    st.text(),
)
def test_order_is_kept(one: dt.datetime, other: dt.datetime, name: str, other_name: str) -> None:
    """Whatever the identities: what was recorded a millisecond later is later."""
    first, second = sorted((one, other))
    if (second - first) // dt.timedelta(milliseconds=1) >= 1 and first.microsecond % 1000 == 0:
        assert nanoseconds(f"{first.isoformat()}Z", name) < nanoseconds(f"{second.isoformat()}Z", other_name)


def test_two_trains_one_second_apart() -> None:
    """The scar of others: points with equal tags and times that were cut to seconds overwrote one another."""
    later = another(1, recorded_at="2025-11-24T11:58:01.250Z")
    assert place(FULL) != place(later)
    assert place(FULL)[2] != place(later)[2]


def test_two_thousand_trains_in_one_millisecond() -> None:
    """Same direction, mission, stop and millisecond: each is a point of its own."""
    places = {place(another(number)) for number in range(2000)}
    assert len(places) == 2000


def test_one_train_told_twice_in_one_millisecond() -> None:
    """Two observations of one journey differ in identity alone."""
    tellings = [FULL | {"identity": hashlib.sha256(f"{n}".encode()).hexdigest()[:32]} for n in range(100)]
    assert len({place(record) for record in tellings}) == 100
    assert len({place(record)[1] for record in tellings}) == 1


def test_slots_are_bounded_and_all_used() -> None:
    """The tag that tells trains apart must not make a series of every train."""
    slots = {parse_line(point(another(number)))[1]["slot"] for number in range(5000)}
    assert slots == {str(number) for number in range(SLOTS)}
    assert SLOTS <= 64


def test_slot_belongs_to_the_journey() -> None:
    """One train stays in one series for as long as it is watched."""
    slots = {
        made(identity=f"{number:032x}", recorded_at=f"2025-11-24T11:{number}:00Z")[1]["slot"] for number in (10, 59)
    }
    assert len(slots) == 1


# -- what is no point --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"identity": None}, {"identity": ""}, {"identity": 7}, {"recorded_at": None}, {"recorded_at": 1763985600},
        {"recorded_at": "yesterday"}, {"recorded_at": ""}, {"recorded_at": "2025-11-24T11:58:00"},
        {"recorded_at": "2025-13-24T11:58:00Z"}, {"recorded_at": "2025-11-24"},
        {"delay_sec": "228"}, {"delay_sec": True}, {"delay_sec": [1]},
    ],
)  # fmt: skip
def test_bad_records_are_no_points(changes: dict[str, Any]) -> None:
    """They become dead letters with a reason that a person understands."""
    with pytest.raises(NoPoint) as error:
        point(FULL | changes)
    assert str(error.value)


@pytest.mark.parametrize("name", ["identity", "recorded_at"])
def test_records_without_name_or_time_are_no_points(name: str) -> None:
    """Absent is as bad as malformed."""
    with pytest.raises(NoPoint):
        point({key: value for key, value in FULL.items() if key != name})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just(10**400) | st.just("\ud800"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from(sorted(FULL)), JSON))
@example({"destination": "\ud800"})
@example({"mission": "\ud800"})
@example({"identity": "\ud800"})
@example({"journey": "\ud800"})
@example({"delay_sec": 10**400})
@example({"delay_sec": float("nan")})
@example({"recorded_at": "0001-01-01T00:00:00+23:59"})
@example({"recorded_at": "9999-12-31T23:59:59-23:59"})
def test_any_record_is_a_point_or_a_letter(changes: dict[str, Any]) -> None:
    """Whatever JSON comes: an error of another kind would stop the consumer at this record, for ever."""
    try:
        text = point(FULL | changes)
    except NoPoint:
        return
    text.encode()


# -- what is older than the bucket keeps ---------------------------------------------------------------------------------

TOO_OLD = (
    "failure writing points to database: partial write: dropped 12 points outside retention policy of duration 2160h0m0s"
    " - oldest point health,line=C01743 at 1999-01-01T00:00:00Z dropped because it violates a Retention Policy Lower Bound"
    " at 2025-08-26T12:00:00Z, newest point health,line=C01743 at 1999-01-01T00:00:00Z dropped because it violates a"
    " Retention Policy Lower Bound at 2025-08-26T12:00:00Z dropped=12 for database: 91040e1bf6671dfd"
    " for retention policy: autogen"
)
"""As InfluxDB 2.7.12 words it (``v1/coordinator/points_writer.go``, ``tsdb/shard.go``, ``http/write_handler.go``)."""


@pytest.mark.parametrize(
    ("status", "message", "count"),
    [
        (422, TOO_OLD, 12),
        (400, TOO_OLD, None),
        (422, "failure writing points to database: partial write: field type conflict: … dropped=1", None),
        (422, "failure writing points to database: partial write: shard 5 is pending deletion dropped=7", None),
        (500, "unexpected error", None),
        (None, "", None),
    ],
)
def test_points_that_are_too_old_are_told_from_wrong_ones(status: int | None, message: str, count: int | None) -> None:
    """InfluxDB has written the others then: none of them is sent again, and none is a dead letter."""
    body = json.dumps({"code": "unprocessable entity", "message": message})
    assert expired(status, body) == expired(status, body.encode()) == count
