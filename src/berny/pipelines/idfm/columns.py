"""From a record of ``idfm-realtime`` to one of ``idfm-processed``, as Spark columns: no Python runs per record."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from berny.pipelines.idfm.prim import ARRIVAL, DEPARTURE, TIME
from berny.runtime.stream import dead_letter_value, json_value, output

OUT = "idfm-processed"
DEAD = "idfm-realtime.dlq"
LATE_SECONDS = 300
"""A train is late from this delay on: Transilien counts trains under 5 minutes as punctual."""
EARLY_SECONDS = -60
MISSION = "^([A-Z]{4})[0-9]*$"
"""A VehicleJourneyName with the mission (``EKLI07``). With bare numbers, every train would be a series of its own."""

_VALUE = "STRUCT<value: STRING>"
_CALL = (
    "STRUCT<ExpectedArrivalTime: STRING, AimedArrivalTime: STRING, ExpectedDepartureTime: STRING, AimedDepartureTime: STRING,"
    f" DepartureStatus: STRING, ArrivalStatus: STRING, StopPointName: ARRAY<{_VALUE}>, VehicleAtStop: BOOLEAN,"
    f" DestinationDisplay: ARRAY<{_VALUE}>, DeparturePlatformName: {_VALUE}, ArrivalPlatformName: {_VALUE}>"
)
_JOURNEY = (
    f"STRUCT<LineRef: {_VALUE}, DirectionRef: {_VALUE}, DirectionName: ARRAY<{_VALUE}>, DestinationName: ARRAY<{_VALUE}>,"
    f" JourneyNote: ARRAY<{_VALUE}>, VehicleJourneyName: ARRAY<{_VALUE}>,"
    f" FramedVehicleJourneyRef: STRUCT<DatedVehicleJourneyRef: STRING>, MonitoredCall: {_CALL}>"
)
SCHEMA = (
    "identity STRING, observed_at DOUBLE, data_origin STRING, spool_offset BIGINT,"
    f" visit STRUCT<RecordedAtTime: STRING, MonitoringRef: {_VALUE}, MonitoredVehicleJourney: {_JOURNEY}>"
)


def _non_empty(text: Column) -> Column:
    """Return text, or null if it is empty."""
    return F.nullif(text, F.lit(""))


def _first(array: str) -> Column:
    return _non_empty(F.get(F.col(array), F.lit(0))["value"])


def _moment(text: Column) -> Column:
    """Return the timestamp of a time in the format of ``prim.moment``, or null. Spark's cast alone accepts other formats."""
    return F.when(F.regexp_extract(text, TIME, 0) == text, text.try_cast("timestamp"))


def _cancels(status: Column) -> Column:
    return F.coalesce(F.lower(status) == "cancelled", F.lit(False))


def judged(parsed: DataFrame, visit: str = "r.visit") -> DataFrame:
    """Return the rows of parsed records ``r`` with the outcome of their visits, by the definition of ``prim.outcome``.

    ``recorded`` is the timestamp of RecordedAtTime. ``delay_sec`` (seconds), ``cancelled`` and ``status`` are the outcome,
    ``theoretical`` and ``predicted`` the aimed and expected time, and ``status_told`` the status in the source's words.

    Expressions that are used more than once are columns of their own: as one expression, the code that Spark generates
    exceeds the size limit of a method.
    """
    call = f"{visit}.MonitoredVehicleJourney.MonitoredCall"
    departs, arrives, told, cancelled, delay = map(
        F.col, ("departs", "arrives", "status_told", "cancelled", "delay_sec")
    )
    departure, arrival = F.col("departure_told"), F.col("arrival_told")

    def chosen(name: str) -> Column:
        """Return the timestamp of the departure or arrival that counts."""
        return F.when(departs, F.col(f"departure_{name}")).otherwise(F.col(f"arrival_{name}"))

    def text(name: str) -> Column:
        """Return its original text if it is a time."""
        of_departure, of_arrival = (F.col(f"{call}.{getattr(one, name)}") for one in (DEPARTURE, ARRIVAL))
        return F.when(chosen(name).isNotNull(), F.when(departs, of_departure).otherwise(of_arrival))

    moments = {
        f"{movement}_{name}": _moment(F.col(f"{call}.{getattr(fields, name)}"))
        for movement, fields in (("departure", DEPARTURE), ("arrival", ARRIVAL))
        for name in ("expected", "aimed")
    }
    told_by = {
        f"{movement}_told": _non_empty(F.col(f"{call}.{fields.status}"))
        for movement, fields in (("departure", DEPARTURE), ("arrival", ARRIVAL))
    }
    known = {
        verb: F.col(f"{movement}_expected").isNotNull() | F.col(f"{movement}_aimed").isNotNull()
        for verb, movement in (("departs", "departure"), ("arrives", "arrival"))
    }
    status_told = (
        F.when(departs, F.coalesce(departure, arrival))
        .when(~arrives & _cancels(departure), departure)
        .otherwise(F.coalesce(arrival, departure))
    )
    # In integer microseconds: a difference of fractional seconds is not exact.
    microseconds = F.unix_micros(chosen("expected")) - F.unix_micros(chosen("aimed"))
    status = (
        F.when(cancelled, "cancelled")
        .when(delay.isNull(), "unknown")
        .when(delay >= LATE_SECONDS, "late")
        .when(delay < EARLY_SECONDS, "early")
        .otherwise("onTime")
    )
    steps: list[dict[str, Column]] = [
        {"recorded": _moment(F.col(f"{visit}.RecordedAtTime")), **moments, **told_by},
        known,
        {"status_told": status_told, "predicted": text("expected"), "theoretical": text("aimed")},
        {"cancelled": _cancels(told)},
        {"delay_sec": F.when(~cancelled, microseconds / F.lit(1e6))},
        {"status": status},
    ]
    for step in steps:
        parsed = parsed.withColumns(step)
    return parsed


def processed(visit: str = "r.visit") -> dict[str, Column]:
    """Return the columns of ``idfm-processed`` by name, for a record ``r`` that was ``judged``.

    Direction, mission and destination are taken from whichever field has them; they are null if none has.
    """
    journey, call = f"{visit}.MonitoredVehicleJourney", f"{visit}.MonitoredVehicleJourney.MonitoredCall"
    return {
        "identity": F.col("r.identity"),
        "line": F.regexp_extract(F.col(f"{journey}.LineRef.value"), r"(C\d+)", 1),
        "stop": F.col(f"{visit}.MonitoringRef.value"),
        "stop_name": _first(f"{call}.StopPointName"),
        "direction": F.coalesce(_non_empty(F.col(f"{journey}.DirectionRef.value")), _first(f"{journey}.DirectionName")),
        "destination": F.coalesce(_first(f"{journey}.DestinationName"), _first(f"{call}.DestinationDisplay")),
        "mission": F.coalesce(
            _first(f"{journey}.JourneyNote"),
            _non_empty(F.regexp_extract(_first(f"{journey}.VehicleJourneyName"), MISSION, 1)),
        ),
        "journey": F.col(f"{journey}.FramedVehicleJourneyRef.DatedVehicleJourneyRef"),
        "platform": F.coalesce(
            _non_empty(F.col(f"{call}.DeparturePlatformName.value")),
            _non_empty(F.col(f"{call}.ArrivalPlatformName.value")),
        ),
        **{
            name: F.col(name)
            for name in ("theoretical", "predicted", "delay_sec", "status_told", "status", "cancelled")
        },
        "at_stop": F.coalesce(F.col(f"{call}.VehicleAtStop"), F.lit(False)),
        "recorded_at": F.col(f"{visit}.RecordedAtTime"),
        "observed_at": F.col("r.observed_at"),
        "data_origin": F.col("r.data_origin"),
    }


def transform(source: DataFrame) -> DataFrame:
    """Return the output records, for rows of Spark's Kafka source.

    A row that can't be parsed becomes a dead letter, in the format of ``kafka.dead_letter``.
    """
    parsed = source.withColumn("r", F.from_json(F.col("value").cast("string"), SCHEMA, {"mode": "PERMISSIVE"}))
    found = judged(parsed)
    understood = (
        F.col("r.identity").isNotNull()
        & F.col("r.visit.MonitoredVehicleJourney.MonitoredCall").isNotNull()
        & F.col("recorded").isNotNull()
    )
    reason = F.when(F.col("value").isNull(), "empty").otherwise(
        "not JSON of a visit with identity, call and RecordedAtTime with an offset"
    )
    good_row = F.coalesce(understood, F.lit(False))
    return output(
        found,
        F.when(good_row, json_value(processed())).otherwise(dead_letter_value(reason)),
        F.when(good_row, OUT).otherwise(DEAD),
    )
