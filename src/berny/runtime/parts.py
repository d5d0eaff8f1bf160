"""Files that a query writes batch by batch, each exactly once, in directories of HDFS.

A file is named by its batch and the checkpoint that numbers it, ``part-00042-<id>.json``, and renamed into place: a repeated
batch finds it. Once all files of a batch are there, a state below ``_batches`` in the first directory says so.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from berny.runtime.checkpoint import Progress
from berny.runtime.files import Files
from berny.runtime.stage import ConfigurationError

PART = re.compile(r"part-(?P<batch>\d{5,})-(?P<id>[0-9a-f]{12})\.json")
STATES = "_batches"
STATE = re.compile(r"(?P<id>[0-9a-f]{12})-(?P<batch>\d{5,})\.json")
KEPT = 20
"""States of the last batches that are kept; only that of the last one is needed."""


def part_name(number: int, identity: str, kind: str = "json") -> str:
    """Return the name of a batch's file."""
    return f"part-{number:05d}-{identity}.{kind}"


def complete(names: Mapping[str, Any] | Sequence[str]) -> dict[str, int]:
    """Return the last complete batch of each checkpoint, given the names of states."""
    found: dict[str, int] = {}
    for match in filter(None, map(STATE.fullmatch, names)):
        found[match["id"]] = max(int(match["batch"]), found.get(match["id"], -1))
    return found


class Parts:
    """The directories of one query.

    Args:
        directories: by name; the first one has the states.
        progress: the query's checkpoint.
    """

    def __init__(self, directories: Mapping[str, Files], progress: Progress) -> None:
        self._directories = directories
        self._first = next(iter(directories.values()))
        self._id, self._former, self._committed = progress.id, progress.former, progress.batch
        self._state: Any = None
        self._last = -1

    def begin(self, advice: str) -> None:
        """Compare the directories with the checkpoint, and remove files of a batch that a former checkpoint never completed.

        Args:
            advice: what a person can do if they do not belong together.

        Raises:
            ConfigurationError: they do not.
            FilesError: HDFS refuses or does not respond.
        """
        last = complete(self._first.sizes(STATES))
        own = {self._id, *self._former}
        for files in self._directories.values():
            for match in filter(None, map(PART.fullmatch, files.sizes(""))):
                if match["id"] not in own:
                    raise ConfigurationError(
                        f"{files.root}/{match[0]} is of another checkpoint than the present one ({self._id}): {advice}"
                    )
                if match["id"] != self._id and int(match["batch"]) > last.get(match["id"], -1):
                    files.remove(match[0])
        self._last = last.get(self._id, -1)
        if self._committed > self._last:
            raise ConfigurationError(
                f"the checkpoint has completed batch {self._committed}, of which {self._first.root} knows nothing: {advice}"
            )
        for identity in (self._id, *reversed(self._former)):
            if identity in last:
                self._state = json.loads(self._first.read(f"{STATES}/{identity}-{last[identity]:05d}.json"))
                return

    @property
    def state(self) -> Any:
        """What the last complete batch has left, as JSON; None if there is none."""
        return self._state

    def done(self, number: int) -> bool:
        """Return whether a batch is complete: it is repeated, and nothing is to be done."""
        return number <= self._last

    def staged(self, number: int) -> str:
        """Return the folder, below a directory's root, that Spark writes a batch to before it is renamed."""
        return f"_batch-{number:05d}-{self._id}"

    def place(self, name: str, number: int) -> None:
        """Rename what Spark has written of a batch into its place; a batch without rows has no file.

        Raises:
            FilesError: HDFS refuses or does not respond.
        """
        files, beside = self._directories[name], self.staged(number)
        written = {one: size for one, size in files.sizes(beside).items() if one.startswith("part-") and size}
        assert len(written) <= 1, "a batch is written as one partition"
        for one in written:
            files.rename(f"{beside}/{one}", part_name(number, self._id))
        files.remove(beside)

    def complete(self, number: int, state: Any) -> None:
        """Record that all files of a batch are there, and what it leaves to the next one.

        Raises:
            FilesError: HDFS refuses or does not respond.
        """
        self._first.replace(f"{STATES}/{self._id}-{number:05d}.json", json.dumps(state).encode())
        if number >= KEPT:
            self._first.remove(f"{STATES}/{self._id}-{number - KEPT:05d}.json")
        self._last, self._state = number, state
