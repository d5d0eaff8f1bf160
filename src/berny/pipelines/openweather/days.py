"""Which days have changed since they were last looked at, by when HDFS has modified their folders."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from typing import Any

from berny.pipelines.openweather.export import FILE

AGGREGATES = "aggregates.jsonl"
SETTLED_SECONDS = 10
"""A folder that was modified so recently is looked into again: times have milliseconds, and clocks differ."""

State = dict[str, dict[str, Any]]
"""By day, when its folder was ``modified`` (Unix seconds) as it was last looked at, and what was found."""


def digest(sizes: Mapping[str, int]) -> str:
    """Return what identifies the files of a day (16 hex digits), empty without any; they are never changed."""
    files = sorted((name, size) for name, size in sizes.items() if FILE.fullmatch(name))
    return hashlib.sha256(json.dumps(files).encode()).hexdigest()[:16] if files else ""


def changed(found: Mapping[str, float], state: State) -> Iterator[str]:
    """Yield the days whose folders, by when they were modified, are not as they were."""
    for day, modified in sorted(found.items()):
        if state.get(day, {}).get("modified") != modified:
            yield day


def seen(modified: float, **words: Any) -> dict[str, Any]:
    """Return what is remembered of a day."""
    return {"modified": modified if time.time() - modified > SETTLED_SECONDS else 0, **words}
