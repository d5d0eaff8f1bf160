"""Style and types of everything; ``make lint`` runs the same."""

from __future__ import annotations

import subprocess

import pytest

from berny.lab.plan import CHECKOUT

LINT = CHECKOUT / "tests" / "lint"
CHECKS = subprocess.run([LINT, "--list"], capture_output=True, text=True, check=True).stdout.split()


@pytest.mark.parametrize("check", CHECKS)
def test_style(check: str) -> None:
    done = subprocess.run([LINT, check], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
