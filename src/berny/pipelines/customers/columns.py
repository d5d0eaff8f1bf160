"""What a record of ``customers-raw`` is, as Spark columns: a customer of the USA, one of elsewhere, or incomplete.

The rules are in the README. No Python runs per record.
"""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from berny.runtime.stream import json_value

USA, ALERTS, DEAD = "customers-usa", "customers-alerts", "customers-raw.dlq"
COLUMNS = {
    "customer_id": "Customer Id", "first_name": "First Name", "last_name": "Last Name", "company": "Company",
    "city": "City", "country": "Country", "phone_1": "Phone 1", "phone_2": "Phone 2", "email": "Email",
    "subscription_date": "Subscription Date", "website": "Website",
}  # fmt: skip
"""The file's columns by the names that fields have after this."""
REQUIRED = ("customer_id", "first_name", "last_name", "email", "country", "subscription_date")
SPELLINGS = ("unitedstatesofamerica", "theunitedstatesofamerica", "unitedstates", "theunitedstates", "usa", "us")
"""Of the USA, without what is no letter."""
EMAIL = r"^[^@\s]+@[^@\s.]+(\.[^@\s.]+)+$"
DATE = r"^\d{4}-\d{2}-\d{2}$"
SCHEMA = (
    "identity STRING, observed_at DOUBLE, data_origin STRING, row BIGINT, customer MAP<STRING, STRING>,"
    " missing ARRAY<STRING>, surplus ARRAY<STRING>"
)
PARQUET = (
    "identity STRING, observed_at DOUBLE, data_origin STRING, index BIGINT, customer_id STRING, first_name STRING,"
    " last_name STRING, company STRING, city STRING, country STRING, phone_1 STRING, phone_2 STRING, email STRING,"
    " subscription_date DATE, website STRING"
)
"""The types of a customer of the USA; JSON has the date as YYYY-MM-DD."""
PARQUET_ALERTS = (
    "identity STRING, observed_at DOUBLE, data_origin STRING, reasons ARRAY<STRING>, customer_id STRING, country STRING,"
    " customer MAP<STRING, STRING>, missing ARRAY<STRING>, surplus ARRAY<STRING>"
)
"""The types of an alert."""


def _clean(text: Column) -> Column:
    """Return text without control characters and spaces around it, with single spaces in it; null if nothing is left."""
    return F.nullif(F.trim(F.regexp_replace(text, r"[\p{Cntrl}\s\u00a0]+", " ")), F.lit(""))


def _alert(wrong: Column, reason: str) -> Column:
    return F.when(F.coalesce(wrong, F.lit(False)), reason)


def judged(source: DataFrame) -> DataFrame:
    """Return rows of Spark's Kafka source with the parsed record ``r``, cleaned fields by name, ``reasons`` and ``kind``.

    ``kind`` is ``usa``, ``elsewhere``, ``incomplete``, or ``dead`` for what is no record of a row.
    """
    parsed = source.withColumn("r", F.from_json(F.col("value").cast("string"), SCHEMA, {"mode": "PERMISSIVE"}))
    cleaned = parsed.withColumns({name: _clean(F.col("r.customer")[column]) for name, column in COLUMNS.items()})
    cleaned = cleaned.withColumns(
        {"email": F.lower("email"), "index": _clean(F.col("r.customer")["Index"]).try_cast("bigint")}
    )
    date = F.col("subscription_date")
    is_date = date.rlike(DATE) & date.try_cast("date").isNotNull()
    reasons = [
        _alert(F.size("r.missing") > 0, "missing columns"),
        _alert(F.size("r.surplus") > 0, "surplus columns"),
        *(_alert(F.col(name).isNull(), f"no {COLUMNS[name]}") for name in REQUIRED),
        _alert(~F.col("email").rlike(EMAIL), "Email is malformed"),
        _alert(date.isNotNull() & ~F.coalesce(is_date, F.lit(False)), "Subscription Date is malformed"),
    ]
    spelled = F.lower(F.regexp_replace("country", "[^A-Za-z]", ""))
    # An identity ends with a number; another record has none, and would not be counted.
    is_record = F.col("r.identity").rlike(r":\d{1,18}$") & F.col("r.customer").isNotNull()
    kind = (
        F.when(~F.coalesce(is_record, F.lit(False)), "dead")
        .when(F.size("reasons") > 0, "incomplete")
        .when(spelled.isin(*SPELLINGS), "usa")
        .otherwise("elsewhere")
    )
    return cleaned.withColumn("reasons", F.array_compact(F.array(*reasons))).withColumn("kind", kind)


def customer() -> dict[str, Column]:
    """Return the fields of a customer of the USA by name."""
    head = {name: F.col(f"r.{name}") for name in ("identity", "observed_at", "data_origin")}
    return head | {"index": F.col("index")} | {name: F.col(name) for name in COLUMNS}


def alert() -> dict[str, Column]:
    """Return the fields of an incomplete row by name: why, and the row as the file has it."""
    head = {name: F.col(f"r.{name}") for name in ("identity", "observed_at", "data_origin")}
    rest = {name: F.col(f"r.{name}") for name in ("customer", "missing", "surplus")}
    return head | {name: F.col(name) for name in ("reasons", "customer_id", "country")} | rest


def values(rows: DataFrame, fields: dict[str, Column]) -> DataFrame:
    """Return rows as JSON, in the column ``value``, with their ``key``."""
    return rows.select("key", json_value(fields).alias("value"))
