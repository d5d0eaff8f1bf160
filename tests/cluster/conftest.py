"""One cluster for all of these tests, converged from bare machines by ``site.yml``.

``BERNY_LAB=lab pytest tests/cluster`` runs them on a lab that is there, and leaves it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from support import Cluster, machines, play, remove, steps

RATE = 5


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """The cluster with the pipeline on it, and the simulator serving at a gentle rate."""
    lab = machines(purge="BERNY_LAB" not in os.environ)
    with lab.locked():
        with steps("cluster") as shown:
            with shown.step("simulator"):
                lab.simulator.start("--rate", str(RATE))
            with shown.step("site.yml from bare machines"):
                play("site.yml")
            with shown.step("the pipeline starts"):
                play("playbooks/pipelines.yml", "-e", "do=start")
        yield Cluster(lab)
    remove()
