"""The molecule scenarios, one per role and one of the whole cluster, each alone from bare machines, with its idempotence."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from berny.controller.artifacts.cli import fetch_all
from berny.controller.artifacts.recipes import load_recipes
from berny.model.topology import CHECKOUT
from support import remove, steps

SCENARIOS = sorted(path.parent.name for path in (CHECKOUT / "molecule").glob("*/molecule.yml"))
LAB = "roles"
# Its first one may build the archives that the store does not have.
pytestmark = [pytest.mark.second_tier, pytest.mark.timeout(2400)]


@pytest.fixture
def bare() -> Iterator[str]:
    """The name of a lab that leaves no trace; the scenario makes its machines."""
    with steps("archives") as shown:
        fetch_all(list(load_recipes()), shown)
    remove(LAB)
    yield LAB
    remove(LAB)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_scenario(bare: str, scenario: str) -> None:
    molecule = Path(sys.executable).with_name("molecule")
    path = f"{molecule.parent}:{os.environ['PATH']}"
    with steps(f"molecule test -s {scenario}") as shown, shown.step(scenario):
        done = subprocess.run(
            [str(molecule), "test", "-s", scenario],
            cwd=CHECKOUT,
            env=os.environ | {"BERNY_LAB": bare, "PATH": path, "NO_COLOR": "1", "ANSIBLE_NOCOLOR": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=800,
        )
    assert done.returncode == 0, done.stdout[-6000:]
    assert "idempotence: Executed: Successful" in done.stdout, done.stdout[-3000:]
