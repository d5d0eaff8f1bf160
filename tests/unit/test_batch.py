"""The batch consumer with a sink that refuses an item, is away, needs a person, or crashes before the commit."""

from __future__ import annotations

import datetime as dt
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaException
from memory import PUBLISHED, Crash, Group, Topics
from prometheus_client import REGISTRY

from berny.runtime import batch
from berny.runtime.batch import BatchConsumer, BatchSettings, ItemsRefused, SinkAway
from berny.runtime.kafka import Origin
from berny.runtime.stage import ConfigurationError

TOPIC = "toys"
SETTINGS = BatchSettings(
    berny_pipeline="toy", berny_stage="s", berny_metrics_port=1, kafka_bootstrap_servers="-",
    berny_state_dir=Path("/nowhere"), berny_batch_records=100, berny_batch_seconds=0.01,
)  # fmt: skip


class Table:
    """A sink with a row for each number, which a second write overwrites."""

    id = "table"

    def __init__(self, log: list[str]) -> None:
        self.rows: list[int] = []
        self.log = log
        self.writes = 0
        self.away = 0
        self.refused: set[int] = set()
        self.too_old: set[int] = set()
        self.wrong: Exception | None = None
        """What each write and each check ends with."""
        self.checks = 0

    def write(self, items: Sequence[int]) -> int:
        """Write all rows or none."""
        self.writes += 1
        if self.away:
            self.away -= 1
            raise SinkAway("no route")
        if self.wrong:
            raise self.wrong
        if self.refused & set(items):
            raise ItemsRefused("the table refuses it")
        for item in set(items) - self.too_old:
            if item not in self.rows:
                self.rows.append(item)
        self.log.append("write")
        return len(self.too_old & set(items))

    def check(self) -> None:
        """See whether it is there."""
        self.checks += 1
        if self.wrong:
            raise self.wrong


def item(record: dict[str, Any], origin: Origin) -> int:
    """Return the number of a record."""
    assert (origin.topic_id, origin.partition) == ("id", 0) and origin.offset >= 0
    dt.datetime.fromtimestamp(record.get("at", 0), dt.UTC)
    return int(record["number"])


def values(*numbers: Any) -> list[bytes | None]:
    """Return a record of each number."""
    return [json.dumps({"number": number}).encode() for number in numbers]


class Bench:
    """A topic with its group, a table and dead letters, which outlive the processes of the consumer."""

    def __init__(self, records: list[bytes | None]) -> None:
        self.group = Group(TOPIC, records)
        self.table = Table(self.group.log)
        self.topics = Topics()
        self.failure: BaseException | None = None

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run one process, and stop it in the end."""
        stop = threading.Event()
        reader = self.group.reader()
        process = BatchConsumer(SETTINGS, TOPIC, reader, self.topics, self.table, item, stop)

        def run() -> None:
            try:
                process.run()
                assert reader.closed
            except BaseException as error:
                self.failure = error

        thread = threading.Thread(target=run)
        self.failure = None
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(20)
        assert not thread.is_alive()

    def run_to_its_end(self) -> BaseException | None:
        """Run one that ends by itself; return why."""
        with self.running():
            until(lambda: self.failure is not None)
        return self.failure

    def run_until_all_is_committed(self) -> None:
        """Run one that ends in order."""
        with self.running():
            until(lambda: self.group.committed == len(self.group.values))
        assert self.failure is None

    @property
    def letters(self) -> list[dict[str, Any]]:
        """The dead letters."""
        return [json.loads(value) for value in self.topics.values(f"{TOPIC}.dlq")]


@pytest.fixture(autouse=True)
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try again at once."""
    monkeypatch.setattr(batch, "LONGEST_PAUSE", 0.01)


def until(met: Callable[[], bool]) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + 20
    while not met():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def counted(name: str) -> float:
    """Return a counter of this process."""
    return REGISTRY.get_sample_value(f"{name}_total") or 0.0


def overdue() -> float:
    """Return the metric of this process."""
    return REGISTRY.get_sample_value("berny_overdue_seconds") or 0.0


def test_every_record_is_written_and_committed_after_it() -> None:
    """A commit of what was not written would lose it."""
    bench = Bench(values(*range(250)))
    bench.run_until_all_is_committed()
    assert sorted(bench.table.rows) == list(range(250))
    assert bench.group.log == ["write", "commit 100", "write", "commit 200", "write", "commit 250"]
    assert bench.letters == []


def test_the_time_from_end_to_end_begins_with_the_response() -> None:
    """Not with the record of the topic before the sink, which analytics have made anew."""

    def sums() -> float:
        return REGISTRY.get_sample_value("berny_end_to_end_seconds_sum") or 0.0

    before, moment = sums(), time.time() - 1000
    Bench([json.dumps({"number": 1, "observed_at": moment}).encode()]).run_until_all_is_committed()
    assert 1000 <= sums() - before < 1030
    before = sums()
    Bench(values(1)).run_until_all_is_committed()
    assert sums() - before == pytest.approx(time.time() - PUBLISHED, abs=30)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b"no JSON", "Expecting value"),
        (b"[]", "not a JSON object"),
        (None, "not a JSON object"),
        (b"[" * 100_000, "recursion"),
        (b'{"number": "x"}', "invalid literal"),
        (b'{"number": Infinity}', "cannot convert float infinity"),
        (b'{"number": 1, "at": 1.7e18}', "Value too large"),
    ],
)
def test_what_no_item_can_be_made_of_is_a_dead_letter(bad: bytes | None, reason: str) -> None:
    """With its reason and where it was; its neighbours are written, and it is read once."""
    before = counted("berny_dead_letters")
    bench = Bench([*values(1), bad, *values(2)])
    bench.run_until_all_is_committed()
    assert sorted(bench.table.rows) == [1, 2]
    [letter] = bench.letters
    assert letter["origin"] == {"topic": TOPIC, "partition": 0, "offset": 1} and reason in letter["reason"]
    assert counted("berny_dead_letters") - before == 1


def test_items_that_the_sink_refuses_are_found_by_halving() -> None:
    """They alone are dead letters, with few writes more."""
    bench = Bench(values(*range(100)))
    bench.table.refused = {7, 93}
    bench.run_until_all_is_committed()
    assert sorted(bench.table.rows) == sorted(set(range(100)) - {7, 93})
    assert [letter["origin"]["offset"] for letter in bench.letters] == [7, 93]
    assert {letter["reason"] for letter in bench.letters} == {"the table refuses it"}
    assert bench.table.writes < 40


def test_sink_that_is_away_gets_the_same_batch_later(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is committed until then, and no more than one other batch is read."""
    bench = Bench(values(*range(150)))
    bench.table.away = 1 << 30
    monkeypatch.setattr(batch, "STALLED_SECONDS", 0)
    with bench.running():
        until(lambda: bench.table.writes > 3)
        assert bench.group.committed == 0 and bench.table.rows == []
        assert overdue() > 0, "it is not healthy"
        bench.table.away = 0
        until(lambda: bench.group.committed == 150)
        assert overdue() == 0
    assert sorted(bench.table.rows) == list(range(150))
    assert "not written; trying again" in caplog.messages


def test_stage_that_stops_while_the_sink_is_away_commits_nothing() -> None:
    """It ends soon, and the next process has the batch."""
    bench = Bench(values(1, 2))
    bench.table.away = 1 << 30
    with bench.running():
        until(lambda: bench.table.writes > 1)
    assert bench.failure is None and bench.group.committed == 0
    bench.table.away = 0
    bench.run_until_all_is_committed()
    assert sorted(bench.table.rows) == [1, 2]


def test_dead_letters_are_there_before_the_commit() -> None:
    """While Kafka does not take them, the batch stays in hand."""
    bench = Bench([*values(1), b"bad"])
    bench.topics.away = 3
    bench.run_until_all_is_committed()
    assert bench.table.rows == [1] and len(bench.letters) == 1
    assert bench.table.writes == 4, "written again over itself"


def test_crash_between_write_and_commit_doubles_nothing() -> None:
    """The next process writes the batch again, over itself."""
    bench = Bench([*values(*range(5)), b"bad"])
    bench.topics.crash_after = True
    assert isinstance(bench.run_to_its_end(), Crash)
    assert sorted(bench.table.rows) == list(range(5)) and bench.group.committed == 0
    bench.run_until_all_is_committed()
    assert sorted(bench.table.rows) == list(range(5))
    assert [letter["origin"]["offset"] for letter in bench.letters] == [5, 5], "transport may hold it twice"


def test_commit_that_fails_is_made_up_by_the_next() -> None:
    """No reason to end: the batch is written."""
    bench = Bench(values(*range(150)))
    bench.group.refuse_commits = 1
    bench.run_until_all_is_committed()
    assert bench.group.log == ["write", "write", "commit 150"]


def test_next_batch_is_taken_while_a_full_one_is_written() -> None:
    """And one more is not, however long that takes; a batch that is not full is committed before anything is taken."""
    bench = Bench(values(*range(350)))
    bench.table.away = 1 << 30
    with bench.running():
        until(lambda: bench.table.writes > 3)
        assert bench.group.taken == 200
        bench.table.away = 0
        until(lambda: bench.group.committed == 350)
    commits = ["commit 100", "commit 200", "commit 300", "commit 350"]
    assert [line for line in bench.group.log if line != "write"] == commits


def test_offsets_of_a_topic_that_was_recreated_meanwhile_are_not_committed() -> None:
    """They are found while the batch before is written: its offsets would skip records of the new topic."""
    bench = Bench(values(*range(100)))
    bench.group.recreated_after = 1
    with bench.running():
        until(lambda: bench.table.rows == [*range(100)] and bench.group.calls > 1)
    assert bench.failure is None and bench.group.committed == 0


def test_reader_that_fails_ends_a_stage_whose_sink_is_away() -> None:
    """The writer, which would try again for ever, is not waited for."""
    bench = Bench(values(*range(100)))
    bench.table.away = 1 << 30
    bench.group.fails_after = 1
    assert isinstance(bench.run_to_its_end(), KafkaException)
    assert bench.group.committed == 0


def test_sink_that_needs_a_person_ends_the_stage_without_a_commit() -> None:
    """As ``stage.main`` ends it with 78, with the sink's own words."""
    bench = Bench(values(1, 2))
    bench.table.wrong = ConfigurationError("the token is refused: run site.yml")
    assert bench.run_to_its_end() is bench.table.wrong
    assert bench.group.committed == 0
    bench.table.wrong = None
    bench.run_until_all_is_committed()
    assert sorted(bench.table.rows) == [1, 2]


def test_idle_sink_is_checked(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """What is wrong is found before there is something to write; a sink that is away then ends nothing."""
    monkeypatch.setattr(batch, "IDLE_SECONDS", 0)
    bench = Bench([])
    bench.table.wrong = SinkAway("no route")
    with bench.running():
        until(lambda: bench.table.checks > 2)
    assert bench.failure is None and "the sink does not respond" in caplog.messages
    bench.table.wrong = ConfigurationError("the bucket is gone")
    assert bench.run_to_its_end() is bench.table.wrong


def test_what_is_too_old_for_the_sink_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    """It is neither a dead letter nor written."""
    caplog.set_level(logging.INFO)
    expired, out = counted("berny_expired_records"), counted("berny_records_out")
    bench = Bench(values(1, 2, 3))
    bench.table.too_old = {2}
    bench.run_until_all_is_committed()
    assert (counted("berny_expired_records") - expired, counted("berny_records_out") - out) == (1, 2)
    assert sorted(bench.table.rows) == [1, 3] and bench.letters == []


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1.5, "b": [null, true, "\\u00e9"], "a": 2}',
        '{"surrogate": "\\ud800"}',
        '{"big": 123456789012345678901234567890, "exact": 0.1, "small": 1e-400, "large": 1e400}',
        '{"not a number": NaN, "minus": -Infinity}',
        '{"nested": ' + "[" * 500 + "]" * 500 + "}",
        "[1]",
        "null",
        "{",
        '{"a": 1} x',
        '{"a": "\udcff"}',
    ],
)
def test_records_are_parsed_as_by_pythons_own_parser(text: str) -> None:
    """Also what the quicker one refuses."""
    value = text.encode(errors="surrogateescape")
    try:
        expected = json.loads(value)
    except ValueError:
        expected = None
    if isinstance(expected, dict):
        assert repr(batch.parse(value)) == repr(expected)
    else:
        with pytest.raises(ValueError):
            batch.parse(value)
