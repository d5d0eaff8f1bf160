"""The store: archives under the XDG cache folder, keyed by the digest of their inputs."""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from berny.controller.artifacts import mirror, ways
from berny.controller.artifacts.assemble import sha256_file, write_archive
from berny.controller.artifacts.errors import ArtifactMissing, SupplyError, WrongDigest
from berny.controller.artifacts.mirror import Index
from berny.controller.artifacts.recipes import Recipe, as_given, load_recipes

Say = Callable[[str], None]
KEPT = 3


@dataclass(frozen=True)
class Archive:
    """An archive of the store."""

    name: str
    version: str
    path: Path
    sha256: str


def cache_folder() -> Path:
    """Return Berny's folder below the XDG cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "berny"


class Store:
    """Archives by name. The index file is written last, so an incomplete archive is never found."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or cache_folder() / "store"

    def recipe(self, name: str, archive: str = "", sha256: str = "") -> Recipe:
        """Return the recipe of an archive; ``archive`` and ``sha256`` are an operator's, instead of the vendor's.

        Raises:
            SupplyError: there is no recipe of that name.
        """
        try:
            recipe = load_recipes()[name]
        except KeyError:
            raise SupplyError(f"no archive {name!r}; there are {', '.join(load_recipes())}") from None
        return as_given(recipe, archive, sha256)

    def find(self, name: str, archive: str = "", sha256: str = "") -> Archive | None:
        """Return the archive of the current recipe and lock, or None; sizes are compared, not digests."""
        recipe = self.recipe(name, archive, sha256)
        index = self.folder / name / f"{ways.key(recipe)}.json"
        try:
            facts = json.loads(index.read_text())
            path = index.with_name(facts["file"])
            if path.stat().st_size != facts["bytes"]:
                return None
            if recipe.vendor and recipe.vendor.wanted not in (None, facts.get("source")):
                return None
            return Archive(name, facts["version"], path, facts["sha256"])
        except (OSError, ValueError, KeyError):
            return None

    def resolve(self, name: str, archive: str = "", sha256: str = "") -> Archive:
        """Return an archive; Berny's own code and an operator's archive are packed on demand, others have to be in the store.

        Raises:
            ArtifactMissing: it is not in the store.
        """
        found, recipe = self.find(name, archive, sha256), self.recipe(name, archive, sha256)
        if not found and (recipe.kind == "source" or (recipe.vendor and recipe.vendor.named)):
            found = self.fetch(name, archive=archive, sha256=sha256)
        if not found:
            raise ArtifactMissing(f"the archive {name} is not in {self.folder}: run `berny artifacts fetch {name}`")
        return found

    def fetch(self, name: str, say: Say = lambda words: None, archive: str = "", sha256: str = "") -> Archive:
        """Obtain an archive in the first way that works, store it, and return it.

        Raises:
            SupplyError: no way worked; the message has the reason for each.
        """
        recipe = self.recipe(name, archive, sha256)
        with self._locked(name):
            found = self.find(name, archive, sha256) or self._mirrored(recipe, say)
            if found:
                return found
            folder = self.folder / name
            with tempfile.TemporaryDirectory(prefix=".making-", dir=folder) as scratch:
                members, source = ways.members(recipe, Path(scratch), say)
                say("packing")
                beside = Path(scratch) / "archive"
                digest = write_archive(members, beside)
                version = ways.version(recipe, members)
                target = folder / f"{name}-{version}-{digest[:12]}.tar.zst"
                _sync(beside)
                beside.rename(target)
            facts = {"file": target.name, "sha256": digest, "bytes": target.stat().st_size, "version": version}
            if source:
                facts["source"] = source
            _write(folder / f"{ways.key(recipe)}.json", json.dumps(facts))
            self._prune(folder, target)
            return Archive(name, version, target, digest)

    def adopt(self, name: str, index: Index, have: Callable[[Path], None]) -> Archive:
        """Store an archive that was built elsewhere: ``have`` writes it to a path; it can be found only after it is verified.

        Raises:
            WrongDigest: it is not the one in its index, or a jar in it is not the locked one.
        """
        with self._locked(name):
            return self.find(name) or self._adopt(self.recipe(name), index, have)

    def _adopt(self, recipe: Recipe, index: Index, have: Callable[[Path], None]) -> Archive:
        folder = self.folder / recipe.name
        target, beside = folder / index.file, folder / f".{index.file}"
        try:
            have(beside)
            found = sha256_file(beside)
            if found != index.sha256:
                raise WrongDigest(index.file, index.sha256, found, "its index")
            mirror.verify_lock(recipe, beside)
            _sync(beside)
            beside.rename(target)
        finally:
            beside.unlink(missing_ok=True)
        _write(folder / f"{ways.key(recipe)}.json", index.model_dump_json(exclude_none=True))
        self._prune(folder, target)
        return Archive(recipe.name, index.version, target, index.sha256)

    def _mirrored(self, recipe: Recipe, say: Say) -> Archive | None:
        """Return an archive of the operator's mirror, or None if there is no mirror or it does not have it."""
        if not mirror.base() or recipe.kind == "source" or (recipe.vendor and recipe.vendor.named):
            return None
        try:
            index = mirror.ask(recipe, ways.key(recipe))
            return self._adopt(recipe, index, lambda beside: mirror.take(recipe.name, index, beside, say))
        except WrongDigest:
            raise
        except SupplyError as error:
            say(f"{error}; trying the next way")
            return None

    def verify(self, name: str) -> Archive:
        """Verify an archive again; remove it from the index if it changed.

        Raises:
            ArtifactMissing: it is not in the store.
            WrongDigest: it changed since it was written.
        """
        archive = self.resolve(name)
        found = sha256_file(archive.path)
        if found != archive.sha256:
            (self.folder / name / f"{ways.key(self.recipe(name))}.json").unlink(missing_ok=True)
            raise WrongDigest(str(archive.path), archive.sha256, found, "the store's index")
        return archive

    @contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        folder = self.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / ".lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    @staticmethod
    def _prune(folder: Path, current: Path) -> None:
        archives = sorted(folder.glob("*.tar.zst"), key=lambda path: path.stat().st_mtime, reverse=True)
        for old in [path for path in archives if path != current][KEPT - 1 :]:
            old.unlink()
        for index in folder.glob("*.json"):
            try:
                stale = not (folder / json.loads(index.read_text())["file"]).exists()
            except (ValueError, KeyError, TypeError):
                stale = True
            if stale:
                index.unlink()


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _write(path: Path, text: str) -> None:
    beside = path.with_suffix(".new")
    beside.write_text(text)
    _sync(beside)
    beside.rename(path)
