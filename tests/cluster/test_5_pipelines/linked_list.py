"""Runs on a node: writes a linked list to a table of HBase over Thrift, or follows it.

Each batch of rows points to the one before it, so a row that was acknowledged and is gone leaves a pointer to nothing:
the idea of HBase's own integration test of big linked lists. Usage: ``python3 - write HOST PORT TABLE SECONDS``, which prints
how many rows were acknowledged and how long the longest batch took, or ``python3 - follow HOST PORT TABLE``, which prints how
many there are and how many pointers point to nothing.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import TypeVar

import happybase
from thriftpy2.thrift import TException

WIDTH = 200
"""Rows of a batch, and lists that are written side by side."""
POINTER = b"l:before"
GIVE_UP_SECONDS = 180

Result = TypeVar("Result")


def insist(host: str, port: int, name: str, work: Callable[[happybase.Table], Result]) -> Result:
    """Do something with the table until it succeeds."""
    deadline = time.monotonic() + GIVE_UP_SECONDS
    while True:
        try:
            connection = happybase.Connection(host, port, timeout=60_000)
            try:
                return work(connection.table(name))
            finally:
                connection.close()
        except (TException, OSError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


def write(host: str, port: int, name: str, seconds: float) -> None:
    """Write batches for some seconds."""
    before, rows, longest = [b""] * WIDTH, 0, 0.0
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        keys = [os.urandom(8).hex().encode() for _ in range(WIDTH)]

        def put(table: happybase.Table, keys: list[bytes] = keys, before: list[bytes] = before) -> None:
            with table.batch() as batch:
                for key, pointer in zip(keys, before, strict=True):
                    batch.put(key, {POINTER: pointer})

        since = time.monotonic()
        insist(host, port, name, put)
        longest = max(longest, time.monotonic() - since)
        before, rows = keys, rows + WIDTH
    print(json.dumps({"rows": rows, "longest": longest}))


def follow(host: str, port: int, name: str) -> None:
    """Hold all pointers against all keys."""
    found = insist(host, port, name, lambda table: {key: cells.get(POINTER) for key, cells in table.scan()})
    dangling = [pointer for pointer in found.values() if pointer and pointer not in found]
    print(json.dumps({"rows": len(found), "dangling": len(dangling)}))


if __name__ == "__main__":
    what, host, port, name, *others = sys.argv[1:]
    if what == "write":
        write(host, int(port), name, float(others[0]))
    else:
        follow(host, int(port), name)
