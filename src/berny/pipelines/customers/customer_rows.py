"""From records of ``customers-usa`` to rows of the table ``customers``, here or at a hosted PostgreSQL."""

from __future__ import annotations

import datetime as dt
import hashlib
from pathlib import Path
from typing import Any

import yaml
from psycopg2 import ProgrammingError
from psycopg2.extensions import parse_dsn
from pydantic import field_validator, model_validator

from berny.runtime.kafka import Origin
from berny.runtime.sinks.postgresql import Database, PostgresSettings

TEXTS = ("customer_id", "first_name", "last_name", "company", "city", "country", "phone_1", "phone_2", "email")
REQUIRED = {"customer_id", "first_name", "last_name", "country", "email"}
COLUMNS = (*TEXTS, "subscription_date", "website", "identity", "observed_at", "topic_id", "partition", "msg_offset")
KEY = "customer_id"
BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
MANIFEST = Path(__file__).with_name("pipeline.yml")


class TableSettings(PostgresSettings):
    """The environment of what writes the table: the cluster's PostgreSQL, or the one that ``SUPABASE_DB_URL`` names."""

    supabase_db_url: str = ""
    """``postgresql://USER:PASSWORD@HOST:PORT/DATABASE``; its certificate is verified."""

    @model_validator(mode="before")
    @classmethod
    def _instead(cls, values: dict[str, Any]) -> dict[str, Any]:
        try:
            return {**values, **hosted(str(values["supabase_db_url"]))} if values.get("supabase_db_url") else values
        except ValueError:
            # The field's own validator names it.
            return values

    @field_validator("supabase_db_url")
    @classmethod
    def _usable(cls, url: str) -> str:
        if url:
            hosted(url)
        return url


def hosted(url: str) -> dict[str, str]:
    """Return the settings for a hosted PostgreSQL, whose certificate has to be valid for its name.

    Raises:
        ValueError: the address can't be used; the message does not show it, since it has a password.
    """
    try:
        words = parse_dsn(url)
    except ProgrammingError:
        raise ValueError("it has to be postgresql://USER:PASSWORD@HOST:PORT/DATABASE") from None
    if not words.get("host") or not words.get("password"):
        raise ValueError("it has to name a host and a password")
    where = "/".join(words.get(name, "") for name in ("host", "port", "dbname"))
    secret = words.pop("password")
    words |= {"sslmode": "verify-full", "sslrootcert": words.get("sslrootcert", BUNDLE)}
    return {
        "pg_dsn": " ".join(f"{name}='{_quoted(value)}'" for name, value in words.items()),
        "pg_password": secret,
        # Another database is read from the topic's beginning.
        "pg_table_id": hashlib.sha256(where.encode()).hexdigest()[:12],
        "pg_table": "customers",
        "pg_advice": "correct SUPABASE_DB_URL, run site.yml, then start the pipeline again",
    }


def _quoted(value: str) -> str:
    return value.replace("\\", "\\\\").replace("'", "\\'")


def create(settings: TableSettings) -> None:
    """Create the table of a hosted database as the manifest declares it, if it is missing.

    Raises:
        ConfigurationError: the login or the table is refused.
        SinkAway: the server does not respond.
    """
    table = yaml.safe_load(MANIFEST.read_text())["resources"]["postgresql"][settings.pg_table]
    columns = ", ".join([*table["columns"], *(f"UNIQUE ({one})" for one in table["unique"])])
    database = Database(settings)
    with database.transaction() as cursor:
        cursor.execute(f"CREATE TABLE IF NOT EXISTS {settings.pg_table} ({columns})")
    database.close()


def row(record: dict[str, Any], origin: Origin) -> tuple[Any, ...]:
    """Return the row of a record, in the order of ``COLUMNS``.

    Raises:
        ValueError: a field is missing or malformed.
    """
    texts = {name: record.get(name) for name in (*TEXTS, "website", "identity")}
    for name, value in texts.items():
        if not isinstance(value, str) and (value is not None or name in REQUIRED | {"identity"}):
            raise ValueError(f"{name} is {value!r}")
    observed = record.get("observed_at")
    if not isinstance(observed, int | float):
        raise ValueError(f"observed_at is {observed!r}")
    date = dt.date.fromisoformat(str(record.get("subscription_date")))
    at = dt.datetime.fromtimestamp(observed, dt.UTC)
    named = [texts[name] for name in TEXTS]
    return (*named, date, texts["website"], texts["identity"], at, origin.topic_id, origin.partition, origin.offset)
