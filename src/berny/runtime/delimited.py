"""Rows of CSV files (RFC 4180) of any size, one at a time, each with where the next one begins.

A row that can't be read costs no other: it ends with its line, and reading continues after that. So a quote that is never
closed costs the line that it is in.
"""

from __future__ import annotations

import codecs
import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

LINE_BYTES = 1 << 20
"""The longest line; a field has 128 KiB at most, which is the default of Python's module."""
PART_BYTES = 1 << 20


@dataclass(frozen=True)
class Row:
    """A row, or what stands in its place."""

    number: int
    """From 1 on, without the header."""
    following: int
    """The offset of the next one, in bytes."""
    fields: list[str]
    raw: bytes = b""
    """Its line, if it can't be read."""
    reason: str = ""
    """Why it can't be read; empty if it can."""


class _TooLong(Exception):
    pass


def encoding(path: Path) -> str:
    """Return ``utf-8`` if all of a file is that, else ``latin-1``; never a mixture."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    with path.open("rb") as file:
        try:
            while part := file.read(PART_BYTES):
                decoder.decode(part)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return "latin-1"
    return "utf-8"


def header(path: Path, coding: str) -> tuple[list[str], int]:
    """Return the names of the columns, and the offset of the first row. An empty file, or a broken header, has no names.

    A byte order mark is left out.
    """
    with path.open("rb") as file:
        mark = codecs.BOM_UTF8
        begin = len(mark) if file.read(len(mark)) == mark else 0
        first = next(_rows(file, coding, begin, 0), None)
    return ([name.strip() for name in first.fields], first.following) if first else ([], begin)


def rows(path: Path, coding: str, offset: int, number: int) -> Iterator[Row]:
    """Yield the rows from an offset on.

    Args:
        path: the file.
        coding: that of ``encoding``.
        offset: where to begin, in bytes: that of ``header``, or what follows a row.
        number: that of the row before, 0 for the first one.
    """
    with path.open("rb") as file:
        yield from _rows(file, coding, offset, number)


class _Lines:
    """The lines of a file as text, and the offset up to which they were read."""

    def __init__(self, file: BinaryIO, coding: str, offset: int) -> None:
        file.seek(offset)
        self._file, self._coding, self.offset = file, coding, offset

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._file.readline(LINE_BYTES + 1)
        if not line:
            raise StopIteration
        if len(line) > LINE_BYTES:
            raise _TooLong(f"a line of more than {LINE_BYTES} bytes")
        self.offset += len(line)
        return line.decode(self._coding)


def _rows(file: BinaryIO, coding: str, offset: int, number: int) -> Iterator[Row]:
    while True:
        lines = _Lines(file, coding, offset)
        try:
            # The module asks for no more lines than a row has.
            for fields in csv.reader(lines, strict=True):
                offset = lines.offset
                if fields:
                    number += 1
                    yield Row(number, offset, fields)
            return
        except (csv.Error, _TooLong) as error:
            raw, offset = _line(file, offset)
            number += 1
            yield Row(number, offset, [], raw, str(error))


def _line(file: BinaryIO, offset: int) -> tuple[bytes, int]:
    """Return the line at an offset, at most its first ``LINE_BYTES``, and the offset of the next one."""
    file.seek(offset)
    raw = part = file.readline(LINE_BYTES)
    while part and not part.endswith(b"\n"):
        part = file.readline(LINE_BYTES)
    return raw, file.tell()
