"""Progress where there is no terminal: a line when a step ends, and reminders while it runs, also where it says nothing."""

from __future__ import annotations

import io
import time

import pytest
from rich.console import Console

from berny.controller.progress import Steps


@pytest.fixture
def output(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """Return what is printed, with a reminder every 20 ms."""
    monkeypatch.setattr(Steps, "QUIET_SECONDS", 0.02)
    return io.StringIO()


def wait_for(output: io.StringIO, text: str) -> None:
    deadline = time.monotonic() + 20
    while text not in output.getvalue():
        assert time.monotonic() < deadline, output.getvalue()
        time.sleep(0.005)


def test_a_silent_step_is_reminded_of(output: io.StringIO) -> None:
    with Steps(Console(file=output)) as steps, steps.step("build") as say:
        wait_for(output, "  … build (0 s)\n")
        say("half of it")
        wait_for(output, "  … build: half of it (0 s)\n")
    assert output.getvalue().splitlines()[-1].startswith("✔ build 0.")
    ended = output.getvalue()
    time.sleep(0.1)
    assert output.getvalue() == ended


def test_a_failed_step_is_named(output: io.StringIO) -> None:
    with pytest.raises(ValueError, match="broken"), Steps(Console(file=output)) as steps, steps.step("build"):
        raise ValueError("broken")
    assert "✘ build after 0 s" in output.getvalue()
