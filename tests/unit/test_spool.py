"""The spool under kills, a full disk and a full spool: what was acknowledged is there, whole and in order."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from berny.runtime.spool import Spool, SpoolFull, SpoolUnavailable

SINKS = ["kafka", "hdfs"]
KILLS = 15

WRITER = """
import hashlib, random, sys
from pathlib import Path
from berny.runtime.spool import Spool

spool = Spool(Path(sys.argv[1]), 1 << 40, ["kafka", "hdfs"])
draw = random.Random(sys.argv[2])
while True:
    body = draw.randbytes(draw.choice([0, 10, 1000, 5000, 60000]))
    offset = spool.append(hashlib.sha256(body).digest() + body, 1.5)
    print(offset, hashlib.sha256(body).hexdigest(), flush=True)
    if draw.random() < 0.2:
        cursor = spool.cursor("kafka")
        spool.advance("kafka", max(cursor, offset - 3), [f"identity-{offset}"])
    if draw.random() < 0.05:
        spool.advance("hdfs", max(spool.cursor("hdfs"), offset - 40))
        spool.prune(0)
"""


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    """An empty spool that two sinks read."""
    made = Spool(tmp_path, 1 << 30, SINKS)
    yield made
    made.close()


def fill(spool: Spool, count: int) -> list[int]:
    """Append so many answers and return their offsets."""
    return [spool.append(f"answer {number}".encode(), float(number)) for number in range(count)]


def test_sizes_are_those_of_what_is_read(spool: Spool) -> None:
    """In bytes, which are not characters."""
    offsets = [*fill(spool, 3), spool.append("é".encode(), 3.0), *fill(spool, 2)]
    for after, most in ((0, 1 << 30), (offsets[1], 1 << 30), (0, 9), (offsets[0], 20), (offsets[-1], 1)):
        read = [(one.offset, one.fetched_at, len(one.body)) for one in spool.read(after, max_bytes=most)]
        assert [tuple(one) for one in spool.sizes(after, most)] == read


# -- crashes -----------------------------------------------------------------------------------------------------------


def killed_writer(folder: Path, number: int, after: float) -> dict[int, str]:
    """Kill a writing process; return the digest by offset of what it acknowledged."""
    command = [sys.executable, "-c", WRITER, str(folder), str(number)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        first = process.stdout.readline()
        timer = threading.Timer(after, process.kill)
        timer.start()
        rest = process.stdout.read()
        timer.join()
        process.wait()
    assert process.returncode == -9, "the writer ended by itself"
    lines = (first + rest).split("\n")[:-1]
    return {int(offset): digest for offset, digest in (line.split() for line in lines)}


def test_nothing_acknowledged_is_lost_by_kills(tmp_path: Path) -> None:
    """One spool, killed again and again at random points while it writes, advances and prunes.

    A kill leaves the page cache: that commits are synced is shown by the power cuts of tests/faults.
    """
    draw = random.Random()
    acknowledged: dict[int, str] = {}
    highest = 0
    for number in range(KILLS):
        told = killed_writer(tmp_path, number, draw.uniform(0.0, 0.25))
        assert min(told) > highest, "an offset was used twice"
        assert list(told) == sorted(told)
        acknowledged |= told
        spool = Spool(tmp_path, 1 << 40, SINKS)
        answers = spool.read(0, 1_000_000)
        offsets = [answer.offset for answer in answers]
        assert offsets == sorted(set(offsets))
        assert spool.bytes() == sum(len(answer.body) for answer in answers)
        assert spool.depth("hdfs") == len(spool.read(spool.cursor("hdfs"), 1_000_000))
        for answer in answers:
            digest, body = answer.body[:32], answer.body[32:]
            assert hashlib.sha256(body).digest() == digest, f"the answer at {answer.offset} is torn"
            assert acknowledged.get(answer.offset, digest.hex()) == digest.hex()
        done = min(spool.cursor(sink) for sink in SINKS)
        assert {offset for offset in acknowledged if offset > done} <= set(offsets)
        assert spool.cursor("kafka") <= max(offsets)
        published = {f"identity-{offset}" for offset in told if offset <= spool.cursor("kafka")}
        assert spool.was_published(published) <= published
        highest = max(offsets)
        spool.close()
    assert len(acknowledged) > KILLS


FULL_DISK = """
import resource, sys
from pathlib import Path
from berny.runtime.spool import Spool, SpoolUnavailable

spool = Spool(Path(sys.argv[1]), 1 << 40, ["kafka", "hdfs"])
told = [spool.append(b"x" * 10000, 1.0) for _ in range(20)]
size = max(path.stat().st_size for path in Path(sys.argv[1]).iterdir())
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 50000, hard))
reasons = []
while len(reasons) < 3:
    try:
        told.append(spool.append(b"y" * 30000, 2.0))
    except SpoolUnavailable as error:
        reasons.append(str(error))
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
told.append(spool.append(b"z", 3.0))
assert [answer.offset for answer in spool.read(0, 1000)] == told, told
assert len(set(told)) == len(told)
print("\\n".join(reasons))
"""


def test_disk_that_refuses_is_told_and_recovered_from(tmp_path: Path) -> None:
    """No file may grow for a while (the kernel refuses, as a full disk does): nothing is acknowledged until it may."""
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    for reason in done.stdout.splitlines():
        assert "spool.sqlite" in reason
        assert "disk" in reason.partition("; ")[0], "the reason is SQLite's own, not that of cleaning up after it"
        assert "Nothing was acknowledged" in reason


def test_damaged_file_is_told(tmp_path: Path) -> None:
    """A file that is no spool is named; it is not replaced."""
    (tmp_path / "spool.sqlite").write_bytes(b"not a database" * 1000)
    with pytest.raises(SpoolUnavailable, match=r"spool\.sqlite: .*not a database"):
        Spool(tmp_path, 1 << 30, SINKS)
    assert (tmp_path / "spool.sqlite").read_bytes().startswith(b"not a database")


def test_missing_folder_is_told(tmp_path: Path) -> None:
    """The data disk is not mounted: nothing is spooled beside it."""
    with pytest.raises(SpoolUnavailable, match=r"spool\.sqlite"):
        Spool(tmp_path / "absent", 1 << 30, SINKS)
    assert not (tmp_path / "absent").exists()


# -- answers -----------------------------------------------------------------------------------------------------------


@given(bodies=st.lists(st.binary(max_size=300), max_size=10))
@settings(max_examples=20)
def test_answers_come_back_as_they_were(tmp_path_factory: pytest.TempPathFactory, bodies: list[bytes]) -> None:
    """Any bytes, in order, with the time they were fetched."""
    spool = Spool(tmp_path_factory.mktemp("spool"), 1 << 30, SINKS)
    offsets = [spool.append(body, 1763985600.123 + number) for number, body in enumerate(bodies)]
    found = spool.read(0)
    assert [(a.offset, a.body) for a in found] == list(zip(offsets, bodies, strict=True))
    assert [a.fetched_at for a in found] == [1763985600.123 + number for number in range(len(bodies))]
    spool.close()


def test_another_connection_sees_it(tmp_path: Path, spool: Spool) -> None:
    """Each thread has a connection of its own: what one acknowledged the others read."""
    offset = spool.append(b"answer", 1.0)
    other = Spool(tmp_path, 1 << 30, SINKS)
    assert [answer.offset for answer in other.read(0)] == [offset]
    assert other.append(b"another", 2.0) > offset
    other.close()


def test_threads_write_at_once(tmp_path: Path) -> None:
    """Polling, publishing and landing share the file: none of them is refused because another one writes."""
    offsets: list[int] = []
    errors: list[Exception] = []

    def work(number: int) -> None:
        try:
            own = Spool(tmp_path, 1 << 30, SINKS)
            for step in range(30):
                offsets.append(own.append(f"{number}/{step}".encode(), 1.0))
                own.advance(SINKS[number % 2], 0, [f"{number}/{step}"])
            own.close()
        except Exception as error:
            errors.append(error)

    Spool(tmp_path, 1 << 30, SINKS).close()
    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(set(offsets)) == 120


def test_answer_that_comes_during_pruning_refuses_neither(tmp_path: Path, spool: Spool) -> None:
    """A transaction that reads before it writes would be refused, without waiting, if another one wrote in between."""
    fill(spool, 3)
    appended: list[int] = []
    appending = threading.Thread(target=lambda: appended.append(Spool(tmp_path, 1 << 30, SINKS).append(b"late", 9.0)))
    reads: list[str] = []

    def between(statement: str) -> None:
        reads.extend([statement] if "FROM cursors" in statement else [])
        if len(reads) == 2 and not appending.is_alive() and not appended:
            appending.start()
            appending.join(0.5)

    spool._db.set_trace_callback(between)
    spool.prune(0)
    spool._db.set_trace_callback(None)
    appending.join()
    assert appended == [spool.read(0)[-1].offset]


def test_reading_is_bounded(spool: Spool) -> None:
    """A sink that was away for a day catches up in bites."""
    offsets = fill(spool, 10)
    assert [a.offset for a in spool.read(offsets[2], 3)] == offsets[3:6]
    assert [a.offset for a in spool.read(0, 10, max_bytes=20)] == offsets[:3], "none after 20 bytes are passed"
    assert [a.offset for a in spool.read(0, 10, max_bytes=1)] == offsets[:1], "one at least, however large"
    assert spool.read(offsets[-1]) == []


def test_full_spool_takes_nothing_in(tmp_path: Path) -> None:
    """Polling pauses; what is kept stays; room is made by the sinks alone."""
    spool = Spool(tmp_path, 1000, SINKS)
    offset = spool.append(b"x" * 600, 1.0)
    with pytest.raises(SpoolFull, match="1000 bytes"):
        spool.append(b"x" * 401, 2.0)
    assert spool.bytes() == 600
    spool.append(b"x" * 400, 2.0)
    with pytest.raises(SpoolFull):
        spool.append(b"x", 3.0)
    for sink in SINKS:
        spool.advance(sink, offset)
    with pytest.raises(SpoolFull):
        spool.append(b"x", 3.0)
    spool.prune(0)
    spool.append(b"x" * 600, 4.0)
    assert [len(answer.body) for answer in spool.read(0)] == [400, 600]
    spool.close()


def test_spool_of_an_earlier_version_knows_its_size(tmp_path: Path) -> None:
    """Earlier versions did not keep the sum."""
    spool = Spool(tmp_path, 1000, SINKS)
    spool.append(b"x" * 600, 1.0)
    spool._db.executescript("DROP TABLE size; DROP TRIGGER appended; DROP TRIGGER pruned")
    spool.close()
    spool = Spool(tmp_path, 1000, SINKS)
    assert spool.bytes() == 600
    with pytest.raises(SpoolFull):
        spool.append(b"x" * 401, 2.0)
    spool.close()


# -- sinks -------------------------------------------------------------------------------------------------------------


def test_cursors_go_their_own_ways(tmp_path: Path, spool: Spool) -> None:
    """While Kafka is away HDFS goes on; a restart goes on where each was."""
    offsets = fill(spool, 5)
    assert [spool.cursor(sink) for sink in SINKS] == [0, 0]
    spool.advance("hdfs", offsets[3])
    assert spool.cursor("kafka") == 0
    assert [spool.depth(sink) for sink in SINKS] == [5, 1]
    assert [spool.oldest(sink) for sink in SINKS] == [0.0, 4.0]
    spool.close()
    again = Spool(tmp_path, 1 << 30, SINKS)
    assert [again.cursor(sink) for sink in SINKS] == [0, offsets[3]]
    again.advance("hdfs", offsets[4])
    assert again.oldest("hdfs") is None
    assert again.depth("hdfs") == 0
    again.close()


def test_pruning_keeps_what_a_sink_lacks(spool: Spool) -> None:
    """An answer goes once all sinks have it, not before."""
    offsets = fill(spool, 10)
    spool.advance("kafka", offsets[8])
    spool.prune(0)
    assert [a.offset for a in spool.read(0)] == offsets
    spool.advance("hdfs", offsets[4])
    spool.prune(0)
    assert [a.offset for a in spool.read(0)] == offsets[5:]


def test_offsets_are_never_used_twice(tmp_path: Path, spool: Spool) -> None:
    """Files in HDFS are named by offsets: an emptied spool must not start from 1 again."""
    last = fill(spool, 5)[-1]
    for sink in SINKS:
        spool.advance(sink, last)
    spool.prune(0)
    assert spool.read(0) == []
    spool.close()
    again = Spool(tmp_path, 1 << 30, SINKS)
    assert again.append(b"next", 1.0) == last + 1
    again.close()


def test_pruning_gives_the_space_back(tmp_path: Path) -> None:
    """A spool that was full once does not fill its disk for ever: 2,000 pages go with each pruning."""
    spool = Spool(tmp_path, 1 << 30, SINKS)
    last = 0
    for number in range(60):
        last = spool.append(os.urandom(100_000), float(number))
    spool.close()
    before = (tmp_path / "spool.sqlite").stat().st_size
    assert before > 6_000_000
    spool = Spool(tmp_path, 1 << 30, SINKS)
    for sink in SINKS:
        spool.advance(sink, last)
    spool.prune(0)
    spool.close()
    assert (tmp_path / "spool.sqlite").stat().st_size < before / 10


def test_published_identities_are_known(tmp_path: Path, spool: Spool) -> None:
    """The API repeats a train for half an hour: it is published once, also across a restart."""
    spool.advance("kafka", 1, ["one", "two"])
    spool.advance("kafka", 2, ["two", "three"])
    spool.close()
    again = Spool(tmp_path, 1 << 30, SINKS)
    assert again.was_published({"one", "two", "three", "four"}) == {"one", "two", "three"}
    again.close()


def test_identities_are_forgotten_with_time(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the API can no longer repeat need not be remembered."""
    monkeypatch.setattr("berny.runtime.spool.time.time", lambda: 1000.0)
    spool.advance("kafka", 1, ["old"])
    monkeypatch.setattr("berny.runtime.spool.time.time", lambda: 2000.0)
    spool.advance("kafka", 2, ["young"])
    spool.prune(1500.0)
    assert spool.was_published(["old", "young"]) == {"young"}


def test_clock_that_is_ahead_for_a_moment_forgets_no_identity(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the source repeats in the next second would be published again."""
    monkeypatch.setattr("berny.runtime.spool.time.time", lambda: 1000.0)
    assert spool.now() == 1000.0
    spool.advance("kafka", 1, ["one"])
    monkeypatch.setattr("berny.runtime.spool.time.time", lambda: 1e9)
    assert spool.now() == 1000.0
    spool.advance("kafka", 2, ["two"])
    monkeypatch.setattr("berny.runtime.spool.time.time", lambda: 1001.0)
    assert spool.now() == 1001.0
    spool.prune(spool.now() - 2)
    assert spool.was_published(["one", "two"]) == {"one", "two"}


def test_planned_file_stays_until_it_is_landed(tmp_path: Path, spool: Spool) -> None:
    """A second attempt at a file writes the same: what it holds was recorded before the first."""
    offsets = fill(spool, 6)
    assert spool.planned_file(0) is None
    spool.plan_file(offsets[0], offsets[3], "/data/one")
    spool.close()
    again = Spool(tmp_path, 1 << 30, SINKS)
    assert again.planned_file(again.cursor("hdfs")) == (offsets[0], offsets[3], "/data/one")
    again.advance("kafka", offsets[5])
    assert again.planned_file(again.cursor("hdfs")) is not None, "another sink's progress is none of its business"
    again.advance("hdfs", offsets[3])
    assert again.planned_file(again.cursor("hdfs")) is None
    again.plan_file(offsets[4], offsets[5], "/data/two")
    assert again.planned_file(again.cursor("hdfs")) == (offsets[4], offsets[5], "/data/two")
    again.close()


# -- calls -------------------------------------------------------------------------------------------------------------


def test_calls_are_counted_across_restarts(tmp_path: Path, spool: Spool) -> None:
    """1,000 calls a day are allowed: a producer that keeps being started must not forget those it made."""
    assert spool.last_call() == 0
    assert [spool.count_call("2025-11-24", float(number)) for number in (10, 20, 30)] == [1, 2, 3]
    spool.close()
    again = Spool(tmp_path, 1 << 30, SINKS)
    assert again.calls("2025-11-24") == 3
    assert again.last_call() == 30.0
    assert again.count_call("2025-11-25", 40.0) == 1
    assert (again.calls("2025-11-24"), again.calls("2025-11-26")) == (3, 0)
    again.close()


def test_call_on_record_for_the_future_ends_with_the_next(spool: Spool) -> None:
    """The clock was a month ahead for a week: today is counted all the same, and no wait is longer than the pace."""
    for day in range(20, 27):
        spool.count_call(f"2025-12-{day}", float(day) * 86400)
    assert [spool.count_call("2025-11-24", 1000.0), spool.count_call("2025-11-24", 1001.0)] == [1, 2]
    assert spool.last_call() == 1001.0


def test_calls_of_old_days_are_dropped(spool: Spool) -> None:
    """A week is enough to look back."""
    for day in range(1, 31):
        spool.count_call(f"2025-11-{day:02d}", float(day))
    assert [day for day in range(1, 31) if spool.calls(f"2025-11-{day:02d}")] == list(range(24, 31))
    assert spool.last_call() == 30.0


def test_spool_that_is_made_anew_uses_no_offset_again(tmp_path: Path) -> None:
    """Its disk was lost; the files in HDFS that were named by the offsets of the one before are still there."""
    offsets = []
    for name in ("lost", "new"):
        (tmp_path / name).mkdir()
        spool = Spool(tmp_path / name, 1 << 20, SINKS)
        offsets += fill(spool, 20)
        spool.close()
        time.sleep(0.05)
    assert offsets == sorted(set(offsets))
