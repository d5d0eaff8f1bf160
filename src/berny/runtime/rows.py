"""Readers of tables and of files of rows, from which harnesses are built."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import psycopg2
from psycopg2.extensions import connection

from berny.runtime.files import Files, FilesError
from berny.runtime.readers import TIMEOUT, Unreadable

OPTIONS = "-c default_transaction_read_only=on -c statement_timeout={seconds}s"
READ_SECONDS = 120
"""Time limit of a query, which may read a whole table."""


class Tables:
    """A database of PostgreSQL, over one connection.

    Args:
        host: a machine, or the directory of the server's socket, over which no password is needed.
        port: the server's.
        database: its name.
        user: a role that may read the tables.
    """

    def __init__(self, host: str, port: int, database: str, user: str) -> None:
        self._where: dict[str, Any] = {"host": host, "port": port, "dbname": database, "user": user}
        self._connection: connection | None = None

    def query(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Return the rows of a query.

        Raises:
            Unreadable: PostgreSQL does not respond, or refuses.
        """
        try:
            if self._connection is None or self._connection.closed:
                options = OPTIONS.format(seconds=READ_SECONDS)
                self._connection = psycopg2.connect(**self._where, connect_timeout=TIMEOUT, options=options)
                self._connection.autocommit = True
            with self._connection.cursor() as found:
                found.execute(statement, values or None)
                return list(found.fetchall())
        except psycopg2.Error as error:
            if self._connection:
                self._connection.close()
            said = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise Unreadable(f"{self._where['host']}:{self._where['port']}: {said}") from None


class DayFiles:
    """Files of JSON lines in folders of days (``dt=YYYY-MM-DD``).

    Args:
        files: the directory.
        names: pattern of the files' names.
    """

    def __init__(self, files: Files, names: str) -> None:
        self.files = files
        self._names = re.compile(names)

    def sizes(self, day: str) -> dict[str, int]:
        """Return the size in bytes of each file of a folder."""
        return {name: size for name, size in self.files.sizes(day).items() if self._names.fullmatch(name)}

    def lines(self, since: float = 0) -> Iterator[tuple[str, Any]]:
        """Yield the folder and the object of each line of files that were written since a Unix time.

        Raises:
            Unreadable: HDFS does not respond, or refuses.
        """
        try:
            for day, modified in self.files.days().items():
                if modified < since:
                    continue
                for name, moment in self.files.modified(day).items():
                    if moment >= since and self._names.fullmatch(name):
                        yield from ((day, json.loads(line)) for line in self.files.lines(f"{day}/{name}"))
        except FilesError as error:
            raise Unreadable(str(error)) from None
