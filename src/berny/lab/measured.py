"""What measurements belong to: a commit, and a host."""

from __future__ import annotations

import os
import platform
import subprocess

from berny.model.topology import CHECKOUT

# Measurements do not depend on documentation.
WORDS = [".", ":!docs", ":!*.md", ":!tests", ":!molecule"]


def commit() -> str:
    """Return the commit that results belong to: the last that changed more than documents, ``-dirty`` if changed since."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout.strip()

    dirty = "-dirty" if git("status", "--porcelain", "--", *WORDS) else ""
    return git("log", "-1", "--format=%h", "--", *WORDS) + dirty


def machine() -> str:
    """Return a description of the host: cores, memory, kernel."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} cores, {memory:.0f} GiB, Linux {platform.release()}"
