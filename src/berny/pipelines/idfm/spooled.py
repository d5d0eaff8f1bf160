"""For a bench: print what the spool has kept since a Unix time, ``{"spooled": IDENTITY}`` a line, delivered or not."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

from berny.pipelines.idfm.producer import records
from berny.runtime.spool import look

SPOOL = Path("/data/berny-idfm/spool.sqlite")


def spooled(path: Path, since: float) -> Iterator[str]:
    """Yield the identities of answers that wait, and of those that were published and are remembered.

    Raises:
        sqlite3.Error: the file can't be read.
    """
    published, answers = look(path, since)
    yield from published
    for answer in answers:
        yield from (identity for identity, _ in records(answer, "") if identity)


def main() -> None:
    """Print them."""
    parser = argparse.ArgumentParser(prog="berny-idfm-spooled", description=__doc__)
    parser.add_argument("--since", type=float, default=0, help="a Unix time")
    for identity in spooled(SPOOL, parser.parse_args().since):
        print(json.dumps({"spooled": identity}))


if __name__ == "__main__":
    main()
