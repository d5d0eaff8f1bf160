"""Style and types of everything; ``make lint`` runs the same."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import IO

import pytest

from berny.model.topology import CHECKOUT

LINT = CHECKOUT / "tests" / "lint"
CHECKS = subprocess.run([LINT, "--list"], capture_output=True, text=True, check=True).stdout.split()
SLOW = {"mypy", "ansible-lint"}
SECONDS = 900
Begun = dict[str, tuple[subprocess.Popen[bytes], IO[bytes]]]


@pytest.fixture(scope="session", autouse=True)
def begun(request: pytest.FixtureRequest) -> Iterator[Begun]:
    """The slow checks, begun with the quick ones and asked for after the unit tests."""
    chosen = {check for check in SLOW for item in request.session.items if item.name == f"test_style[{check}]"}
    running: Begun = {}
    with ExitStack() as files:
        for check in sorted(chosen):
            out = files.enter_context(tempfile.TemporaryFile())
            words = {"stdout": out, "stderr": subprocess.STDOUT, "stdin": subprocess.DEVNULL, "start_new_session": True}
            running[check] = subprocess.Popen([LINT, check], **words), out  # type: ignore[call-overload]
        yield running
        for process, _ in running.values():
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.mark.parametrize(
    "check", [pytest.param(check, marks=[pytest.mark.beside] if check in SLOW else []) for check in CHECKS]
)
def test_style(begun: Begun, check: str) -> None:
    if check in begun:
        process, out = begun[check]
        code = process.wait(SECONDS)
        out.seek(0)
        said = out.read().decode()
    else:
        done = subprocess.run([LINT, check], capture_output=True, text=True, timeout=SECONDS)
        code, said = done.returncode, done.stdout + done.stderr
    assert code == 0, said
