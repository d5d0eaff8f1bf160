"""Compacts the files of ``parts``: Parquet of complete batches, and JSON files of one day made one, which both never show a
row twice.

Parquet has no way to append, and a set of files can't be replaced in one step. So it is written once, of many batches at a
time, from the JSON of batches that are complete: a file is named by its first and last batch, and renamed into place. JSON
files of batches that Parquet has are appended to the first one of their day by the NameNode (``Files.concat``), in one step.
"""

from __future__ import annotations

import datetime as dt
import re
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from berny.runtime.files import Files, expired
from berny.runtime.parts import PART, STATES, complete

PARQUET = "parquet"
FILE = re.compile(r"part-(?P<first>\d{5,})-(?P<last>\d{5,})-(?P<id>[0-9a-f]{12})\.parquet")
MOST_BYTES = 128 << 20
"""A JSON file that has grown to this gets no more."""
AT_ONCE = 500
"""JSON files that become one Parquet file at most."""


class Part(NamedTuple):
    """A JSON file, by the checkpoint and the first batch that it has rows of."""

    id: str
    batch: int
    name: str


class Span(NamedTuple):
    """The batches of a Parquet file, inclusive."""

    id: str
    first: int
    last: int

    @property
    def name(self) -> str:
        """Its name, below the directory."""
        return f"{PARQUET}/part-{self.first:05d}-{self.last:05d}-{self.id}.parquet"


def parts(names: Mapping[str, object]) -> list[Part]:
    """Return the JSON files in order, given a directory's entries."""
    return sorted(Part(match["id"], int(match["batch"]), match[0]) for match in map(PART.fullmatch, names) if match)


def spans(names: Mapping[str, object]) -> list[Span]:
    """Return what Parquet files cover, in order, given the entries of their folder."""
    found = (match for match in map(FILE.fullmatch, names) if match)
    return sorted(Span(match["id"], int(match["first"]), int(match["last"])) for match in found)


Convert = Callable[[list[str], str], None]
"""Writes the rows of JSON files as one Parquet file into a folder; both are names below the directory."""


class Compaction:
    """Compacts one directory. Each method raises FilesError if HDFS refuses or does not respond.

    Args:
        files: the directory.
        states: the directory of the same query that has the states of its batches.
        convert: writes Parquet.
    """

    def __init__(self, files: Files, states: Files, convert: Convert) -> None:
        self._files, self._states, self._convert = files, states, convert

    def cover(self) -> int:
        """Write Parquet of complete batches that have none yet; return how many JSON files that were."""
        done = complete(self._states.sizes(STATES))
        covered: dict[str, int] = {}
        for span in spans(self._files.sizes(PARQUET)):
            covered[span.id] = max(span.last, covered.get(span.id, -1))
        there, count = parts(self._files.sizes("")), 0
        for identity in sorted({part.id for part in there}):
            last = done.get(identity, -1)
            fresh = [one for one in there if one.id == identity and covered.get(identity, -1) < one.batch <= last]
            for begin in range(0, len(fresh), AT_ONCE):
                some = fresh[begin : begin + AT_ONCE]
                self._write(Span(identity, some[0].batch, some[-1].batch), [one.name for one in some])
                count += len(some)
        return count

    def _write(self, span: Span, names: list[str]) -> None:
        beside = f"{PARQUET}/_{span.name.rpartition('/')[2]}"
        self._convert(names, beside)
        written = [name for name in self._files.sizes(beside) if name.startswith("part-")]
        assert len(written) == 1, "it is written as one partition"
        self._files.rename(f"{beside}/{written[0]}", span.name)
        self._files.remove(beside)

    def join(self) -> int:
        """Append JSON files that Parquet has to the first one of their day (UTC); return how many were appended."""
        covered = {span.id: span.last for span in spans(self._files.sizes(PARQUET))}
        sizes, modified = self._files.sizes(""), self._files.modified("")
        groups: list[list[str]] = []
        before: tuple[str, dt.date] | None = None
        size = 0
        for part in parts(sizes):
            if part.batch > covered.get(part.id, -1):
                continue
            key = part.id, dt.datetime.fromtimestamp(modified[part.name], dt.UTC).date()
            if key != before or size >= MOST_BYTES:
                groups.append([])
                size = 0
            groups[-1].append(part.name)
            before, size = key, size + sizes[part.name]
        for first, *others in groups:
            if others:
                self._files.concat(first, others)
        return sum(len(group) - 1 for group in groups)

    def drop_expired(self, keep_seconds: float) -> list[str]:
        """Remove JSON files that were last written longer ago, and Parquet of what has no JSON any more; return names."""
        there = {name: moment for name, moment in self._files.modified("").items() if PART.fullmatch(name)}
        old = expired(there, time.time(), keep_seconds)
        first: dict[str, int] = {}
        for part in parts(there):
            if part.name not in old:
                first.setdefault(part.id, part.batch)
        gone = [
            *old,
            *(span.name for span in spans(self._files.sizes(PARQUET)) if first.get(span.id, span.last + 1) > span.last),
        ]
        for name in gone:
            self._files.remove(name)
        return gone
