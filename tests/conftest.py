"""One cluster for all of these tests, made from nothing by what ``make lab`` calls.

``BERNY_LAB=lab pytest tests/cluster`` runs them on a lab that is there, and leaves it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from berny.lab.make import make
from support import NAME, Cluster, console, machines, remove, steps

RATE = 5


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """The cluster with the pipeline on it, and the simulator serving at a gentle rate."""
    given = "BERNY_LAB" in os.environ
    lab = machines(NAME, purge=not given)
    os.environ["BERNY_LAB"] = NAME
    with steps("cluster") as shown:
        make(lab, shown, console, RATE)
    with lab.locked():
        yield Cluster(lab)
    if not given:
        del os.environ["BERNY_LAB"]
        remove(NAME)
