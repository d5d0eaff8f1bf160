"""A copy of the checkout with the toys: a component, a pipeline, and their lines in the inventory of labs."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import support
from berny.model.topology import CHECKOUT

TOYS = CHECKOUT / "tests" / "contract" / "toy"
FOLDERS = {"roles/shelf": "roles/shelf", "molecule/shelf": "molecule/shelf", "pipelines/toy": "src/berny/pipelines/toy"}
"""Where the folders of the toys belong."""
INVENTORY = "inventory/lab/hosts.yml"
NODE = "worker_0"
LINES = f"    shelf: {{hosts: {{{NODE}: null}}}}\n"
"""Of the inventory: its list of groups is at its end."""


class Scratch:
    """A repository of its own, whose one commit is the checkout as it is now."""

    def __init__(self, path: Path) -> None:
        self.path = path
        listed = subprocess.check_output(["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=CHECKOUT)
        for name in sorted(set(listed.decode().split("\0")) - {""}):
            # What was removed and not committed is listed as well.
            if (CHECKOUT / name).exists():
                (path / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(CHECKOUT / name, path / name, follow_symlinks=False)
        self.git("init", "-q")
        self.git("add", "-A", "-f")
        self.git("commit", "-q", "-m", "The checkout")

    def git(self, *words: str) -> str:
        """Run git on it and return what it prints."""
        who = ["-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=false"]
        return subprocess.check_output(["git", *who, *words], cwd=self.path, text=True)

    def add_toys(self) -> None:
        """Add the folders and the lines of the toys."""
        for source, target in FOLDERS.items():
            shutil.copytree(TOYS / source, self.path / target, ignore=shutil.ignore_patterns("__pycache__"))
        with (self.path / INVENTORY).open("a") as hosts:
            hosts.write(LINES)

    def python(self, code: str, *words: str, **variables: str) -> Any:
        """Run code with the packages of this copy; return what it prints as JSON."""
        environment = support.environment(self.path) | variables
        done = subprocess.run(
            [sys.executable, "-c", code, *words], cwd=self.path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def berny(self, *words: str, **options: Any) -> str:
        """Run its command ``berny`` and return what it prints."""
        return support.berny(*words, checkout=self.path, **options)

    def play(self, playbook: str, *options: str, ok: bool = True) -> support.Play:
        """Run one of its plays."""
        return support.play(playbook, *options, ok=ok, checkout=self.path)


def made(folder: Path) -> Scratch:
    """Return a copy with the toys."""
    # Ansible reads no configuration in a folder that everybody may write to.
    folder.chmod(0o755)
    scratch = Scratch(folder)
    scratch.add_toys()
    return scratch
