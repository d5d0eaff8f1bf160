"""Atomic writes to HDFS over WebHDFS: a file is written under a name that readers ignore, and then renamed."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from hdfs import InsecureClient
from hdfs.client import _Request
from hdfs.util import HdfsError
from requests import RequestException

from berny.runtime.stage import WorkFailed

DAY = "dt="
"""Prefix of daily folders: ``dt=YYYY-MM-DD``."""
PART_BYTES = 256 << 10


class _Client(InsecureClient):  # type: ignore[misc]
    """The library's client, with an operation that it lacks. Source: "WebHDFS REST API" in the Hadoop documentation."""

    _concat = _Request("POST")


class _Counted:
    """Parts of a file, and how many bytes of them were read; in a chunked request, an empty part would end it."""

    def __init__(self, data: bytes | Iterable[bytes]) -> None:
        self._parts = [data] if isinstance(data, bytes) else data
        self.size = 0

    def __iter__(self) -> Iterator[bytes]:
        for part in self._parts:
            self.size += len(part)
            if part:
                yield part


class FilesError(WorkFailed):
    """HDFS refused or does not respond; the file is written again later."""


class Files:
    """The files below a directory, whose readers ignore names with a leading underscore.

    Each method raises FilesError if HDFS refuses or does not respond.
    """

    def __init__(self, url: str, user: str, root: str) -> None:
        self._client = _Client(url, user=user, timeout=(5, 30))
        self.url, self.root = url, root

    @contextmanager
    def _about(self, path: str) -> Iterator[str]:
        """Yield the absolute path of a name below the root; errors are converted and name it."""
        full = f"{self.root}/{path}".rstrip("/")
        try:
            yield full
        except (HdfsError, RequestException) as error:
            raise FilesError(f"{full}: {str(error).splitlines()[0][:600]}") from error

    def put(self, path: str, data: bytes | Iterable[bytes]) -> None:
        """Write a file. An existing one is from an earlier attempt, and must have the same size.

        The data may be in parts, which are sent as they come.
        """
        parts = _Counted(data)
        with self._about(path) as full:
            if self._client.status(full, strict=False) is None:
                beside = self._write_beside(full, parts)
                self._client.rename(beside, full)
            else:
                deque(parts, maxlen=0)
            self._verify(full, parts.size)

    def replace(self, path: str, data: bytes | Iterable[bytes]) -> int:
        """Replace a file atomically: readers see the old or the new content. Return its size in bytes.

        The data may be in parts, which are sent as they come; what they raise is raised, and nothing is replaced.
        """
        parts = _Counted(data)
        with self._about(path) as full:
            beside = self._write_beside(full, parts)
            # The library's rename() has no options. Source of this one: NamenodeWebHdfsMethods of Hadoop.
            self._client._rename(beside, destination=full, renameoptions="OVERWRITE")
            self._verify(full, parts.size)
        return parts.size

    def _write_beside(self, full: str, data: Iterable[bytes]) -> str:
        folder, _, name = full.rpartition("/")
        beside = f"{folder}/_{name}"
        self._client.write(beside, data=iter(data), overwrite=True)
        return beside

    def _verify(self, full: str, length: int) -> None:
        there = self._client.status(full)["length"]
        if there != length:
            raise FilesError(f"{full} exists with {there} bytes, expected are {length}")

    def read(self, path: str) -> bytes:
        """Return the content of a file."""
        with self._about(path) as full, self._client.read(full, chunk_size=PART_BYTES) as parts:
            return b"".join(parts)

    def lines(self, path: str) -> Iterator[bytes]:
        """Yield the lines of a file as they are read, without their ends."""
        with self._about(path) as full, self._client.read(full, chunk_size=PART_BYTES) as parts:
            begun: list[bytes] = []
            for part in parts:
                first, *others = part.split(b"\n")
                begun.append(first)
                for other in others:
                    yield b"".join(begun)
                    begun = [other]
            if last := b"".join(begun):
                yield last

    def rename(self, path: str, destination: str) -> None:
        """Rename a file atomically; an existing destination is from an earlier attempt and stays, and the file is removed."""
        with self._about(destination) as full:
            if self._client.status(full, strict=False) is None:
                self._client.rename(f"{self.root}/{path}", full)
            else:
                self._client.delete(f"{self.root}/{path}")

    def concat(self, path: str, others: list[str]) -> None:
        """Append other files of the same folder to a file, and remove them, in one step of the NameNode.

        A reader that has listed them before finds a longer file, and then that the others are gone.
        """
        with self._about(path) as full:
            folder = full.rpartition("/")[0]
            names = (f"{folder}/{other.rpartition('/')[2]}" for other in others)
            self._client._concat(full, sources=",".join(names))

    def remove(self, path: str) -> None:
        """Remove a file, or a folder recursively."""
        with self._about(path) as full:
            self._client.delete(full, recursive=True)

    def sizes(self, path: str) -> dict[str, int]:
        """Return the size in bytes of each entry of a folder; empty if the folder does not exist."""
        return {name: int(status["length"]) for name, status in self._entries(path)}

    def modified(self, path: str = "") -> dict[str, float]:
        """Return when each entry of a folder was last modified (Unix seconds); empty if the folder does not exist.

        Adding and removing entries modifies a folder.
        """
        return {name: status["modificationTime"] / 1000 for name, status in self._entries(path)}

    def _entries(self, path: str) -> list[tuple[str, dict[str, Any]]]:
        with self._about(path) as full:
            if self._client.status(full, strict=False) is None:
                return []
            return list(self._client.list(full, status=True))

    def days(self) -> dict[str, float]:
        """Return when each day's folder was last modified, by name."""
        return {name: moment for name, moment in self.modified().items() if name.startswith(DAY)}

    def drop_expired(self, keep_seconds: float) -> list[str]:
        """Remove the folders of days that are older than ``keep_seconds`` (see ``expired``); return their names."""
        old = expired(self.days(), time.time(), keep_seconds)
        for name in old:
            self.remove(name)
        return old


def expired(written: Mapping[str, float], now: float, keep_seconds: float) -> list[str]:
    """Return the days to drop, given when each was last written to according to HDFS, in Unix seconds.

    Their age is relative to the second newest modification time, or to ``now`` if that is earlier. So a clock that is far
    ahead drops nothing, and neither does a single day that was written while it was.
    """
    if len(written) < 2:
        return []
    today = min(now, sorted(written.values())[-2])
    return sorted(day for day, moment in written.items() if moment < today - keep_seconds)
