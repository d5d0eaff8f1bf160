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


def test_what_waits_is_measured(microbatch: ModuleType, kafka: Kafka) -> None:
    """In all partitions."""
    kafka.create("lag")
    kafka.publish(*(Record("lag", str(number).encode(), b"x") for number in range(30)))
    position = Position("lag", {0: 0, 1: 0, 2: 0})
    lag = microbatch.Lag(kafka.servers, position, threading.Event())
    lag.follow(0)
    assert value("berny_lag_records") == 30
    position.reach({0: 99, 1: 99, 2: 99})
    lag.follow(0)
    assert value("berny_lag_records") == 30, "not yet again"
    lag.close()
