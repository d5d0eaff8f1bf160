"""The queries of the dashboard, in Flux.

``journey`` is a field, and several journeys share a slot, so the newest record of each journey is found by that field and not
as the last point of a series. A recent ``start`` keeps this cheap.
"""

from __future__ import annotations

from berny.controller.flux import before_the_end, tag_values
from berny.pipelines.idfm.points import MEASUREMENT

LATE_SECONDS = 300
CHOSEN = "r.direction =~ /^${direction:regex}$/ and r.mission =~ /^${mission:regex}$/"


def records(start: str, fields: str, where: str = CHOSEN) -> str:
    """Return Flux for the records from ``start`` to the end of the time range: some fields of the selected trains."""
    asked = " or ".join(f'r._field == "{field}"' for field in fields.split())
    return f"""from(bucket: v.defaultBucket)
  |> range(start: {start}, stop: v.timeRangeStop)
  |> filter(fn: (r) => r._measurement == "{MEASUREMENT}" and ({asked}))
  |> filter(fn: (r) => {where})"""


def newest(start: str, fields: str) -> str:
    """Return Flux for the newest record of each journey, one row per journey."""
    return f"""{records(start, f"journey cancelled {fields}")}
  |> pivot(rowKey: ["_time"], columnKey: ["_field"], valueColumn: "_value")
  |> group(columns: ["journey"])
  |> sort(columns: ["_time"], desc: true)
  |> limit(n: 1)
  |> group()"""


KNOWN = f"""import "date"

{newest(before_the_end("30m"), "delay")}
  |> filter(fn: (r) => exists r.delay)"""
MEDIAN = f"""{KNOWN}
  |> median(column: "delay", method: "exact_mean")
  |> map(fn: (r) => ({{delay: r.delay / 60.0}}))"""
# Without a condition in map(): InfluxDB 2.7.12 displays its result, but aggregates it as null.
UNDER = f"map(fn: (r) => ({{r with share: float(v: r.delay < {LATE_SECONDS}.0)}}))"
PUNCTUALITY = f"""{KNOWN}
  |> {UNDER}
  |> mean(column: "share")"""
WORST = f"""{KNOWN}
  |> max(column: "delay")
  |> map(fn: (r) => ({{delay: r.delay / 60.0}}))"""
# If no train was recorded there is no row, which is shown as missing data, not as 0.
CANCELLED = f"""import "date"

{newest(before_the_end("1h"), "")}
  |> map(fn: (r) => ({{cancelled: int(v: r.cancelled)}}))
  |> sum(column: "cancelled")"""
# A train that does not run yet is reported only once, hours ahead. So the oldest record of a train that is still due is
# searched first, by a single field; records are read from there on. A row that is never shown has all columns, since a column
# that no train has would be missing.
DEPARTURES = f"""import "array"
import "date"

none = array.from(rows: [{{_time: {before_the_end("1s")}}}])
ahead = {records(before_the_end("1d"), "due_ms")}
  |> filter(fn: (r) => r._value > ${{__to}})
  |> group()
  |> min(column: "_time")
  |> keep(columns: ["_time"])
oldest = (union(tables: [none, ahead]) |> min(column: "_time") |> findRecord(fn: (key) => true, idx: 0))._time

columns = array.from(
  rows: [{{due_ms: 0, delay: 0.0, status: "", destination: "", mission: "", platform: "", direction: ""}}],
)
trains = {newest("oldest", "delay due_ms destination platform status")}
  |> keep(columns: ["due_ms", "delay", "status", "destination", "mission", "platform", "direction"])

union(tables: [columns, trains])
  |> filter(fn: (r) => exists r.due_ms and r.due_ms > ${{__to}})
  |> sort(columns: ["due_ms"])
  |> limit(n: 20)
  |> map(fn: (r) => ({{r with departure: time(v: r.due_ms * 1000000), delay: r.delay / 60.0}}))
  |> drop(columns: ["due_ms"])"""
# The last delay of each train in each window, so that every train counts once: records are sorted by time, newest first, and
# the first of each journey is kept. aggregateWindow() would need a table for each train and window, which takes three times
# as long.
BY_TRAIN = f"""{records("v.timeRangeStart", "journey delay")}
  |> pivot(rowKey: ["_time"], columnKey: ["_field"], valueColumn: "_value")
  |> filter(fn: (r) => exists r.delay)
  |> group(columns: ["direction"])
  |> window(every: v.windowPeriod)
  |> sort(columns: ["_time"], desc: true)
  |> unique(column: "journey")"""


def line(column: str, value: str) -> str:
    """Return Flux for one line per direction, from one row for each direction and window."""
    return f"""  |> map(fn: (r) => ({{_time: r._stop, _field: "{column}", direction: r.direction, _value: {value}}}))
  |> group(columns: ["_field", "direction"])
  |> sort(columns: ["_time"])"""


DELAY_BY_DIRECTION = f"""{BY_TRAIN}
  |> median(column: "delay", method: "exact_mean")
{line("delay", "r.delay / 60.0")}"""
PUNCTUALITY_BY_DIRECTION = f"""{BY_TRAIN}
  |> {UNDER}
  |> mean(column: "share")
{line("share", "r.share")}"""
HEARTBEAT = f"""import "array"
import "date"

none = array.from(rows: [{{records: 0}}])
counted = {records(before_the_end("5m"), "identity", "true")}
  |> count()
  |> group()
  |> map(fn: (r) => ({{records: r._value}}))

union(tables: [none, counted])
  |> sum(column: "records")"""
AGE = f"""import "date"

{records(before_the_end("1d"), "identity", "true")}
  |> last()
  |> group()
  |> max(column: "_time")
  |> map(fn: (r) => ({{age: float(v: int(v: v.timeRangeStop) - int(v: r._time)) / 1000000000.0}}))"""
DIRECTION = tag_values(MEASUREMENT, "direction")
MISSION = tag_values(MEASUREMENT, "mission", "r.direction =~ /^${direction:regex}$/")
