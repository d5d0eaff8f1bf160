"""From a row of the file to a record of ``customers-raw``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from berny.runtime import delimited
from berny.runtime.deposit import Version
from berny.runtime.file_poller import Row
from berny.runtime.kafka import RECORD_BYTES, Record, dead_letter
from berny.runtime.response import OVERHEAD_BYTES

KEY = "Customer Id"


def identity(version: str, number: int) -> str:
    """Return the identity of a row: the version of the file, and its number from 1 on."""
    return f"{version}:{number}"


def parsed(names: list[str], fields: list[str]) -> dict[str, Any]:
    """Return what a record says of a row: its fields by column, the columns that it lacks, and what it has beyond them."""
    return {
        "customer": dict(zip(names, fields, strict=False)),
        "missing": names[len(fields) :],
        "surplus": fields[len(names) :],
    }


def record(topic: str, version: Version, names: list[str], row: delimited.Row, origin: str) -> Record:
    """Return the record of a row; a dead letter of one that can't be read, or is too large."""
    name = identity(version.name, row.number)
    where = {"source": "customers", "identity": name}
    if row.reason:
        return dead_letter(topic, row.reason, where, row.raw)
    found = parsed(names, row.fields)
    head = {"identity": name, "observed_at": version.kept_at, "data_origin": origin, "row": row.number}
    value = json.dumps(head | found).encode()
    # Records of one customer stay in order.
    key = (found["customer"].get(KEY, "").strip() or name).encode()
    if len(value) + len(key) > RECORD_BYTES - OVERHEAD_BYTES:
        return dead_letter(topic, "larger than the limit for a record", where, value)
    return Record(topic, key, value)


def rows(version: Version, topic: str, origin: str) -> Iterator[Row]:
    """Yield the records of a version from its position on."""
    coding = delimited.encoding(version.path)
    names, begin = delimited.header(version.path, coding)
    for row in delimited.rows(version.path, coding, version.offset or begin, version.row):
        yield Row(record(topic, version, names, row, origin), row.number, row.following)
