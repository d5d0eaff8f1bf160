"""A query in micro-batches: when its stage ends and with which error, and how much waits. The jobs: test_customers_*.py."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from kafkas import Kafka
from prometheus_client import REGISTRY

from berny.runtime.kafka import Record
from berny.runtime.progress import Position
from berny.runtime.stage import ConfigurationError


@pytest.fixture(scope="module")
def microbatch(archive: Callable[[str], Path]) -> Iterator[ModuleType]:
    """The module, with Spark's Python of the cluster's archive."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(archive("spark") / "python"))
        from berny.runtime import microbatch

        yield microbatch


def value(name: str) -> float | None:
    """Return a metric of this process."""
    return REGISTRY.get_sample_value(name, {})


def test_an_error_of_the_function_is_kept(microbatch: ModuleType) -> None:
    """Spark returns its text alone, and whether a person has to act is lost."""

    def work(rows: Any, number: int) -> None:
        if number:
            raise ConfigurationError("run site.yml")

    guarded = microbatch.Guarded(work)
    guarded(None, 0)
    assert guarded.error is None
    with pytest.raises(ConfigurationError):
        guarded(None, 1)
    assert str(guarded.error) == "run site.yml"


class Query:
    """A query that ends by itself after so many looks."""

    lastProgress: Any = None

    def __init__(self, looks: int = 1 << 30) -> None:
        self.looks, self.stopped = looks, False

    def awaitTermination(self, timeout: float) -> bool:
        """Return whether it ended."""
        self.looks -= 1
        return self.looks < 0

    def stop(self) -> None:
        """End it."""
        self.stopped = True


class Watch:
    """A topic that is another one after so many looks; the stage is stopped then where ``stop`` is given."""

    topic = "one"

    def __init__(self, looks: int, stop: threading.Event | None = None) -> None:
        self.looks, self.stop = looks, stop

    def changed(self) -> bool:
        """Count."""
        self.looks -= 1
        if self.looks < 0 and self.stop:
            self.stop.set()
            return False
        return self.looks < 0


class Nothing:
    """No lag."""

    def measure(self, following: Any) -> None:
        """Return at once."""


def attend(microbatch: ModuleType, query: Query, watch: Watch, stop: threading.Event) -> None:
    """Watch a query."""
    slots = microbatch.Slots(lambda: 1, lambda: 1)
    microbatch.attend(query, watch, slots, Position("one", {0: 0}), Nothing(), stop)


def test_a_query_that_ended_is_started_again_by_the_unit(microbatch: ModuleType) -> None:
    with pytest.raises(RuntimeError, match="the query ended by itself"):
        attend(microbatch, Query(2), Watch(1 << 30), threading.Event())
    assert value("berny_ready") == 0


def test_a_query_ends_when_its_topic_is_another(microbatch: ModuleType) -> None:
    query = Query()
    with pytest.raises(RuntimeError, match="the topic one was deleted or recreated"):
        attend(microbatch, query, Watch(2), threading.Event())
    assert query.stopped


def test_a_query_ends_with_the_stage(microbatch: ModuleType) -> None:
    query, stop = Query(), threading.Event()
    attend(microbatch, query, Watch(2, stop), stop)
    assert query.stopped


def test_what_waits_is_measured(microbatch: ModuleType, kafka: Kafka) -> None:
    """In all partitions."""
    kafka.create("lag")
    kafka.publish(*(Record("lag", str(number).encode(), b"x") for number in range(30)))
    lag = microbatch.Lag(kafka.servers, "lag")
    lag.measure({0: 0, 1: 0, 2: 0})
    assert value("berny_lag_records") == 30
    lag.measure({0: 99, 1: 99, 2: 99})
    assert value("berny_lag_records") == 30, "not yet again"
    lag.close()
