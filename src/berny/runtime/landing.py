"""Raw answers in HDFS, unchanged, as files of JSON lines that appear whole."""

from __future__ import annotations

import datetime as dt
import json
import re
import time
from collections.abc import Mapping
from itertools import takewhile

from hdfs import InsecureClient
from hdfs.util import HdfsError
from requests import RequestException

from berny.runtime.spool import Answer, Spool
from berny.runtime.stage import EnvironmentSettings

SINK = "hdfs"
FILE = re.compile(r"raw-(?P<first>\d{20})-(?P<last>\d{20})\.jsonl")


class LandingSettings(EnvironmentSettings):
    """What a stage that lands raw answers finds in its environment."""

    hdfs_web_url: str
    hdfs_user: str
    berny_raw_path: str
    berny_raw_keep: str
    """How long the folder of a day is kept, such as 90d."""
    berny_roll_seconds: float = 300
    berny_roll_bytes: int = 32 << 20


class LandingError(Exception):
    """HDFS refused or does not answer; the file is written again later."""


def one_line(body: bytes) -> bytes | None:
    """Return a JSON answer as one line, or None where it is not JSON.

    A line break in valid JSON can only stand between tokens, so a space in its place changes nothing.
    """
    try:
        json.loads(body)
    except (ValueError, RecursionError):
        return None
    return body.replace(b"\r", b" ").replace(b"\n", b" ").strip()


def expired(written: Mapping[str, float], now: float, keep_seconds: float) -> list[str]:
    """Return the days to drop, given when each was last written to by HDFS's record, in Unix seconds.

    Their age is counted from when the newest day but one was written to, or from ``now`` where that is earlier. So a
    clock that is far ahead drops nothing, and neither does the one day that it had written, unless it was wrong on two.
    """
    if len(written) < 2:
        return []
    today = min(now, sorted(written.values())[-2])
    return sorted(day for day, moment in written.items() if moment < today - keep_seconds)


class Landing:
    """Lands what a spool holds below ``root``/dt=YYYY-MM-DD/ (the day it was fetched, UTC).

    A file is named by its first and last spool offset, written beside under a name that readers of a folder pass over
    (a leading underscore), and renamed. What a file holds is decided, and recorded in the spool, before it is written.
    """

    def __init__(self, url: str, user: str, root: str, roll_seconds: float, roll_bytes: int) -> None:
        self._client = InsecureClient(url, user=user, timeout=(5, 30))
        self._root = root
        self._roll_seconds = roll_seconds
        self._roll_bytes = roll_bytes

    @classmethod
    def of(cls, settings: LandingSettings) -> Landing:
        """Make one by a stage's settings."""
        return cls(
            settings.hdfs_web_url,
            settings.hdfs_user,
            settings.berny_raw_path,
            settings.berny_roll_seconds,
            settings.berny_roll_bytes,
        )

    def land(self, spool: Spool, all_of_it: bool = False) -> int:
        """Land one file if one is due (or, with ``all_of_it``, if there is anything); return how many answers it holds.

        Raises:
            LandingError: HDFS refused.
        """
        cursor = spool.cursor(SINK)
        planned = spool.planned_file(cursor)
        if not planned:
            planned = self._plan(spool, cursor, all_of_it)
        if not planned:
            return 0
        first, last, path = planned
        answers = [a for a in spool.read(cursor, last - cursor) if first <= a.offset <= last]
        lines = [line for line in (one_line(a.body) for a in answers) if line is not None]
        if lines:
            self._write(path, b"\n".join(lines) + b"\n")
        spool.advance(SINK, last)
        return len(answers)

    def _plan(self, spool: Spool, cursor: int, all_of_it: bool) -> tuple[int, int, str] | None:
        waiting = spool.read(cursor, 100_000, self._roll_bytes)
        if not waiting:
            return None
        day = _day(waiting[0])
        batch = list(takewhile(lambda answer: _day(answer) == day, waiting))
        size = sum(len(answer.body) for answer in batch)
        due = (
            # Fetched in the future is by a clock that was ahead: it is not waited for.
            not 0 <= time.time() - batch[0].fetched_at < self._roll_seconds
            or size >= self._roll_bytes
            or len(batch) < len(waiting)
        )
        if not due and not all_of_it:
            return None
        first, last = batch[0].offset, batch[-1].offset
        path = f"{self._root}/dt={day}/raw-{first:020d}-{last:020d}.jsonl"
        spool.plan_file(first, last, path)
        return first, last, path

    def _write(self, path: str, data: bytes) -> None:
        folder, _, name = path.rpartition("/")
        beside = f"{folder}/_{name}"
        try:
            there = self._client.status(path, strict=False)
            if there is None:
                self._client.write(beside, data=data, overwrite=True)
                self._client.rename(beside, path)
            elif there["length"] != len(data):
                raise LandingError(f"{path} is there with {there['length']} bytes, the spool has {len(data)}")
        except (HdfsError, RequestException) as error:
            raise LandingError(f"{path}: {str(error).splitlines()[0][:300]}") from error

    def drop_expired(self, keep_seconds: float) -> list[str]:
        """Remove the folders of days that are over ``keep_seconds`` old (see ``expired``); return their names.

        Raises:
            LandingError: HDFS refused.
        """
        try:
            found = self._client.list(self._root, status=True) if self._client.status(self._root, strict=False) else []
            days = {name: status["modificationTime"] / 1000 for name, status in found if name.startswith("dt=")}
            old = expired(days, time.time(), keep_seconds)
            for name in old:
                self._client.delete(f"{self._root}/{name}", recursive=True)
            return old
        except (HdfsError, RequestException) as error:
            raise LandingError(f"{self._root}: {str(error).splitlines()[0][:300]}") from error


def _day(answer: Answer) -> str:
    return dt.datetime.fromtimestamp(answer.fetched_at, dt.UTC).date().isoformat()
