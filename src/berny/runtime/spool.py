"""The spool: responses of a source, stored and synced to disk before anything else is done with them.

SQLite with a write-ahead log and ``synchronous=FULL``: a committed response survives a power cut. Offsets increase and are
never reused, not even by a new spool after its disk was lost, since files in HDFS are named by them. Each sink has a
cursor: everything up to it has been delivered.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

SCHEMA = """
CREATE TABLE IF NOT EXISTS answers (
    "offset" INTEGER PRIMARY KEY AUTOINCREMENT, fetched_at REAL NOT NULL, body BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS cursors (sink TEXT PRIMARY KEY, "offset" INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS published (identity TEXT PRIMARY KEY, at REAL NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS published_at ON published (at);
CREATE TABLE IF NOT EXISTS files (first INTEGER PRIMARY KEY, last INTEGER NOT NULL, path TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS calls (day TEXT PRIMARY KEY, count INTEGER NOT NULL, last REAL NOT NULL);
-- The sum of all bodies, since each append compares it with the limit, and an hour of them may wait.
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS size (bytes INTEGER NOT NULL);
INSERT INTO size SELECT (SELECT coalesce(sum(length(body)), 0) FROM answers) WHERE NOT EXISTS (SELECT 1 FROM size);
CREATE TRIGGER IF NOT EXISTS appended AFTER INSERT ON answers BEGIN
    UPDATE size SET bytes = bytes + length(NEW.body);
END;
CREATE TRIGGER IF NOT EXISTS pruned AFTER DELETE ON answers BEGIN
    UPDATE size SET bytes = bytes - length(OLD.body);
END;
COMMIT;
"""
# A new spool starts at the Unix time in milliseconds: the previous one can't have reached that.
BEGINNING = """
INSERT INTO sqlite_sequence (name, seq) SELECT 'answers', ? WHERE NOT EXISTS
    (SELECT 1 FROM sqlite_sequence WHERE name = 'answers')
"""
BUSY_SECONDS = 30


class SpoolFull(Exception):
    """The spool has reached its limit: its sinks have to catch up first."""


class SpoolUnavailable(Exception):
    """The disk or the database failed: nothing was acknowledged."""


@dataclass(frozen=True)
class Answer:
    """A complete response of a source."""

    offset: int
    fetched_at: float
    """Unix time in seconds."""
    body: bytes


class Size(NamedTuple):
    """A response without its body."""

    offset: int
    fetched_at: float
    """Unix time in seconds."""
    bytes: int


def look(path: Path, since: float) -> tuple[list[str], list[Answer]]:
    """Return the identities published and the responses fetched since a Unix time, from the file of a spool, read-only.

    Raises:
        sqlite3.Error: the file does not exist or can't be read.
    """
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=BUSY_SECONDS)) as database:
        published = database.execute("SELECT identity FROM published WHERE at >= ?", (since,)).fetchall()
        answers = database.execute('SELECT "offset", fetched_at, body FROM answers WHERE fetched_at >= ?', (since,))
        return [identity for (identity,) in published], [Answer(*row) for row in answers]


class Spool:
    """One connection to a spool; each thread opens its own.

    Args:
        folder: the folder of ``spool.sqlite``.
        max_bytes: the limit for the sum of all responses.
        sinks: a response is removed when all of them have it.

    Raises:
        SpoolUnavailable: the file can't be opened or is damaged.
    """

    def __init__(self, folder: Path, max_bytes: int, sinks: Iterable[str]) -> None:
        self.path = folder / "spool.sqlite"
        self.max_bytes = max_bytes
        self.sinks = list(sinks)
        try:
            self._db = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None)
            self._db.execute("PRAGMA auto_vacuum = INCREMENTAL")
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.execute("PRAGMA journal_size_limit = 16777216")
            self._db.executescript(SCHEMA)
            self._db.execute(BEGINNING, (int(time.time() * 1000),))
            for sink in self.sinks:
                self._db.execute("INSERT OR IGNORE INTO cursors VALUES (?, 0)", (sink,))
        except sqlite3.Error as error:
            raise SpoolUnavailable(f"{self.path}: {error}") from error

    def close(self) -> None:
        """Close the connection."""
        self._db.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise SpoolUnavailable(f"{self.path}: {error}; is its disk full? Nothing was acknowledged") from error

    def append(self, body: bytes, fetched_at: float) -> int:
        """Store a response durably and return its offset.

        Raises:
            SpoolFull: the spool would exceed ``max_bytes``.
            SpoolUnavailable: the disk or the database failed.
        """
        if self.bytes() + len(body) > self.max_bytes:
            raise SpoolFull(f"{self.path} holds {self.max_bytes} bytes: its sinks have to catch up")
        with self._transaction() as db:
            row = db.execute("INSERT INTO answers (fetched_at, body) VALUES (?, ?)", (fetched_at, body))
        assert row.lastrowid is not None
        return row.lastrowid

    def read(self, after: int, limit: int = 100, max_bytes: int = 1 << 62) -> list[Answer]:
        """Return responses after an offset, in order: at most ``limit``, and none after ``max_bytes`` are exceeded."""
        rows = self._db.execute(
            'SELECT "offset", fetched_at, body FROM answers WHERE "offset" > ? ORDER BY "offset" LIMIT ?',
            (after, limit),
        )
        found, size = [], 0
        for row in rows:
            found.append(Answer(*row))
            size += len(row[2])
            if size >= max_bytes:
                break
        return found

    def between(self, first: int, last: int) -> Generator[Answer, None, None]:
        """Yield the responses of a range of offsets, one after the other; before the last one, close it before writing."""
        query = 'SELECT "offset", fetched_at, body FROM answers WHERE "offset" BETWEEN ? AND ? ORDER BY "offset"'
        for row in self._db.execute(query, (first, last)):
            yield Answer(*row)

    def sizes(self, after: int, max_bytes: int) -> list[Size]:
        """Return what the responses after an offset are, without their bodies, none after ``max_bytes`` are exceeded."""
        query = 'SELECT "offset", fetched_at, length(body) FROM answers WHERE "offset" > ? ORDER BY "offset"'
        found, total = [], 0
        for row in self._db.execute(query, (after,)):
            found.append(Size(*row))
            total += row[2]
            if total >= max_bytes:
                break
        return found

    def cursor(self, sink: str) -> int:
        """Return the offset up to which a sink has everything, initially 0."""
        row = self._db.execute('SELECT "offset" FROM cursors WHERE sink = ?', (sink,)).fetchone()
        return int(row[0])

    def advance(self, sink: str, offset: int, published: Iterable[str] = ()) -> None:
        """Record, in one transaction, that a sink has everything up to ``offset``, and the identities published."""
        now = time.time()
        with self._transaction() as db:
            db.execute('UPDATE cursors SET "offset" = ? WHERE sink = ?', (offset, sink))
            db.executemany("INSERT OR IGNORE INTO published VALUES (?, ?)", [(i, now) for i in published])
            db.execute("DELETE FROM files WHERE ? = 'hdfs' AND last <= ?", (sink, offset))

    def was_published(self, identities: Iterable[str]) -> set[str]:
        """Return which of the identities have been published before."""
        return {
            identity
            for identity in identities
            if self._db.execute("SELECT 1 FROM published WHERE identity = ?", (identity,)).fetchone()
        }

    def plan_file(self, first: int, last: int, path: str) -> None:
        """Record the range of a file before it is written, so that a second attempt writes the same."""
        with self._transaction() as db:
            db.execute("INSERT OR REPLACE INTO files VALUES (?, ?, ?)", (first, last, path))

    def planned_file(self, after: int) -> tuple[int, int, str] | None:
        """Return first offset, last offset and path of the file planned after an offset, or None."""
        row = self._db.execute(
            "SELECT first, last, path FROM files WHERE first > ? ORDER BY first", (after,)
        ).fetchone()
        return (int(row[0]), int(row[1]), str(row[2])) if row else None

    def now(self) -> float:
        """Return the Unix time, or the time of the last publication if that is earlier.

        With this clock, a machine's clock that is far ahead for a moment does not expire identities.
        """
        row = self._db.execute("SELECT max(at) FROM published").fetchone()
        return min(time.time(), time.time() if row[0] is None else float(row[0]))

    def prune(self, identities_older_than: float) -> None:
        """Remove responses that all sinks have, and identities published before a Unix time; release the space."""
        with self._transaction() as db:
            done = min(self.cursor(sink) for sink in self.sinks)
            db.execute('DELETE FROM answers WHERE "offset" <= ?', (done,))
            db.execute("DELETE FROM published WHERE at < ?", (identities_older_than,))
        # Each step of this pragma releases one page, and execute() runs a single step.
        self._db.executescript("PRAGMA incremental_vacuum(2000)")

    def depth(self, sink: str) -> int:
        """Return how many responses a sink does not have yet."""
        # Each of them alone is found in the index.
        ends = 'SELECT (SELECT min("offset") FROM answers), (SELECT max("offset") FROM answers)'
        first, last = self._db.execute(ends).fetchone()
        # Offsets have no gaps.
        return 0 if last is None else last - max(first - 1, min(last, self.cursor(sink)))

    def oldest(self, sink: str) -> float | None:
        """Return when the oldest response that a sink does not have was fetched, or None."""
        row = self._db.execute(
            'SELECT min(fetched_at) FROM answers WHERE "offset" > ?', (self.cursor(sink),)
        ).fetchone()
        return None if row[0] is None else float(row[0])

    def bytes(self) -> int:
        """Return the size of all stored responses."""
        return int(self._db.execute("SELECT bytes FROM size").fetchone()[0])

    # -- calls of the source, kept across restarts -----------------------------------------------------------------

    def count_call(self, day: str, now: float) -> int:
        """Count a call of the source before it is made; return how many were made that day.

        Recorded calls that are later than this one were counted while the clock was wrong: their time is corrected.
        """
        with self._transaction() as db:
            db.execute(
                "INSERT INTO calls VALUES (?, 1, ?) ON CONFLICT (day) DO UPDATE SET count = count + 1, last = excluded.last",
                (day, now),
            )
            db.execute("UPDATE calls SET last = ? WHERE last > ?", (now, now))
            db.execute(
                "DELETE FROM calls WHERE day NOT IN (SELECT day FROM calls ORDER BY day = ? DESC, last DESC LIMIT 7)",
                (day,),
            )
        return self.calls(day)

    def calls(self, day: str) -> int:
        """Return how many calls were made on a day."""
        row = self._db.execute("SELECT count FROM calls WHERE day = ?", (day,)).fetchone()
        return int(row[0]) if row else 0

    def last_call(self) -> float:
        """Return when the source was called last, 0 if never."""
        return float(self._db.execute("SELECT coalesce(max(last), 0) FROM calls").fetchone()[0])
