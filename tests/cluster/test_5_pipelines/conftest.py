"""The cluster with all pipelines, and what ran before."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from berny.lab.simulation import load_simulations
from support import Cluster, beside


@pytest.fixture(scope="package")
def run() -> str:
    """The run that all pipelines are under load for; another one each time, since a lab may be used again."""
    return f"all-{time.time():.0f}"


@pytest.fixture(scope="package")
def read() -> str:
    """The run of customers whose file is read independently."""
    return f"read-{time.time():.0f}"


@pytest.fixture(scope="package")
def before(cluster: Cluster) -> dict[tuple[str, str], str]:
    """What ran before the other pipelines."""
    return cluster.processes()


@pytest.fixture(scope="package", autouse=True)
def every(cluster: Cluster, before: dict[tuple[str, str], str]) -> Iterator[Cluster]:
    """The cluster with all pipelines; whatever happens, the others are gone afterwards."""
    with beside(cluster, *(name for name in load_simulations() if name not in cluster.lab.plan.pipelines)) as found:
        yield found
