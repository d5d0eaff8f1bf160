"""Raw answers on their way to HDFS: when a file is due, and that it is there once, whatever ends in between."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hadoop import Hdfs

from berny.runtime.files import FilesError
from berny.runtime.landing import Landing
from berny.runtime.spool import Spool

DAY = 86400.0
NOW = 20_000 * DAY
"""A day's first second: 2024-10-04 UTC."""


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    """An empty spool that only HDFS reads."""
    made = Spool(tmp_path, 1 << 30, ["hdfs"])
    yield made
    made.close()


# -- files -------------------------------------------------------------------------------------------------------------


def planned(spool: Spool) -> tuple[int, int, str] | None:
    """Return first offset, last offset and path of the file that is due."""
    return Landing("http://127.0.0.1:9", "idfm", "/raw", 300, 1 << 20)._plan(spool, spool.cursor("hdfs"), False)


def test_answer_fetched_in_the_future_is_not_waited_for(spool: Spool) -> None:
    """The clock was hours ahead when it was fetched: its file is due now, and not when that moment has come."""
    now = time.time()
    offset = spool.append(b"{}", now - 10)
    assert planned(spool) is None
    spool.advance("hdfs", offset)
    ahead = spool.append(b"{}", now + 5 * 3600)
    found = planned(spool)
    assert found and found[:2] == (ahead, ahead)


def test_a_file_holds_neighbours_of_one_day(spool: Spool) -> None:
    """One that a wrong clock has put between them ends the file; none is filed under another's day."""
    today = [spool.append(b"{}", NOW + second) for second in range(3)]
    ahead = spool.append(b"{}", NOW + 400 * DAY)
    spool.append(b"{}", NOW + 4)
    assert planned(spool) == (today[0], today[-1], f"/raw/dt=2024-10-04/raw-{today[0]:020d}-{today[-1]:020d}.jsonl")
    spool.advance("hdfs", today[-1])
    found = planned(spool)
    assert found and found[:2] == (ahead, ahead) and "/dt=2025-11-08/" in found[2]


def test_a_file_is_there_once(spool: Spool, hdfs: Hdfs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where HDFS goes away before or after it, or this process ends before the spool hears of it."""
    hdfs.provide("/raw", "idfm")
    landing, files = Landing(hdfs.url, "idfm", "/raw", 0, 1 << 20), hdfs.client()
    bodies = [b'{"a":\n1}', b"no JSON", b'{"a": 2}']
    for body in bodies:
        spool.append(body, NOW)
    away = Landing("http://127.0.0.1:9", "idfm", "/raw", 0, 1 << 20)
    with pytest.raises(FilesError, match="/raw/dt=2024-10-04/raw-"):
        away.land(spool)
    monkeypatch.setattr(spool, "advance", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        landing.land(spool)
    monkeypatch.undo()
    spool.append(b"{}", NOW)
    assert (landing.land(spool), landing.land(spool), landing.land(spool)) == (3, 1, 0)
    assert len(files.list("/raw/dt=2024-10-04")) == 2
    held = b""
    for name in sorted(files.list("/raw/dt=2024-10-04")):
        with files.read(f"/raw/dt=2024-10-04/{name}") as reader:
            held += reader.read()
    assert held == b'{"a": 1}\n{"a": 2}\n{}\n'
