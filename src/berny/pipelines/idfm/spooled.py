"""For a bench: print what the spool has kept since a Unix time, ``{"spooled": IDENTITY}`` a line, delivered or not."""

from __future__ import annotations

import argparse
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from berny.delivery.spool import Answer
from berny.pipelines.idfm.producer import records

SPOOL = Path("/data/berny-idfm/spool.sqlite")


def spooled(path: Path, since: float) -> Iterator[str]:
    """Yield the identities of answers that wait, and of those that were published and are remembered.

    Raises:
        sqlite3.Error: the file can't be read.
    """
    # Looked at, never made: a spool that is not there has kept nothing.
    database = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)
    yield from (identity for (identity,) in database.execute("SELECT identity FROM published WHERE at >= ?", (since,)))
    waiting = 'SELECT "offset", fetched_at, body FROM answers WHERE fetched_at >= ?'
    for row in database.execute(waiting, (since,)):
        yield from (identity for identity, _ in records(Answer(*row), "") if identity)
    database.close()


def main() -> None:
    """Print them."""
    parser = argparse.ArgumentParser(prog="berny-idfm-spooled", description=__doc__)
    parser.add_argument("--since", type=float, default=0, help="a Unix time")
    for identity in spooled(SPOOL, parser.parse_args().since):
        print(json.dumps({"spooled": identity}))


if __name__ == "__main__":
    main()
