"""Steps that show what runs, since when, and its progress."""

from __future__ import annotations

import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

Say = Callable[[str], None]
LAST_LINES = 40


def follow(command: Sequence[str], each: Callable[[str], None], **options: Any) -> tuple[int, list[str]]:
    """Run a command and pass on each line that it prints; return its exit code and its last lines."""
    last: deque[str] = deque(maxlen=LAST_LINES)
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                last.append(line.rstrip())
                each(line.rstrip())
        except BaseException:
            process.terminate()
            raise
    return process.returncode, list(last)


class Steps:
    """A live line per running step on a terminal; elsewhere plain lines, and one more every 15 s for a long step."""

    QUIET_SECONDS = 15

    def __init__(self, console: Console) -> None:
        self.console = console
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[said]}"),
        )
        self.live = Progress(*columns, console=console, transient=True) if console.is_terminal else None
        self.took: list[tuple[str, float]] = []
        self._lock = threading.Lock()

    def __enter__(self) -> Steps:
        if self.live:
            self.live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.live:
            self.live.stop()

    @contextmanager
    def step(self, title: str) -> Iterator[Say]:
        """Show a step while the block runs; yields a function that reports its progress."""
        since = time.monotonic()
        words, ended = "", threading.Event()
        task = self.live.add_task(title, said="", total=None) if self.live else None

        def say(said: str) -> None:
            nonlocal words
            words = said
            if self.live and task is not None:
                self.live.update(task, said=said)

        def remind() -> None:
            while not ended.wait(self.QUIET_SECONDS):
                line = f"  … {title}{words and f': {words}'} ({time.monotonic() - since:.0f} s)"
                self.console.print(line, highlight=False, markup=False, soft_wrap=True)

        if not self.live:
            threading.Thread(target=remind, daemon=True).start()
        try:
            yield say
        except BaseException:
            self.console.print(
                f"✘ {title} after {time.monotonic() - since:.0f} s", highlight=False, markup=False, soft_wrap=True
            )
            raise
        else:
            seconds = time.monotonic() - since
            with self._lock:
                self.took.append((title, seconds))
            tail = f": {words}" if words else ""
            self.console.print(f"✔ {title} {seconds:.1f} s{tail}", highlight=False, markup=False, soft_wrap=True)
        finally:
            ended.set()
            if self.live and task is not None:
                self.live.remove_task(task)
