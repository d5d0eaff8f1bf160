"""A table of HBase as a sink of rows, over Thrift. Rows are put as a whole, so that writing them again changes nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

import happybase
from thriftpy2.thrift import TException

from berny.runtime.batch import SinkAway
from berny.runtime.stage import ConfigurationError

TIMEOUT = 60
"""Seconds that a request may take: while regions move, HBase itself tries again."""
BATCH = 500
"""Rows of a request."""
MISSING = re.compile(r"TableNotFoundException|NoSuchColumnFamilyException|TableNotEnabledException")

Cells = Mapping[str, bytes | None]
"""Values by ``family:qualifier``; a cell that is None is deleted."""


class HBaseTable:
    """A table; each call has a connection of its own, since Thrift closes those that are idle.

    Each method raises SinkAway if HBase does not respond or has an error, and ConfigurationError if the table is missing or
    disabled.
    """

    def __init__(self, host: str, port: int, name: str) -> None:
        self._host, self._port, self._name = host, port, name
        self._where = f"{name} of HBase at {host}:{port}"

    def put(self, rows: Mapping[str, Cells]) -> None:
        """Write rows by their keys."""
        with self._table() as table, table.batch(batch_size=BATCH) as batch:
            for key, cells in rows.items():
                present = {name.encode(): value for name, value in cells.items() if value is not None}
                if gone := [name.encode() for name, value in cells.items() if value is None]:
                    batch.delete(key.encode(), gone)
                if present:
                    batch.put(key.encode(), present)

    def scan(self, prefix: str = "", limit: int | None = None) -> Iterator[tuple[str, dict[str, bytes]]]:
        """Yield keys and cells of rows whose keys begin so, in the order of keys."""
        with self._table() as table:
            for key, cells in table.scan(row_prefix=prefix.encode() or None, limit=limit):
                yield key.decode(), {name.decode(): value for name, value in cells.items()}

    @contextmanager
    def _table(self) -> Iterator[happybase.Table]:
        try:
            with self._connection() as connection:
                yield connection.table(self._name)
        except (TException, OSError) as error:
            reason = _said(error)
            if (missing := MISSING.search(reason)) or not self._is_there():
                why = missing[0] if missing else "the table is missing or disabled"
                raise ConfigurationError(f"{self._where}: {why}: run site.yml, which creates tables") from error
            raise SinkAway(f"{self._where}: {reason.strip().splitlines()[0][:300]}") from error

    @contextmanager
    def _connection(self) -> Iterator[happybase.Connection]:
        connection = happybase.Connection(self._host, self._port, timeout=TIMEOUT * 1000, autoconnect=False)
        connection.open()
        try:
            yield connection
        finally:
            connection.close()

    def _is_there(self) -> bool:
        """Return whether the table is there and enabled; True also if HBase does not respond. Errors of writes do not say."""
        with suppress(TException, OSError), self._connection() as connection:
            return self._name.encode() in connection.tables() and bool(connection.is_table_enabled(self._name))
        return True


def _said(error: Exception) -> str:
    said = getattr(error, "message", None) or str(error) or type(error).__name__
    return said.decode(errors="replace") if isinstance(said, bytes) else str(said)
