"""Files of JSON lines, which survive a crash while one is written."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any


def read_lines(file: Path) -> list[Any]:
    """Return the entries of a file of JSON lines, none if there is no file. A line cut off by a crash is ignored."""
    found = []
    for line in file.read_text().splitlines() if file.exists() else []:
        with suppress(ValueError):
            found.append(json.loads(line))
    return found


def add_line(file: Path, entry: dict[str, Any]) -> None:
    """Append an entry to a file of JSON lines, synced. It starts a new line even after one cut off by a crash."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a+b") as lines:
        if lines.tell():
            lines.seek(-1, os.SEEK_END)
            if lines.read() != b"\n":
                lines.write(b"\n")
        lines.write(json.dumps(entry).encode() + b"\n")
        lines.flush()
        os.fsync(lines.fileno())
