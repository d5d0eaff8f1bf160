"""From a file of the source to a topic: each version once, each row, from where it stopped, whatever fails meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from memory import Crash, Topics
from prometheus_client import REGISTRY

from berny.runtime import file_poller
from berny.runtime.deposit import Deposit, Version, look
from berny.runtime.file_poller import Content, FilePoller, Row
from berny.runtime.kafka import Record
from berny.runtime.poller import PollerSettings
from berny.runtime.source import RetryLater, Unauthorized
from berny.runtime.spool import SpoolFull, SpoolUnavailable

TOPIC = "rows"


class Source:
    """A file whose versions are the given ones; the last one stays."""

    def __init__(self, *contents: bytes) -> None:
        self.left = list(contents)
        self.cut = 0
        self.fetched: list[str] = []

    def version(self) -> str:
        """Return the first one's name."""
        return f"v-{self.left[0].decode()[:8]}"

    def content(self, version: str) -> Content:
        """Return it, and go on to the next one."""
        body = self.left[0]
        return Content(len(body), self._parts(body, version))

    def _parts(self, body: bytes, version: str) -> Iterator[bytes]:
        yield body[:1]
        if self.cut:
            self.cut -= 1
            raise RetryLater("it was cut short")
        yield body[1:]
        self.fetched.append(version)
        if len(self.left) > 1:
            self.left.pop(0)


def rows(version: Version) -> Iterator[Row]:
    """Yield a row for each byte."""
    for offset, byte in enumerate(version.path.read_bytes()[version.offset :], version.offset):
        yield Row(Record(TOPIC, None, f"{version.name}:{offset + 1}:{byte:c}".encode()), offset + 1, offset + 1)


def settings(folder: Path, most: int = 1 << 20) -> PollerSettings:
    """Return the environment."""
    return PollerSettings(
        berny_pipeline="p", berny_stage="s", berny_metrics_port=1, kafka_bootstrap_servers="none", berny_spool_dir=folder,
        berny_spool_max_bytes=most,
    )  # fmt: skip


class Run:
    """A poller whose publisher stops it once so many records were published."""

    def __init__(self, folder: Path, source: Source, topics: Topics, until: int, pace: float = 0) -> None:
        self.stop = threading.Event()
        self.topics, self.until = topics, until
        self.sizes: list[int] = []
        self.poller = FilePoller(settings(folder), source, 0.01, rows, pace, self, self.stop)

    def publish(self, records: Iterator[Record]) -> int:
        """Publish a batch."""
        batch = list(records)
        self.sizes.append(len(batch))
        count = self.topics.publish(batch)
        if len(self.topics.values(TOPIC)) >= self.until:
            self.stop.set()
        return count


def wanted(*contents: bytes) -> list[bytes]:
    """Return the values of all rows."""
    return [
        f"v-{body.decode()[:8]}:{number}:{byte:c}".encode() for body in contents for number, byte in enumerate(body, 1)
    ]


def test_each_version_is_published_once(tmp_path: Path) -> None:
    """In order; one that comes again is known, and nothing of what was published stays on disk but its name."""
    topics, given = Topics(), (b"abc", b"defg", b"abc")
    Run(tmp_path, Source(*given), topics, 7).poller.run()
    assert topics.values(TOPIC) == wanted(b"abc", b"defg")
    source, stop = Source(b"abc"), threading.Event()
    poller = FilePoller(settings(tmp_path), source, 0.01, rows, 0, topics, stop)
    threading.Timer(0.3, stop.set).start()
    poller.run()
    assert source.fetched == [] and len(topics.values(TOPIC)) == 7
    assert list(tmp_path.glob("*.data")) == []
    assert [(version.name, version.row, done) for version, done in look(tmp_path, 0)] == [
        ("v-abc", 3, True), ("v-defg", 4, True),
    ]  # fmt: skip


def test_it_goes_on_at_the_row_where_it_stopped(tmp_path: Path) -> None:
    """A batch that brokers have acknowledged, and the process ended before it knew, comes again; no other row does."""
    topics, body = Topics(), b"abcdefghij"
    first = Run(tmp_path, Source(body), topics, 4, pace=20)
    first.poller.run()
    assert first.sizes == [4] and topics.values(TOPIC) == wanted(body)[:4]
    topics.crash_after = True
    with pytest.raises(Crash):
        Run(tmp_path, Source(body), topics, 99, pace=20).poller.run()
    assert topics.values(TOPIC) == wanted(body)[:8]
    Run(tmp_path, Source(body), topics, 14).poller.run()
    assert topics.values(TOPIC) == [*wanted(body)[:8], *wanted(body)[4:]]


def test_what_brokers_do_not_take_is_published_later(tmp_path: Path) -> None:
    topics = Topics()
    topics.away = 1
    Run(tmp_path, Source(b"abc"), topics, 3).poller.run()
    assert topics.values(TOPIC) == wanted(b"abc")


def test_a_version_that_was_cut_is_not_acknowledged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked for again."""
    monkeypatch.setattr("berny.runtime.file_poller.backoff", lambda failures, seconds=None: 0.01)
    topics, source = Topics(), Source(b"abc")
    source.cut = 2
    Run(tmp_path, source, topics, 3).poller.run()
    assert topics.values(TOPIC) == wanted(b"abc") and source.fetched == ["v-abc"]


def test_a_refused_key_ends_the_stage(tmp_path: Path) -> None:
    class Refusing(Source):
        def version(self) -> str:
            raise Unauthorized("wrong key")

    with pytest.raises(Unauthorized, match="wrong key"):
        Run(tmp_path, Refusing(), Topics(), 1).poller.run()


def test_a_pace_is_kept_by_small_batches(tmp_path: Path) -> None:
    """No batch has more than a fifth of a second's rows."""
    run = Run(tmp_path, Source(b"a" * 30), Topics(), 30, pace=50)
    run.poller.run()
    assert run.sizes == [10, 10, 10]


def test_the_deposit_is_bounded(tmp_path: Path) -> None:
    """What was published whole makes room."""
    deposit = Deposit(tmp_path, 5)
    deposit.keep("one", [b"ab", b"c"], 3)
    with pytest.raises(SpoolFull, match="more than 5 bytes"):
        deposit.keep("two", [b"def"], 3)
    assert not deposit.knows("two") and deposit.depth() == 1
    first = deposit.first()
    assert first and first.path.read_bytes() == b"abc"
    deposit.finish(first)
    deposit.keep("two", [b"def"], 3)
    assert deposit.knows("one") and deposit.bytes() == 3


def test_a_deposit_that_stays_full_is_overdue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often it is tried again; once there is room, it is in time."""
    monkeypatch.setattr(file_poller, "LATE_SECONDS", 0.2)
    run = Run(tmp_path, Source(b"abcdef"), Topics(), 6)
    opened: list[Deposit] = []

    def poll() -> None:
        opened.append(Deposit(tmp_path, 5))
        run.poller.poll(opened[0])

    def until(met: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 20
        while not met():
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def overdue() -> float:
        return REGISTRY.get_sample_value("berny_overdue_seconds") or 0.0

    polling = threading.Thread(target=poll)
    polling.start()
    try:
        until(lambda: bool(opened) and overdue() > 1)
        opened[0].max_bytes = 6
        until(lambda: Deposit(tmp_path, 6).knows("v-abcdef") and overdue() == 0)
    finally:
        run.stop.set()
        polling.join()


def test_what_was_never_complete_is_deleted(tmp_path: Path) -> None:
    """A start finds a file that was renamed before its version was on record, and one that was still coming."""
    deposit = Deposit(tmp_path, 99)
    deposit.keep("one", [b"abc"], 3)
    for name in ("0" * 32 + ".data", "incoming"):
        (tmp_path / name).write_bytes(b"x")
    deposit.tidy()
    first = deposit.first()
    assert first and list(tmp_path.glob("*.data")) == [first.path]
    assert not (tmp_path / "incoming").exists()


def test_a_disk_that_refuses_acknowledges_nothing(tmp_path: Path) -> None:
    deposit = Deposit(tmp_path, 99)
    (tmp_path / "incoming").mkdir()
    with pytest.raises(SpoolUnavailable, match="Nothing was acknowledged"):
        deposit.keep("one", [b"abc"], 3)
    assert not deposit.knows("one")
