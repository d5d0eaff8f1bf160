"""When a stage with a Spark query is ready, and when it ends. Its columns are in test_columns.py; all runs on the lab."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from prometheus_client import REGISTRY

from berny.runtime.progress import Position


@pytest.fixture(scope="module")
def stream(archive: Callable[[str], Path]) -> Iterator[ModuleType]:
    """The module, with Spark's Python of the cluster's archive."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(archive("spark") / "python"))
        from berny.runtime import stream

        yield stream


def value(name: str, **labels: str) -> float | None:
    """Return a metric of this process."""
    return REGISTRY.get_sample_value(name, labels)


def progress(end: str | None) -> Any:
    """Return a batch's progress as Spark 4.2 tells it."""
    from pyspark.sql.streaming.listener import StreamingQueryProgress

    source = {"description": "KafkaV2[Subscribe[one]]", "startOffset": None, "endOffset": end, "latestOffset": None,
              "numInputRows": 9, "inputRowsPerSecond": 1.0, "processedRowsPerSecond": 1.0, "metrics": {}}  # fmt: skip
    body = {"id": "0" * 8 + "-0000-0000-0000-" + "0" * 12, "runId": "0" * 8 + "-0000-0000-0000-" + "0" * 12,
            "name": "p-s", "timestamp": "2025-11-24T12:00:00.000Z", "batchId": 7, "batchDuration": 250,
            "durationMs": {}, "eventTime": {}, "stateOperators": [], "sources": [source], "numInputRows": 9,
            "inputRowsPerSecond": 1.0, "processedRowsPerSecond": 1.0, "observedMetrics": {},
            "sink": {"description": "KafkaTable", "numOutputRows": 9, "metrics": {}}}  # fmt: skip
    return StreamingQueryProgress.fromJson(body)


def test_end_of_a_batch(stream: ModuleType) -> None:
    """Of the topic that is read; there is none before the first batch is complete."""
    end = json.dumps({"one": {"0": 12, "1": 7}})
    assert stream.end_offsets(progress(end), "one") == {0: 12, 1: 7}
    assert stream.end_offsets(progress(end), "another") == {}
    assert stream.end_offsets(None, "one") == {}


@pytest.mark.parametrize("end", [None, "None", "null"])
def test_batch_without_an_end(stream: ModuleType, end: str | None) -> None:
    """It is no reason to end, and nothing is made up of it."""
    assert stream.end_offsets(progress(end), "one") == {}


# -- task slots --------------------------------------------------------------------------------------------------------


def test_stage_waits_for_a_slot_for_each_partition(stream: ModuleType, caplog: pytest.LogCaptureFixture) -> None:
    """It says once a minute how many there are of how many, in its journal and its metrics."""
    counts = iter([0, 2, 3])
    slots = stream.Slots(lambda: next(counts), lambda: 3)
    assert not slots.enough() and value("berny_waits", what="task slots: 0 of 3") == 1
    assert not slots.enough() and value("berny_waits", what="task slots: 2 of 3") == 1
    assert value("berny_waits", what="task slots: 0 of 3") is None
    assert slots.enough() and value("berny_waits", what="task slots: 2 of 3") is None
    told = [record for record in caplog.records if record.levelname == "WARNING"]
    assert [record.fields for record in told] == [{"slots": 0, "needed": 3}]  # type: ignore[attr-defined]


def test_stage_that_waits_for_slots_can_be_stopped(stream: ModuleType) -> None:
    """At once; a query is not started then."""
    stop = threading.Event()
    stop.set()
    assert not stream.Slots(lambda: 2, lambda: 3).wait(stop)
    assert stream.Slots(lambda: 3, lambda: 3).wait(stop)


# -- its end -----------------------------------------------------------------------------------------------------------


class Query:
    """A query that ends by itself after so many looks."""

    def __init__(self, ends_after: int = 1 << 30) -> None:
        self.left = ends_after
        self.stopped = False
        self.lastProgress: Any = None

    def awaitTermination(self, timeout: float) -> bool:
        """Tell whether it ended."""
        self.left -= 1
        return self.left < 0

    def stop(self) -> None:
        """End it."""
        self.stopped = True


class Watch:
    """A topic that is another one after so many looks; the stage is stopped then where ``stop`` is given."""

    topic = "one"

    def __init__(self, looks: int, stop: threading.Event | None = None) -> None:
        self.looks = looks
        self.stop = stop

    def changed(self) -> bool:
        """Count."""
        self.looks -= 1
        if self.looks < 0 and self.stop:
            self.stop.set()
            return False
        return self.looks < 0


class Tail:
    """Output topics to which nothing is written."""

    def follow(self, seconds: float) -> None:
        """Return at once."""


def attend(stream: ModuleType, query: Query, watch: Watch, stop: threading.Event, slots: int = 3) -> Position:
    """Watch a query of a topic with three partitions, and return where it is in the end."""
    position = Position("one", dict.fromkeys(range(3), 5))
    needed = stream.Slots(lambda: slots, lambda: len(position.next))
    stream.attend(query, watch, needed, Tail(), position, stop)
    return position


def test_query_that_ended_by_itself_is_started_again(stream: ModuleType) -> None:
    """By the unit: the stage fails."""
    with pytest.raises(RuntimeError, match="the query ended by itself"):
        attend(stream, Query(3), Watch(1 << 30), threading.Event())
    assert value("berny_ready") == 0


def test_query_ends_when_its_topic_is_another(stream: ModuleType) -> None:
    """It would read on where the former one was; the next start finds where to begin."""
    query = Query()
    with pytest.raises(RuntimeError, match="the topic one was deleted or recreated: starting again"):
        attend(stream, query, Watch(3), threading.Event())
    assert query.stopped


def test_query_ends_with_the_stage(stream: ModuleType) -> None:
    """In order, and this is no failure."""
    query, stop = Query(), threading.Event()
    attend(stream, query, Watch(3, stop), stop)
    assert query.stopped


def test_complete_batch_counts(stream: ModuleType) -> None:
    """What it has written need not have been seen."""
    query, stop = Query(), threading.Event()
    query.lastProgress = progress('{"one": {"0": 12, "1": 4}}')
    assert attend(stream, query, Watch(3, stop), stop).next == {0: 12, 1: 5, 2: 5}


@pytest.mark.parametrize("slots", [2, 3])
def test_stage_is_ready_with_enough_slots(stream: ModuleType, slots: int) -> None:
    """While one is missing, a partition is not read."""
    stop, seen = threading.Event(), []

    class Looks(Watch):
        def changed(self) -> bool:
            seen.append(value("berny_ready"))
            return super().changed()

    attend(stream, Query(), Looks(3, stop), stop, slots)
    assert seen == [float(slots == 3)] * 4
    assert value("berny_ready") == 0
