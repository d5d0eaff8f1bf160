"""The cache of what Python compiles of Ansible's modules on a node, in an interpreter of its own."""

from __future__ import annotations

import marshal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from berny.model.topology import CHECKOUT

RUN = "import os; os.geteuid = lambda: 0; import sitecustomize, thing; print(thing.value, os.environ.get('PYTHONPATH'))"


class Node:
    """A folder with the cache's code, an archive with a module, and the cache."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.cache = folder, folder / "cache"
        code = (CHECKOUT / "roles/node/templates/ansible-sitecustomize.py.j2").read_text()
        assert '"/run/berny/ansible"' in code
        (folder / "sitecustomize.py").write_text(code.replace("/run/berny/ansible", str(self.cache)))
        self.module("value = 1")

    def module(self, text: str) -> None:
        with zipfile.ZipFile(self.folder / "payload.zip", "w") as archive:
            archive.writestr("thing.py", text)

    def run(self) -> str:
        path = f"{self.folder}:{self.folder / 'payload.zip'}"
        done = subprocess.run(
            [sys.executable, "-S", "-c", RUN], env={"PYTHONPATH": path}, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()


@pytest.fixture
def node(tmp_path: Path) -> Node:
    """Return a node that has run nothing yet."""
    return Node(tmp_path)


def test_what_was_compiled_is_used_again_and_children_do_not_inherit_the_path(node: Node) -> None:
    assert node.run() == "1 None"
    (entry,) = node.cache.iterdir()
    entry.write_bytes(marshal.dumps(compile("value = 'cached'", "thing.py", "exec")))
    assert node.run() == "cached None"


def test_another_source_is_compiled(node: Node) -> None:
    assert node.run() == "1 None"
    node.module("value = 2")
    assert node.run() == "2 None"


@pytest.mark.parametrize("content", [b"", b"\0", b"garbage"])
def test_a_damaged_entry_is_compiled_again(node: Node, content: bytes) -> None:
    node.run()
    (entry,) = node.cache.iterdir()
    entry.write_bytes(content)
    assert node.run() == "1 None"


def test_a_folder_that_cannot_be_written_costs_the_cache_only(node: Node) -> None:
    node.cache.write_text("not a folder")
    assert node.run() == "1 None"
