"""How each archive is obtained, and the locks of its inputs: name, version and digest, never an address."""

from __future__ import annotations

import hashlib
import os
import re
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from berny.model.catalog import ROLES, read_yaml
from berny.model.manifest import PIPELINES

OWN = "berny"
"""The archive of Berny's own code that all nodes run; the code of a pipeline is in ``berny-PIPELINE``."""
LINE = re.compile(r"(?P<digest>[0-9a-f]{64})  (?P<name>\S+)")


class LockError(ValueError):
    """A lock file is malformed or missing; the message names it."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Signature(_Strict):
    """Whose detached signature an archive must have; it is at the archive's address with ``.asc`` appended."""

    key: str
    """Where the vendor publishes its key."""
    fingerprint: str = Field(pattern=r"^[0-9A-F]{40}$")
    """The primary key's: a vendor renews its signing subkeys."""


class Vendor(_Strict):
    """A vendor's archive: its address, how it is verified, and which of its files become which of ours."""

    url: str
    sha256: str | None = None
    signature: Signature | None = None
    """How it is verified if no digest is known."""
    wanted: str | None = None
    """The digest that an operator sets: an archive built from another one is not accepted."""
    members: dict[str, str] = {}
    holds: list[str] = []
    """Files below its only folder by which its layout is verified, if it is used as a whole."""
    named: bool = False
    """An operator's archive that replaces the vendor's."""

    @model_validator(mode="after")
    def _vouched_for(self) -> Vendor:
        if not self.sha256 and not self.signature:
            raise ValueError("has neither sha256 nor signature: nobody vouches for it")
        return self


class Recipe(_Strict):
    """One archive of the distribution."""

    name: str
    version: str
    title: str
    kind: Literal["jars", "spark", "go", "vendor", "wheels", "source"]
    optional: bool = False
    """If it can't be obtained, the rest is installed without it."""
    roots: list[str] = []
    """Maven coordinates that the lock is resolved from."""
    exclude: list[str] = []
    """What is left out: coordinates, and folders of an sdist, which have no colon."""
    alone: list[str] = []
    """Coordinates that are locked without what they depend on."""
    extra: dict[str, str] = {}
    """Folders extracted from a jar: name in the archive: ``group:artifact:version:classifier!folder``."""
    sdist: str | None = None
    vendor: Vendor | None = None

    @property
    def pipeline(self) -> str:
        """The pipeline whose code it holds, if any; its recipe is the folder's content, not a file."""
        return self.name.removeprefix(f"{OWN}-") if self.kind == "source" and self.name != OWN else ""

    @property
    def file(self) -> Path:
        """The recipe's file."""
        return recipe_files()[self.name]

    @property
    def lock_file(self) -> Path:
        """The file that holds the digests of this recipe's inputs."""
        return self.file.with_suffix(".lock")

    @property
    def folder(self) -> Path:
        """The Go module to build, if there is one."""
        return self.file.with_suffix("")

    @property
    def inputs(self) -> list[Path]:
        """The files beside this recipe that determine its archive: its lock, and the module's files."""
        return [file for file in (self.lock_file, *sorted(self.folder.glob("*"))) if file.exists()]


def recipe_files() -> dict[str, Path]:
    """Return ``roles/ROLE/archives/NAME.yml`` by name."""
    return {file.stem: file for file in sorted(ROLES.glob("*/archives/*.yml"), key=lambda file: file.stem)}


@cache
def load_recipes() -> dict[str, Recipe]:
    """Read all recipes by name, and add one for each pipeline."""
    recipes = {}
    for name, file in recipe_files().items():
        recipes[name] = Recipe.model_validate({**read_yaml(file), "name": name})
    if own := recipes.get(OWN):
        for manifest in sorted(PIPELINES.glob("*/pipeline.yml")):
            name, title = f"{OWN}-{manifest.parent.name}", read_yaml(manifest)["title"]
            recipes[name] = own.model_copy(update={"name": name, "title": f"The pipeline: {title}"})
    return recipes


def as_given(recipe: Recipe, archive: str = "", sha256: str = "") -> Recipe:
    """Return the recipe with an operator's archive, a path or an address, and its digest, instead of the vendor's.

    Without both, they come from the environment: ``BERNY_NAME_ARCHIVE`` and ``BERNY_NAME_SHA256``.
    """
    if not recipe.vendor:
        return recipe
    if not archive and not sha256:
        archive, sha256 = (os.environ.get(f"BERNY_{recipe.name.upper()}_{word}", "") for word in ("ARCHIVE", "SHA256"))
    # The vendor's digest does not apply to another archive.
    own: dict[str, Any] = {"wanted": sha256 or None, "sha256": sha256 or recipe.vendor.sha256}
    if archive:
        own |= {"url": archive, "sha256": sha256 or None, "named": True}
    return recipe.model_copy(update={"vendor": recipe.vendor.model_copy(update=own)})


def not_run(recipe: Recipe) -> str:
    """Return the line for an optional archive that is not in the store, and how to add it."""
    variable, name = f"BERNY_{recipe.name.upper()}", recipe.name
    return (
        f"NOT RUN: {name} (archive not in the store: berny artifacts fetch {name} downloads {recipe.version} where "
        f"its vendor can be reached, with {variable}_ARCHIVE=FILE_OR_URL {variable}_SHA256=DIGEST another; then site.yml)"
    )


def read_lock(file: Path) -> dict[str, str]:
    """Read a lock: ``sha256  name`` a line, as sha256sum writes it; return digests by name.

    Raises:
        LockError: the file is missing or a line is malformed.
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
    """Return the digest of a recipe, its lock and ``others`` (a toolchain, say): the key of its archive in the store."""
    # Whether it is optional, its address, how it is verified and whose dependencies are locked do not change the archive.
    # The index records which one was used: unless the operator names one, the existing one is accepted.
    beside: dict[str, Any] = {"optional": True, "alone": True, "vendor": set(Vendor.model_fields) - {"members"}}
    digest = hashlib.sha256(recipe.model_dump_json(exclude=beside).encode())
    for file in recipe.inputs:
        digest.update(file.read_bytes())
    for other in others:
        digest.update(other.encode())
    return digest.hexdigest()[:16]
