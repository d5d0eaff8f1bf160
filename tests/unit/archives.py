"""Components as nodes have them, for tests of what runs on them."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, TypeVar

from berny.controller.artifacts import Store
from berny.controller.artifacts.cli import fetch_all
from berny.controller.artifacts.store import cache_folder
from support import steps


def unpacked(component: str) -> Path:
    """Return a component's archive, unpacked once for each digest of it.

    Where the store has none yet, it is fetched; if the lab's build does so at the moment, that is waited for.
    """
    archive = Store().find(component)
    if not archive:
        with steps(f"archive {component}") as shown:
            fetch_all([component], shown)
        archive = Store().resolve(component)
    home = cache_folder() / "unpacked" / f"{component}-{archive.sha256[:12]}"
    home.parent.mkdir(parents=True, exist_ok=True)
    with (home.parent / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not home.is_dir():
            for other in home.parent.glob(f"{component}-*"):
                shutil.rmtree(other)
            beside = Path(tempfile.mkdtemp(prefix=f".{component}-", dir=home.parent))
            subprocess.run(["tar", "--zstd", "-xf", archive.path, "-C", beside], check=True)
            beside.rename(home)
    return home


class Server(Protocol):
    """A server of a component's archive, with its files in a folder."""

    def __init__(self, folder: Path, home: Path) -> None: ...

    def make(self) -> None:
        """Start it, and wait until it responds."""

    def close(self) -> None:
        """Kill it."""


S = TypeVar("S", bound=Server)


@contextmanager
def running(server: type[S], home: Path) -> Iterator[S]:
    """Run a server, and remove its files afterwards."""
    folder = Path(tempfile.mkdtemp(prefix=f"berny-{server.__name__.lower()}-"))
    made = server(folder, home)
    try:
        made.make()
        yield made
    finally:
        made.close()
        shutil.rmtree(folder, ignore_errors=True)
