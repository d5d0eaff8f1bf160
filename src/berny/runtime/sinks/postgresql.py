"""PostgreSQL as a sink of rows: one table, and a role that is limited to writing to it."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg2
from psycopg2.extensions import connection, cursor
from psycopg2.extras import execute_values

from berny.model.component import seconds
from berny.runtime.batch import BatchSettings, ItemsRefused, SinkAway
from berny.runtime.stage import ConfigurationError, EnvironmentSettings, log

LOGGER = logging.getLogger("postgresql")
EXPIRED_ROWS = 5000
"""Rows that are deleted at once, so that a deletion delays the next batch little."""
EXPIRED_SECONDS = 600
"""Time from one deletion to the next, once no row is left that is to be deleted."""
CONNECTION: dict[str, Any] = {
    "connect_timeout": 5,
    # Without a response from the server's machine, the connection ends within half a minute.
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
    "options": "-c statement_timeout=60s",
}
REFUSED = {"22", "23", "54"}
"""Classes of SQLSTATE that are about a row: data, constraints, limits."""
NEEDS_A_PERSON = {"28", "3D", "3F", "42"}
"""Classes of SQLSTATE for a refused login, missing databases, schemas, tables and columns, and missing privileges."""
NO_LOGIN = re.compile(
    r"authentication failed|no password supplied|does not exist|no pg_hba\.conf entry|permission denied"
)
"""A refused connection has a message without SQLSTATE; servers have ``lc_messages = C``."""


class DatabaseSettings(EnvironmentSettings):
    """The environment of a stage that uses PostgreSQL."""

    pg_dsn: str
    """Host, port, database and role, as libpq takes them."""
    pg_password: str
    pg_advice: str = "run site.yml, which creates roles and tables, and renews PG_PASSWORD"
    """What a person can do if the login or the table is refused."""


class PostgresSettings(BatchSettings, DatabaseSettings):
    """The environment of a consumer that writes to PostgreSQL."""

    pg_table: str
    pg_table_id: str
    """Changes if the table is recreated."""
    pg_keep: str = ""
    """Retention of rows, such as 90d."""


class Database:
    """A database over one connection, which is opened when it is needed, and again after it was lost."""

    def __init__(self, settings: DatabaseSettings) -> None:
        self._settings = settings
        self._connection: connection | None = None

    @contextmanager
    def transaction(self) -> Iterator[cursor]:
        """Yield a cursor in a transaction, which is committed at the end of the block or rolled back.

        Raises:
            ConfigurationError: PostgreSQL refuses the login, or the table or a privilege is missing.
            ItemsRefused: PostgreSQL refuses a value.
            SinkAway: PostgreSQL does not respond, or reports a transient error.
        """
        try:
            if self._connection is None or self._connection.closed:
                self._connection = self._connect()
            with self._connection, self._connection.cursor() as found:
                yield found
        except psycopg2.Error as error:
            self.close()
            raise self._explained(error) from error

    def _connect(self) -> connection:
        own = self._settings
        name = f"{own.berny_pipeline}-{own.berny_stage}"
        return psycopg2.connect(own.pg_dsn, password=own.pg_password, application_name=name, **CONNECTION)

    def close(self) -> None:
        """Close the connection."""
        if self._connection:
            self._connection.close()
        self._connection = None

    def _explained(self, error: psycopg2.Error) -> Exception:
        said = next(iter(str(error).strip().splitlines()), type(error).__name__)[:300]
        kind = (error.pgcode or "")[:2]
        # Without a code it is the client's own: a value of a type that no column has.
        if kind in REFUSED or (not kind and isinstance(error, psycopg2.ProgrammingError)):
            return ItemsRefused(f"PostgreSQL refuses it: {said}")
        if kind in NEEDS_A_PERSON or (not kind and NO_LOGIN.search(said)):
            return ConfigurationError(f"{said}: {self._settings.pg_advice}")
        return SinkAway(said)


class PostgresSink:
    """Inserts rows into a table; a row that exists already, by any unique key, is left unchanged, unless it is to be updated.

    Args:
        settings: the stage's environment, which names the table.
        columns: the columns of the items, which are tuples, in order.
        expired: condition in SQL for rows that may be deleted, in which ``%(keep)s`` is the table's retention in seconds;
            without it, or without a retention, nothing is.
        conflict: what is done about a row that exists, in SQL.
    """

    def __init__(
        self, settings: PostgresSettings, columns: Sequence[str], expired: str = "", conflict: str = "DO NOTHING"
    ) -> None:
        self.id = settings.pg_table_id
        self._database = Database(settings)
        table, named = settings.pg_table, ", ".join(columns)
        self._insert = f"INSERT INTO {table} ({named}) VALUES %s ON CONFLICT {conflict}"
        self._ask = f"SELECT {named} FROM {table} LIMIT 0"
        some = f"SELECT ctid FROM {table} WHERE {expired} LIMIT {EXPIRED_ROWS}"
        self._delete = f"DELETE FROM {table} WHERE ctid = ANY (ARRAY ({some}))"
        self._keep = seconds(settings.pg_keep) if expired and settings.pg_keep else None
        self._deletion_due = 0.0

    def write(self, items: Sequence[tuple[Any, ...]]) -> int:
        """Insert all rows, or none, in one statement.

        Raises:
            ConfigurationError: PostgreSQL refuses the login, or the table or a privilege is missing.
            ItemsRefused: PostgreSQL refuses a row.
            SinkAway: PostgreSQL does not respond, or reports a transient error.
        """
        with self._database.transaction() as found:
            try:
                execute_values(found, self._insert, items, page_size=len(items))
            except ValueError as error:
                # The driver can't send texts with NUL or a lone surrogate.
                raise ItemsRefused(str(error)) from error
        self._drop_expired()
        return 0

    def check(self) -> None:
        """Check that the table can be read, by a query for no rows.

        Raises:
            ConfigurationError: PostgreSQL refuses the login, or the table or a privilege is missing.
            SinkAway: PostgreSQL does not respond.
        """
        with self._database.transaction() as found:
            found.execute(self._ask)
        self._drop_expired()

    def _drop_expired(self) -> None:
        """Delete some expired rows if it is time to."""
        if self._keep is None or time.monotonic() < self._deletion_due:
            return
        with self._database.transaction() as found:
            found.execute(self._delete, {"keep": self._keep})
            count = found.rowcount
        if count < EXPIRED_ROWS:
            self._deletion_due = time.monotonic() + EXPIRED_SECONDS
        if count:
            log(LOGGER, logging.INFO, "expired rows are deleted", rows=count)


class PostgresUpserts(PostgresSink):
    """Keeps one row of each key: the last one by topic and offset, whatever is repeated.

    Records of a key have to be in one partition. Columns of a row include ``topic_id``, ``partition`` and ``msg_offset``.

    Args:
        settings: the stage's environment, which names the table.
        columns: the columns of the items, which are tuples, in order.
        key: the column that identifies what a row is about.
    """

    def __init__(self, settings: PostgresSettings, columns: Sequence[str], key: str) -> None:
        table = settings.pg_table
        changed = ", ".join(f"{name} = EXCLUDED.{name}" for name in columns if name != key)
        same = " AND ".join(f"{table}.{name} = EXCLUDED.{name}" for name in ("topic_id", "partition"))
        newer = f"{table}.msg_offset <= EXCLUDED.msg_offset"
        update = f"({key}) DO UPDATE SET {changed}, stored_at = now() WHERE NOT ({same}) OR {newer}"
        super().__init__(settings, columns, conflict=update)
        self._key = columns.index(key)
        self._offset = columns.index("msg_offset")

    def write(self, items: Sequence[tuple[Any, ...]]) -> int:
        """Insert or update all rows, or none, in one statement, which can change a row only once; raises as the base does."""
        last: dict[Any, tuple[Any, ...]] = {}
        for item in items:
            known = last.get(item[self._key])
            if known is None or known[self._offset] <= item[self._offset]:
                last[item[self._key]] = item
        return super().write(list(last.values()))
