"""Style and types of everything; ``make lint`` runs the same."""

from __future__ import annotations

import subprocess

from berny.lab.plan import CHECKOUT


def test_lint() -> None:
    done = subprocess.run([CHECKOUT / "tests" / "lint"], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
