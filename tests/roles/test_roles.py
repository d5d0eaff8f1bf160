"""One molecule scenario per role, in dependency order on one lab, each with its idempotence."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from berny.lab.plan import CHECKOUT
from support import machines, remove, steps

ORDER = [
    "node",
    "firewall",
    "service",
    "zookeeper",
    "kafka",
    "hdfs",
    "yarn",
    "spark",
    "influxdb",
    "grafana",
    "control",
    "pipeline",
]
LAB = "roles"


@pytest.fixture(scope="module")
def lab() -> Iterator[str]:
    """A lab without a trace of an earlier run."""
    machines(LAB, purge=True)
    yield LAB
    remove(LAB)


def test_every_role_has_a_scenario() -> None:
    assert sorted(ORDER) == sorted(path.name for path in (CHECKOUT / "roles").iterdir())


@pytest.mark.parametrize("role", ORDER)
def test_role(lab: str, role: str) -> None:
    molecule = Path(sys.executable).with_name("molecule")
    path = f"{molecule.parent}:{os.environ['PATH']}"
    with steps(f"molecule test -s {role}") as shown, shown.step(role):
        done = subprocess.run(
            [str(molecule), "test", "-s", role, "--destroy", "never"],
            cwd=CHECKOUT,
            env=os.environ | {"BERNY_LAB": lab, "PATH": path, "NO_COLOR": "1", "ANSIBLE_NOCOLOR": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=800,
        )
    assert done.returncode == 0, done.stdout[-6000:]
    assert "idempotence: Executed: Successful" in done.stdout, done.stdout[-3000:]
