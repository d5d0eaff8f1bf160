"""How far a query in real-time mode is, by the headers of what it has written."""

from __future__ import annotations

from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from prometheus_client import REGISTRY

from berny.runtime.progress import HEADER, Position, Tail, source_of


def value(name: str, **labels: str) -> float:
    """Return a metric of this process."""
    return REGISTRY.get_sample_value(name, labels) or 0.0


class Message:
    """An output record, written at the 5,000th millisecond, of an input record of the first, or an error."""

    def __init__(self, header: str | None, topic: str = "out", wrong: Any = None) -> None:
        self.header = header
        self.told = topic
        self.wrong = wrong

    def error(self) -> Any:
        """Return the error."""
        return self.wrong

    def headers(self) -> list[tuple[str, bytes]] | None:
        """Return the headers; None where there are none, as the client does."""
        return None if self.header is None else [("other", b"1"), (HEADER, self.header.encode())]

    def topic(self) -> str:
        """Return the topic."""
        return self.told

    def timestamp(self) -> tuple[int, int]:
        """Return its kind and the time."""
        return 1, 5000


class Error:
    """An error that a consumer reports among records."""

    def code(self) -> int:
        """Return its number."""
        return -195

    def str(self) -> str:
        """Return its text."""
        return "1/2 brokers are down"


def counted(position: Position, *messages: Message) -> dict[str, float]:
    """Count messages and return how much the metrics grew."""
    names = ("berny_records_in_total", "berny_records_out_total", "berny_dead_letters_total",
             "berny_batch_seconds_count", "berny_batch_seconds_sum")  # fmt: skip
    before = {name: value(name) for name in names}
    tail = Tail.__new__(Tail)
    tail._position = position
    tail.count(messages)
    return {name: value(name) - before[name] for name in names}


# -- the header --------------------------------------------------------------------------------------------------------


def test_header_names_the_input_record() -> None:
    """Among others, wherever it is."""
    assert source_of([("other", None), (HEADER, b"2:17:1764000000250")]) == (2, 17, 1764000000250)


@pytest.mark.parametrize("text", [None, b"", b"2:17", b"2:17:", b"a:b:c", b"1:2:3:4", b"\xff:1:1"])
def test_header_of_another_program(text: bytes | None) -> None:
    """It says nothing, and is no reason to end."""
    assert source_of([(HEADER, text)]) is None


def test_record_without_the_header() -> None:
    """What others write to the topic for dead letters is not the query's."""
    assert source_of(None) is None and source_of([]) is None and source_of([("other", b"1:2:3")]) is None


# -- the position ------------------------------------------------------------------------------------------------------


def test_position_begins_where_the_query_does() -> None:
    """And is a metric from then on."""
    assert Position("begins", {0: 5, 1: 0}).next == {0: 5, 1: 0}
    assert value("berny_input_offset", topic="begins", partition="0") == 5


def test_position_is_before_what_is_missing() -> None:
    """Output partitions are read in any order: what is ahead counts when what was missing is seen."""
    position = Position("missing", {0: 5})
    for offset, following in ((6, 5), (8, 5), (5, 7), (7, 9)):
        position.written(0, offset)
        assert position.next == {0: following}
    assert value("berny_input_offset", topic="missing", partition="0") == 9


def test_replay_changes_nothing() -> None:
    """A task that is run again writes its batch once more."""
    position = Position("replay", {0: 5})
    for offset in (5, 6, 5, 6, 3):
        position.written(0, offset)
    assert position.next == {0: 7} and not position._ahead[0]


def test_complete_batch_ends_the_wait() -> None:
    """A row of which nothing is written must not hold the position for ever; an older batch moves nothing back."""
    position = Position("batch", {0: 5, 1: 5})
    for offset in (6, 7, 9):
        position.written(0, offset)
    position.reach({0: 9, 1: 3})
    assert position.next == {0: 10, 1: 5} and not position._ahead[0]


def test_partition_that_was_added() -> None:
    """It is read from its beginning."""
    position = Position("added", {0: 5})
    position.written(1, 0)
    assert position.next == {0: 5, 1: 1}


# -- metrics -----------------------------------------------------------------------------------------------------------


def test_records_are_counted() -> None:
    """Dead letters too, and the longest time from one record to the other."""
    position = Position("counted", {0: 5, 1: 0})
    grown = counted(position, Message("0:5:4000"), Message("1:0:1000", "in.dlq"), Message("0:6:4900"))
    assert grown == {"berny_records_in_total": 3, "berny_records_out_total": 3, "berny_dead_letters_total": 1,
                     "berny_batch_seconds_count": 1, "berny_batch_seconds_sum": 4}  # fmt: skip
    assert position.next == {0: 7, 1: 1}


class Ends:
    """A consumer that is asked where a topic ends; it fails where there is no end."""

    def __init__(self, *ends: int | None) -> None:
        self.ends = iter(ends)

    def get_watermark_offsets(self, partition: TopicPartition, timeout: float) -> tuple[int, int]:
        """Return the next of the ends."""
        end = next(self.ends)
        if end is None:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
        return 0, end


def test_lag_is_of_records_that_should_have_been_seen() -> None:
    """What was written after the last look at the end may be on its way; brokers that are away leave the last end."""
    tail = Tail.__new__(Tail)
    tail._position = Position("lag", {0: 5, 1: 5})
    tail._offsets = Ends(9, 5, 12, 6, None, 20, 6, None)  # type: ignore[assignment]
    tail._end = {}
    seen = []
    for _ in range(4):
        tail._measure_lag()
        seen.append(value("berny_lag_records"))
    assert seen == [0, 4, 8, 8]
    tail._position.reach({0: 20})
    tail._measure_lag()
    assert value("berny_lag_records") == 1


def test_clock_of_a_broker_that_is_ahead() -> None:
    """A time is not negative."""
    assert counted(Position("clock", {}), Message("0:0:9000"))["berny_batch_seconds_sum"] == 0


def test_what_others_write_is_not_counted(caplog: pytest.LogCaptureFixture) -> None:
    """Nor what is no record; the consumer's error is told."""
    assert not any(
        counted(Position("others", {}), Message(None, "in.dlq"), Message("x"), Message(None, wrong=Error())).values()
    )
    assert [record.fields for record in caplog.records] == [{"reason": "1/2 brokers are down"}]  # type: ignore[attr-defined]
