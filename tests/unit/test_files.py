"""Files in HDFS, asked of the HDFS that nodes run: they appear whole and once; which days are dropped."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from hadoop import DATANODE, NAMENODE, Hdfs

from berny.runtime.files import Files, FilesError, expired

DAY = 86400.0
NOW = 20_000 * DAY
"""A day's first second: 2024-10-04 UTC."""
KEEP = 90 * DAY
USER = "someone"


@pytest.fixture
def files(hdfs: Hdfs) -> Iterator[Files]:
    """An empty directory of a user."""
    hdfs.provide("/files", USER)
    yield Files(hdfs.url, USER, "/files")


def test_a_file_appears_whole_and_stays(files: Files, hdfs: Hdfs) -> None:
    """A second attempt writes nothing; another content is no second attempt."""
    files.put("dt=1/a", b"one")
    before = hdfs.client().status("/files/dt=1/a")
    files.put("dt=1/a", b"one")
    assert hdfs.client().status("/files/dt=1/a") == before
    with pytest.raises(FilesError, match="/files/dt=1/a exists with 3 bytes, expected are 5"):
        files.put("dt=1/a", b"other")
    assert files.read("dt=1/a") == b"one"


def test_what_an_attempt_has_left_is_in_nobodys_way(files: Files, hdfs: Hdfs) -> None:
    """It ended while it wrote, or before it renamed: readers pass over the name."""
    hdfs.client(USER).write("/files/dt=1/_a", b"half of it")
    files.put("dt=1/a", b"one")
    hdfs.client(USER).write("/files/dt=1/_a", b"half of it")
    files.replace("dt=1/a", b"two")
    assert files.read("dt=1/a") == b"two" and list(files.modified("dt=1")) == ["a"]


def test_a_file_is_replaced(files: Files) -> None:
    """Also where there is none yet."""
    for content in (b"one", b"another", b""):
        files.replace("dt=1/a", content)
        assert files.read("dt=1/a") == content and list(files.modified("dt=1")) == ["a"]


def test_a_file_of_parts_is_sent_as_they_come(files: Files) -> None:
    """Larger than a block of the client, and with lines longer than a buffer; an error of a part leaves what there was."""
    parts = [b"a" * 100_000, b"", b"\nb\n", b"c" * 3_000_000, b"\n"]
    assert files.replace("dt=1/a", iter(parts)) == sum(map(len, parts)) == files.sizes("dt=1")["a"]
    assert list(files.lines("dt=1/a")) == [b"a" * 100_000, b"b", b"c" * 3_000_000]

    def broken() -> Iterator[bytes]:
        yield b"one"
        raise KeyError("of the source")

    with pytest.raises(KeyError):
        files.replace("dt=1/a", broken())
    assert len(files.read("dt=1/a")) == sum(map(len, parts))
    assert files.replace("dt=1/a", iter([])) == 0 and list(files.lines("dt=1/a")) == []
    assert files.sizes("dt=1") | {"_a": 0} == {"a": 0, "_a": 0} and files.sizes("dt=2") == {}
    with pytest.raises(FilesError, match="/files/dt=1/none"):
        list(files.lines("dt=1/none"))


def test_days_and_when_they_were_modified(files: Files) -> None:
    """By what comes and goes in them; nothing below what is not there."""
    assert files.days() == files.modified("dt=1") == {}
    since = time.time() - 5
    for name in ("dt=1/a", "dt=2/a", "other/a"):
        files.put(name, b"")
    first = files.days()
    assert first.keys() == {"dt=1", "dt=2"} and min(first.values()) > since
    time.sleep(0.01)
    files.put("dt=1/b", b"")
    assert files.days()["dt=1"] > first["dt=1"] and files.days()["dt=2"] == first["dt=2"]
    files.remove("dt=2")
    assert files.days().keys() == {"dt=1"}


def test_days_that_are_over_age_are_dropped(files: Files, hdfs: Hdfs) -> None:
    """By HDFS's own record, which tests can only make old."""
    for day in range(1, 5):
        files.put(f"dt={day}/a", b"")
        hdfs.client(USER).set_times(f"/files/dt={day}", modification_time=int((time.time() - day * 100 * DAY) * 1000))
    assert files.drop_expired(150 * DAY) == ["dt=4"] and files.days().keys() == {"dt=1", "dt=2", "dt=3"}
    assert files.drop_expired(150 * DAY) == []


def test_refusals_are_told_with_the_path(files: Files, hdfs: Hdfs) -> None:
    other = Files(hdfs.url, "another", "/files")
    for call in (lambda: other.put("dt=1/a", b""), lambda: other.replace("dt=1/a", b""), lambda: other.read("dt=1/a")):
        with pytest.raises(FilesError, match=r"^/files/dt=1/a: "):
            call()
    with pytest.raises(FilesError, match=r"^/files: .*Connection refused"):
        Files("http://127.0.0.1:9", USER, "/files").days()


def test_hdfs_that_is_away_gets_it_later(files: Files, hdfs: Hdfs) -> None:
    """Without a NameNode nothing is there; without a DataNode there is only a name."""
    for process in (NAMENODE, DATANODE):
        hdfs.end(process)
        try:
            with pytest.raises(FilesError):
                files.put("dt=1/a", b"one")
        finally:
            hdfs.start(process)
            hdfs.wait("/files/ready", USER)
        files.put("dt=1/a", b"one")
        assert files.read("dt=1/a") == b"one"
        files.remove("dt=1")


# -- retention ---------------------------------------------------------------------------------------------------------


def days(*ages: float) -> dict[str, float]:
    """Return days by name that were last written to so many days ago."""
    return {f"dt={age:g}": NOW - age * DAY for age in ages}


def test_days_go_when_they_are_over_age() -> None:
    """Counted from the newest day but one."""
    assert expired(days(0, 1, 90, 91, 92, 200), NOW, KEEP) == ["dt=200", "dt=92"]
    assert expired(days(0), NOW, KEEP) == expired({}, NOW, KEEP) == []


@pytest.mark.parametrize("ahead", [1 * DAY, 400 * DAY, 40_000 * DAY])
def test_clock_that_is_far_ahead_drops_no_day(ahead: float) -> None:
    """For a second, with nothing written; and after it, or still in it, with a day that it has written."""
    kept = days(0, 1, 40, 89)
    assert expired(kept, NOW + ahead, KEEP) == []
    written = kept | {"dt=ahead": NOW + ahead}
    assert expired(written, NOW + ahead, KEEP) == []
    assert expired(written | {"dt=next": NOW + ahead + DAY}, NOW, KEEP) == []


def test_clock_that_is_behind_drops_no_day() -> None:
    """It keeps more than it has to, never less; and what was written under an old name is new."""
    assert expired(days(0, 1, 91, 200), NOW - 150 * DAY, KEEP) == []
    assert expired(days(0, 1) | {"dt=1970-01-01": NOW}, NOW, KEEP) == []


def test_pipeline_that_was_off_for_long_drops_nothing_at_once() -> None:
    """What it had stays until it has written two new days."""
    assert expired(days(100, 101, 150), NOW, KEEP) == []
    assert expired(days(0, 100, 101, 150), NOW, KEEP) == []
    assert expired(days(0, 1, 100, 101, 150), NOW, KEEP) == ["dt=100", "dt=101", "dt=150"]
