"""Raw responses in HDFS, unchanged, as files of JSON lines that become visible only when complete."""

from __future__ import annotations

import datetime as dt
import json
import re
import time
from contextlib import closing
from itertools import chain, takewhile

from berny.runtime.files import DAY, Files
from berny.runtime.spool import Size, Spool
from berny.runtime.stage import EnvironmentSettings

SINK = "hdfs"
FILE = re.compile(r"raw-(?P<first>\d{20})-(?P<last>\d{20})\.jsonl")


class LandingSettings(EnvironmentSettings):
    """The environment of a stage that lands raw responses."""

    hdfs_web_url: str
    hdfs_user: str
    berny_raw_path: str
    berny_raw_keep: str
    """Retention of daily folders, such as 90d."""
    berny_roll_seconds: float = 300
    berny_roll_bytes: int = 32 << 20


def one_line(body: bytes) -> bytes | None:
    """Return a JSON response as one line, or None if it is not JSON.

    In valid JSON, line breaks occur only between tokens, so replacing them by spaces changes nothing.
    """
    try:
        json.loads(body)
    except (ValueError, RecursionError):
        return None
    return body.replace(b"\r", b" ").replace(b"\n", b" ").strip()


class Landing:
    """Lands the responses of a spool below ``root``/dt=YYYY-MM-DD/ (the day they were fetched, UTC).

    A file is named by its first and last spool offset. It is written under a name with a leading underscore, which readers
    of a folder ignore, and then renamed. Its range is recorded in the spool before it is written.
    """

    def __init__(self, url: str, user: str, root: str, roll_seconds: float, roll_bytes: int) -> None:
        self._files = Files(url, user, root)
        self._roll_seconds = roll_seconds
        self._roll_bytes = roll_bytes

    @classmethod
    def of(cls, settings: LandingSettings) -> Landing:
        """Return one for a stage's settings."""
        return cls(
            settings.hdfs_web_url,
            settings.hdfs_user,
            settings.berny_raw_path,
            settings.berny_roll_seconds,
            settings.berny_roll_bytes,
        )

    def land(self, spool: Spool, all_of_it: bool = False) -> int:
        """Land one file if one is due (with ``all_of_it``, if anything waits); return how many responses it contains.

        Raises:
            FilesError: HDFS refused.
        """
        cursor = spool.cursor(SINK)
        planned = spool.planned_file(cursor)
        if not planned:
            planned = self._plan(spool, cursor, all_of_it)
        if not planned:
            return 0
        first, last, path = planned
        with closing(spool.between(first, last)) as answers:
            lines = (line + b"\n" for answer in answers if (line := one_line(answer.body)) is not None)
            if (line := next(lines, None)) is not None:
                self._files.put(path.removeprefix(f"{self._files.root}/"), chain([line], lines))
        spool.advance(SINK, last)
        # Offsets have no gaps.
        return last - first + 1

    def _plan(self, spool: Spool, cursor: int, all_of_it: bool) -> tuple[int, int, str] | None:
        waiting = spool.sizes(cursor, self._roll_bytes)
        if not waiting:
            return None
        day = _day(waiting[0])
        batch = list(takewhile(lambda answer: _day(answer) == day, waiting))
        size = sum(answer.bytes for answer in batch)
        due = (
            # A negative age means that the clock was ahead: do not wait for it.
            not 0 <= time.time() - batch[0].fetched_at < self._roll_seconds
            or size >= self._roll_bytes
            or len(batch) < len(waiting)
        )
        if not due and not all_of_it:
            return None
        first, last = batch[0].offset, batch[-1].offset
        path = f"{self._files.root}/{DAY}{day}/raw-{first:020d}-{last:020d}.jsonl"
        spool.plan_file(first, last, path)
        return first, last, path

    def drop_expired(self, keep_seconds: float) -> list[str]:
        """Remove the folders of days that are older than ``keep_seconds``; return their names.

        Raises:
            FilesError: HDFS refused.
        """
        return self._files.drop_expired(keep_seconds)


def _day(answer: Size) -> str:
    return dt.datetime.fromtimestamp(answer.fetched_at, dt.UTC).date().isoformat()
