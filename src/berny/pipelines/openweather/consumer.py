"""From ``weather-api`` to the table ``weather``, one row for each observation; a new table gets those of HDFS as well."""

from __future__ import annotations

import datetime as dt
import json
import threading
from typing import Any
from zoneinfo import ZoneInfo

from berny.model.component import seconds
from berny.pipelines.openweather.aggregates import PARTS, measures
from berny.pipelines.openweather.imports import Import
from berny.pipelines.openweather.openweather import TIMES
from berny.pipelines.openweather.settings import FolderSettings, TopicSettings
from berny.runtime import batch, stage
from berny.runtime.kafka import Origin
from berny.runtime.sinks.postgresql import PostgresSettings, PostgresSink
from berny.runtime.stage import Stop

GROUP = "openweather-consumer"
PARIS = ZoneInfo("Europe/Paris")
COLUMNS = ("date_time", "msg_offset", "partition", "value", "at", "identity", "topic_id", "city", *PARTS)
EXPIRED = (
    "stored_at < now() - %(keep)s * interval '1 second' "
    "AND xid < (SELECT begins FROM ref_date ORDER BY begins DESC LIMIT 1)"
)
"""What is not in HDFS yet stays: all before the export's last step is there."""


class Settings(TopicSettings, FolderSettings, PostgresSettings):
    """The consumer's environment."""

    berny_batch_records: int = 500
    """A record with its forecast takes some 17 kB, and several times that while it is inserted."""


def row(record: dict[str, Any], origin: Origin) -> tuple[Any, ...]:
    """Return the row of a record, in the order of ``COLUMNS``.

    Raises:
        ValueError: identity or time is missing or malformed.
    """
    identity, moment = record.get("identity"), record.get("dt")
    if not isinstance(identity, str) or not identity:
        raise ValueError("the record has no identity")
    if not isinstance(moment, int) or moment not in TIMES:
        raise ValueError(f"dt is {moment!r}, not a time in seconds")
    at = dt.datetime.fromtimestamp(moment, dt.UTC)
    city = record.get("name") or record.get("city")
    return (
        at.astimezone(PARIS).replace(tzinfo=None),
        origin.offset,
        origin.partition,
        json.dumps(record),
        at,
        identity,
        origin.topic_id,
        city if isinstance(city, str) else None,
        *measures(record).values(),
    )


def imports(settings: Settings) -> Import:
    """Return the import, which has a connection of its own."""
    keep = seconds(settings.pg_keep) if settings.pg_keep else None
    return Import(settings.files(), PostgresSink(settings, COLUMNS), row, keep, settings.berny_state_dir)


def run(settings: Settings, stop: Stop) -> None:
    """Run the consumer until it is stopped."""
    importing = threading.Thread(target=imports(settings).run, args=(stop,), name="import")
    importing.start()
    try:
        batch.run(settings, settings.topic_name, GROUP, PostgresSink(settings, COLUMNS, EXPIRED), row, stop)
    finally:
        stop.set()
        importing.join()


if __name__ == "__main__":
    stage.main(Settings, run)
