"""Components as nodes have them, for tests of what runs on them."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import tempfile
from pathlib import Path

from berny.controller.artifacts import Store
from berny.controller.artifacts.store import cache_folder


def unpacked(component: str) -> Path:
    """Return a component's archive, unpacked once for each digest of it."""
    archive = Store().find(component) or Store().fetch(component)
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
