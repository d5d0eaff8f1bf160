"""The steps of the export, in the table ``ref_date``: which transactions each covers, and which files it has written.

A row of ``weather`` has the number of the transaction that inserted it. A step ends before the oldest transaction that is
still open: whatever commits later has a higher number, and belongs to a later step. So the rows of a step never change.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from berny.runtime.sinks.postgresql import Database

ROWS = 20_000
"""About how many rows a step has at most; a record takes some 17 kB. A single transaction is never divided."""
CHECKED = 1000
"""Steps whose files are looked for: a week of them, one every ten minutes. Older ones are forgotten."""

PENDING = "SELECT begins::text, following::text FROM ref_date WHERE files IS NULL ORDER BY begins LIMIT 1"
PLAN = """
WITH last AS (
    SELECT coalesce((SELECT following FROM ref_date ORDER BY begins DESC LIMIT 1), '0'::xid8) AS begins,
           pg_snapshot_xmin(pg_current_snapshot()) AS ends
), beyond AS (
    SELECT xid FROM weather, last WHERE xid >= begins AND xid < ends ORDER BY xid OFFSET %(rows)s LIMIT 1
)
INSERT INTO ref_date (ref_date, begins, following)
SELECT now() AT TIME ZONE 'Europe/Paris', begins,
       CASE WHEN xid IS NULL THEN ends WHEN xid > begins THEN xid ELSE (xid::text::bigint + 1)::text::xid8 END
FROM last LEFT JOIN beyond ON true
WHERE EXISTS (SELECT FROM weather WHERE weather.xid >= begins AND weather.xid < ends)
RETURNING begins::text, following::text
"""
END = "SELECT pg_snapshot_xmin(pg_current_snapshot())::text"
DONE = "UPDATE ref_date SET files = %s WHERE begins = %s::xid8"
FILES = "SELECT begins::text, files FROM ref_date WHERE files IS NOT NULL ORDER BY begins DESC LIMIT %s"
AGAIN = "UPDATE ref_date SET files = NULL WHERE begins = %s::xid8"
FORGET = """
DELETE FROM ref_date
WHERE files IS NOT NULL AND begins < (SELECT begins FROM ref_date ORDER BY begins DESC OFFSET %s LIMIT 1)
"""


@dataclass(frozen=True)
class Step:
    """The rows of transactions from ``begins`` on and before ``following``."""

    begins: int
    following: int


class Steps:
    """The steps in the table. Each method raises as ``Database.transaction`` does."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def end(self) -> int:
        """Return the oldest transaction that is still open, or the next one: where a run that begins now ends."""
        with self._database.transaction() as cursor:
            cursor.execute(END)
            (number,) = cursor.fetchone() or ("0",)
            return int(number)

    def next(self) -> Step | None:
        """Return the first step that was not completed, else a new one if there are rows for it."""
        with self._database.transaction() as cursor:
            for query in (PENDING, PLAN):
                cursor.execute(query, {"rows": ROWS})
                if found := cursor.fetchone():
                    return Step(int(found[0]), int(found[1]))
        return None

    def complete(self, step: Step, files: dict[str, int]) -> None:
        """Record that a step's files are in HDFS, by path with their sizes in bytes."""
        with self._database.transaction() as cursor:
            cursor.execute(DONE, (json.dumps(files), str(step.begins)))

    def completed(self) -> dict[int, dict[str, int]]:
        """Return the files of the last steps by the steps' beginnings."""
        with self._database.transaction() as cursor:
            cursor.execute(FILES, (CHECKED,))
            return {int(begins): files for begins, files in cursor.fetchall()}

    def repeat(self, begins: int) -> None:
        """Let a step be done again."""
        with self._database.transaction() as cursor:
            cursor.execute(AGAIN, (str(begins),))

    def forget(self) -> None:
        """Delete steps that are checked no longer."""
        with self._database.transaction() as cursor:
            cursor.execute(FORGET, (CHECKED,))
