"""What a stage with a Spark query shows, and when it ends. Its columns are in test_columns.py; all of it runs on the lab."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from archives import unpacked
from prometheus_client import REGISTRY


@pytest.fixture(scope="module")
def stream() -> Iterator[ModuleType]:
    """The module, with Spark's Python of the cluster's archive."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(unpacked("spark") / "python"))
        from berny.runtime import stream

        yield stream


def value(name: str, **labels: str) -> float | None:
    """Return a metric of this process."""
    return REGISTRY.get_sample_value(name, labels)


def progress(rows: int, begin: Any, end: Any, latest: Any) -> Any:
    """Return a batch's progress as Spark 4.2 tells it."""
    from pyspark.sql.streaming.listener import StreamingQueryProgress

    source = {"description": "KafkaV2[Subscribe[one]]", "startOffset": begin, "endOffset": end, "latestOffset": latest,
              "numInputRows": rows, "inputRowsPerSecond": 1.0, "processedRowsPerSecond": 1.0, "metrics": {}}  # fmt: skip
    body = {"id": "0" * 8 + "-0000-0000-0000-" + "0" * 12, "runId": "0" * 8 + "-0000-0000-0000-" + "0" * 12,
            "name": "p-s", "timestamp": "2025-11-24T12:00:00.000Z", "batchId": 7, "batchDuration": 250,
            "durationMs": {}, "eventTime": {}, "stateOperators": [], "sources": [source], "numInputRows": rows,
            "inputRowsPerSecond": 1.0, "processedRowsPerSecond": 1.0, "observedMetrics": {},
            "sink": {"description": "KafkaTable", "numOutputRows": rows, "metrics": {}}}  # fmt: skip
    return SimpleNamespace(progress=StreamingQueryProgress.fromJson(body))


def test_progress_becomes_metrics(stream: ModuleType) -> None:
    """Records, the next offset of each partition, and how many records wait."""
    before = value("berny_records_in_total") or 0, value("berny_batch_seconds_count") or 0
    listener = stream.Listener("one")
    listener.onQueryStarted(None)
    assert value("berny_ready") == 1
    end, latest = {"one": {"0": 12, "1": 7}}, {"one": {"0": 15, "1": 7}}
    listener.onQueryProgress(progress(9, {"one": {"0": 5, "1": 5}}, json.dumps(end), json.dumps(latest)))
    assert value("berny_records_in_total") == before[0] + 9
    assert value("berny_batch_seconds_count") == before[1] + 1
    offsets = [value("berny_input_offset", topic="one", partition=partition) for partition in ("0", "1")]
    assert offsets == [12, 7] and value("berny_lag_records") == 3
    listener.onQueryIdle(None)
    assert value("berny_lag_records") == 0
    listener.onQueryTerminated(None)
    assert value("berny_ready") == 0


@pytest.mark.parametrize("latest", [None, "None", "null", '{"another": {"0": 90}}'])
def test_batch_that_a_restart_replays_has_no_latest_offsets(stream: ModuleType, latest: str | None) -> None:
    """It is no reason to end, and nothing is made up of it."""
    stream.Listener("one").onQueryProgress(progress(0, None, '{"one": {"0": 12}}', latest))
    assert value("berny_lag_records") == 0


class Query:
    """A query that ends by itself after so many looks."""

    def __init__(self, ends_after: int = 1 << 30) -> None:
        self.left = ends_after
        self.stopped = False

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


def test_query_that_ended_by_itself_is_started_again(stream: ModuleType) -> None:
    """By the unit: the stage fails."""
    with pytest.raises(RuntimeError, match="the query ended by itself"):
        stream.attend(Query(3), Watch(1 << 30), threading.Event())


def test_query_ends_when_its_topic_is_another(stream: ModuleType) -> None:
    """It would read on where the former one was; the next start finds where to begin."""
    query = Query()
    with pytest.raises(RuntimeError, match="the topic one was deleted, or is another one by now: starting again"):
        stream.attend(query, Watch(3), threading.Event())
    assert query.stopped


def test_query_ends_with_the_stage(stream: ModuleType) -> None:
    """In order, and this is no failure."""
    query, stop = Query(), threading.Event()
    stream.attend(query, Watch(3, stop), stop)
    assert query.stopped
