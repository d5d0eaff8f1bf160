"""The deposit: versions of a file of the source, on disk and synced before anything else is done with them.

Beside ``spool``, for responses that are too large for a row of a database. A version is a file that was renamed when it was
complete, and a row of SQLite (``synchronous=FULL``) that says how far it was published. What was published whole is deleted;
its version stays on record, and is not accepted again.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from berny.runtime.spool import BUSY_SECONDS, SpoolFull, SpoolUnavailable

SCHEMA = """
CREATE TABLE IF NOT EXISTS versions (
    number INTEGER PRIMARY KEY AUTOINCREMENT, version TEXT NOT NULL UNIQUE, kept_at REAL NOT NULL, bytes INTEGER NOT NULL,
    row INTEGER NOT NULL DEFAULT 0, "offset" INTEGER NOT NULL DEFAULT 0, done_at REAL
);
"""
PENDING = 'SELECT number, version, kept_at, bytes, row, "offset" FROM versions WHERE done_at IS NULL ORDER BY number'
SUFFIX = ".data"
INCOMING = "incoming"


@dataclass(frozen=True)
class Version:
    """A complete version, and its position: everything before it was published."""

    number: int
    name: str
    """Identifies it at the source."""
    kept_at: float
    """Unix time in seconds."""
    bytes: int
    row: int
    """How many rows were published."""
    offset: int
    """Where the next one begins, in bytes; 0 before the first one."""
    path: Path


def _path(folder: Path, version: str) -> Path:
    return folder / f"{hashlib.sha256(version.encode()).hexdigest()[:32]}{SUFFIX}"


def _version(folder: Path, row: Sequence[Any]) -> Version:
    number, name, kept_at, size, done, offset = row[:6]
    return Version(number, name, kept_at, size, done, offset, _path(folder, name))


def look(folder: Path, since: float) -> Iterator[tuple[Version, bool]]:
    """Yield the versions that were kept since a Unix time, and whether each was published whole, read-only.

    Raises:
        sqlite3.Error: there is none, or it can't be read.
    """
    query = (
        'SELECT number, version, kept_at, bytes, row, "offset", done_at IS NOT NULL FROM versions WHERE kept_at >= ?'
    )
    uri = f"file:{folder / 'deposit.sqlite'}?mode=ro"
    with closing(sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS)) as database:
        for row in database.execute(query, (since,)):
            yield _version(folder, row), bool(row[6])


class Deposit:
    """One connection; each thread opens its own.

    Args:
        folder: the folder of the versions and of ``deposit.sqlite``.
        max_bytes: the limit for the sum of all versions that are not published whole.

    Raises:
        SpoolUnavailable: the database can't be opened or is damaged.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder, self.max_bytes = folder, max_bytes
        with self._converted():
            self._db = sqlite3.connect(folder / "deposit.sqlite", timeout=BUSY_SECONDS, isolation_level=None)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.executescript(SCHEMA)

    @contextmanager
    def _converted(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise SpoolUnavailable(f"{self.folder}: {error}; is its disk full? Nothing was acknowledged") from error

    def close(self) -> None:
        """Close the connection."""
        self._db.close()

    def keep(self, version: str, parts: Iterable[bytes], size: int) -> None:
        """Store a version durably; what ``parts`` raises is raised, and nothing is kept.

        Args:
            version: identifies it.
            parts: its content.
            size: of it, in bytes.

        Raises:
            SpoolFull: the deposit would exceed ``max_bytes``. A version that alone exceeds it is refused as well.
            SpoolUnavailable: the disk or the database failed.
        """
        if self.bytes() + size > self.max_bytes:
            raise SpoolFull(f"{self.folder} would hold more than {self.max_bytes} bytes: its topic has to catch up")
        beside, written = self.folder / INCOMING, 0
        with self._converted(), beside.open("wb") as file:
            for part in parts:
                file.write(part)
                written += len(part)
            file.flush()
            os.fsync(file.fileno())
        with self._converted():
            beside.rename(_path(self.folder, version))
            folder = os.open(self.folder, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
            row = (version, time.time(), written)
            self._db.execute("INSERT INTO versions (version, kept_at, bytes) VALUES (?, ?, ?)", row)

    def knows(self, version: str) -> bool:
        """Return whether a version was kept before, published or not."""
        return self._db.execute("SELECT 1 FROM versions WHERE version = ?", (version,)).fetchone() is not None

    def first(self) -> Version | None:
        """Return the first version that is not published whole."""
        found = self._db.execute(f"{PENDING} LIMIT 1").fetchone()
        return _version(self.folder, found) if found else None

    def advance(self, version: Version, row: int, offset: int) -> None:
        """Record that everything before an offset was published, so many rows.

        Raises:
            SpoolUnavailable: the disk or the database failed.
        """
        with self._converted():
            change = 'UPDATE versions SET row = ?, "offset" = ? WHERE number = ?'
            self._db.execute(change, (row, offset, version.number))

    def finish(self, version: Version) -> None:
        """Record that a version was published whole, and delete its content.

        Raises:
            SpoolUnavailable: the disk or the database failed.
        """
        with self._converted():
            self._db.execute("UPDATE versions SET done_at = ? WHERE number = ?", (time.time(), version.number))
            version.path.unlink(missing_ok=True)

    def tidy(self) -> None:
        """Delete files of versions that are published or that were never completed; to be called before all else."""
        with self._converted():
            wanted = {_path(self.folder, row[1]) for row in self._db.execute(PENDING)}
            for path in {*self.folder.glob(f"*{SUFFIX}"), self.folder / INCOMING} - wanted:
                path.unlink(missing_ok=True)

    def bytes(self) -> int:
        """Return the size of the versions that are not published whole."""
        return int(self._db.execute("SELECT coalesce(sum(bytes), 0) FROM versions WHERE done_at IS NULL").fetchone()[0])

    def depth(self) -> int:
        """Return how many versions are not published whole."""
        return int(self._db.execute("SELECT count(*) FROM versions WHERE done_at IS NULL").fetchone()[0])
