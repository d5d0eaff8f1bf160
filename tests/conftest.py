"""One cluster for all tests that need one, made from nothing by what ``make lab`` calls.

``BERNY_LAB=lab pytest tests/cluster`` runs them on a lab that is there, and leaves it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from berny.lab.lab import Lab
from berny.lab.make import make
from suite import Suite
from support import NAME, RATE, Cluster, console, machines, remove, steps


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add what ``make test-all`` needs."""
    parser.addoption(
        "--continue", action="store_true", help="leave out what passed before at this revision, and keep what passes"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register the suite's own behaviour."""
    config.pluginmanager.register(Suite(config), "suite")


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """The cluster with the pipeline on it, and the simulator serving at a gentle rate."""
    suite: Suite = request.config.pluginmanager.get_plugin("suite")  # type: ignore[assignment]
    if "BERNY_LAB" in os.environ:
        lab = machines(NAME, purge=False)
        with steps("cluster") as shown:
            make(lab, shown, console, RATE)
        with Cluster(lab).held() as suite.cluster:
            yield suite.cluster
        suite.cluster = None
        return
    console.print(f"\n-- lab {NAME}", highlight=False)
    failed = suite.begin().wait()
    if failed:
        request.session.shouldfail = "the lab was not converged, so nothing that needs it was tested"
        pytest.fail(failed, pytrace=False)
    os.environ["BERNY_LAB"] = NAME
    lab = Lab.existing(NAME)
    with Cluster(lab).held() as suite.cluster:
        yield suite.cluster
    suite.cluster = None
    del os.environ["BERNY_LAB"]
    remove(NAME)
