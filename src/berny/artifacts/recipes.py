"""How each archive is had, and the locks that hold its inputs: name, version and digest, never an address."""

from __future__ import annotations

import hashlib
import re
from functools import cache
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict

from berny.catalog import catalog_folder

LINE = re.compile(r"(?P<digest>[0-9a-f]{64})  (?P<name>\S+)")


class LockError(ValueError):
    """A lock file is malformed or missing; the message names it."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Vendor(_Strict):
    """A vendor's archive: where it is, what it hashes to and which of its files become which of ours."""

    url: str
    sha256: str | None = None
    """None where nobody has vouched for a digest yet; then this way is refused until an operator gives one."""
    members: dict[str, str]


class Recipe(_Strict):
    """One archive of the distribution."""

    name: str
    version: str
    title: str
    kind: Literal["jars", "spark", "go", "wheels", "source"]
    roots: list[str] = []
    """Maven coordinates that the lock is resolved from."""
    exclude: list[str] = []
    extra: dict[str, str] = {}
    """Folders taken out of a jar: name in the archive: ``group:artifact:version:classifier!folder``."""
    sdist: str | None = None
    vendor: Vendor | None = None

    @property
    def lock_file(self) -> Path:
        """The file that holds the digests of this recipe's inputs."""
        return recipes_folder() / f"{self.name}.lock"


def recipes_folder() -> Path:
    """Return ``ansible/catalog/archives``."""
    return catalog_folder().parent / "archives"


@cache
def load_recipes() -> dict[str, Recipe]:
    """Read all recipes by name."""
    recipes = {}
    for file in sorted(recipes_folder().glob("*.yml")):
        recipes[file.stem] = Recipe.model_validate({**yaml.safe_load(file.read_text()), "name": file.stem})
    return recipes


def read_lock(file: Path) -> dict[str, str]:
    """Read a lock: ``sha256  name`` a line, as sha256sum writes it; return digests by name.

    Raises:
        LockError: the file is missing or a line has another form.
    """
    if not file.exists():
        raise LockError(f"{file}: missing; `berny artifacts lock` writes it")
    locked = {}
    for number, line in enumerate(file.read_text().splitlines(), 1):
        if not line or line.startswith("#"):
            continue
        match = LINE.fullmatch(line)
        if not match:
            raise LockError(f"{file}:{number}: expected 'sha256  name', found {line!r}")
        locked[match["name"]] = match["digest"]
    return locked


def write_lock(file: Path, locked: dict[str, str], comment: str) -> None:
    """Write a lock, sorted by name."""
    lines = [f"# {comment}", *(f"{digest}  {name}" for name, digest in sorted(locked.items()))]
    file.write_text("\n".join(lines) + "\n")


def key(recipe: Recipe, *others: str) -> str:
    """Return the digest of a recipe, its lock and ``others`` (a toolchain, say): what a built archive is kept by."""
    digest = hashlib.sha256(recipe.model_dump_json().encode())
    for file in (recipe.lock_file, *sorted((recipes_folder() / recipe.name).glob("*"))):
        if file.exists():
            digest.update(file.read_bytes())
    for other in others:
        digest.update(other.encode())
    return digest.hexdigest()[:16]
