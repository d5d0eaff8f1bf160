"""All archives in one file, for a controller without internet access; unpacked, it is an operator's mirror.

A bundle is laid out like the store: ``NAME/KEY.json`` has file and digest, ``NAME/FILE`` is the archive. Beside
them are the recipes with their locks, the list of operating system packages, and ``SHA256SUMS`` of everything.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

import yaml

from berny.controller.artifacts import recipes, ways
from berny.controller.artifacts.assemble import sha256_file
from berny.controller.artifacts.errors import SupplyError, WrongDigest
from berny.controller.artifacts.mirror import parse_index
from berny.controller.artifacts.store import Archive, Store
from berny.controller.progress import Say
from berny.model.catalog import SHARED, load_catalog

SUMS = "SHA256SUMS"
CHUNK = 1 << 20
INSTALLERS = {"ansible.builtin.apt": "name", "berny_packages": "names", "berny_converge": "packages"}
"""The modules that install packages, and their argument that names them."""


def os_packages() -> dict[str, str]:
    """Return the operating system packages that nodes fetch, and which nodes fetch them."""
    everywhere = yaml.safe_load((SHARED / "os_packages.yml").read_text())
    found = dict.fromkeys(everywhere, "every node")
    for file in sorted((ways.CHECKOUT / "roles").glob("*/tasks/*.yml")):
        for name in apt_names(yaml.safe_load(file.read_text()) or []):
            if "{{" not in name:
                found.setdefault(name, "virtual machines" if file.stem == "vm" else f"role {file.parts[-3]}")
    for component in load_catalog().components.values():
        for name in component.packages.names if component.packages else ():
            found.setdefault(name, f"component {component.name}")
    return dict(sorted(found.items()))


def apt_names(tasks: Iterable[dict[str, Any]]) -> list[str]:
    """Return the packages that tasks install."""
    found: list[str] = []
    for task in tasks:
        for module, key in INSTALLERS.items():
            names = task.get(module, {}).get(key) or []
            found += [names] if isinstance(names, str) else names
        for part in ("block", "rescue", "always"):
            found += apt_names(task.get(part) or [])
    return found


def write_bundle(store: Store, names: Iterable[str], target: Path, say: Say) -> str:
    """Write archives of the store, verified again, into one file and return its sha256; the file is written atomically.

    Raises:
        ArtifactMissing: an archive is not in the store.
        WrongDigest: an archive changed since it was written.
    """
    members: dict[str, Path | bytes] = {}
    for name in names:
        say(f"hashing {name}")
        archive = store.verify(name)
        index = archive.path.with_name(f"{ways.key(store.recipe(name))}.json")
        members[f"{name}/{index.name}"] = index.read_bytes()
        members[f"{name}/{archive.path.name}"] = archive.path
    for recipe in recipes.load_recipes().values():
        if not recipe.pipeline:
            folder = recipe.file.parent
            members |= {f"recipes/{path.relative_to(folder)}": path for path in (recipe.file, *recipe.inputs)}
    members["os-packages.txt"] = "".join(f"{package}\n" for package in os_packages()).encode()
    sums = "".join(f"{_digest(content)}  {name}\n" for name, content in members.items())
    beside = target.with_name(f".{target.name}.new")
    try:
        with beside.open("wb") as file:
            with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as tar:
                for name, content in {SUMS: sums.encode(), **members}.items():
                    say(f"packing {name}")
                    _add(tar, name, content)
            file.flush()
            os.fsync(file.fileno())
        digest = sha256_file(beside)
        beside.rename(target)
    finally:
        beside.unlink(missing_ok=True)
    return digest


def _digest(content: Path | bytes) -> str:
    return hashlib.sha256(content).hexdigest() if isinstance(content, bytes) else sha256_file(content)


def _add(tar: tarfile.TarFile, name: str, content: Path | bytes) -> None:
    info = tarfile.TarInfo(name)
    info.mode = 0o644
    info.size = len(content) if isinstance(content, bytes) else content.stat().st_size
    with io.BytesIO(content) if isinstance(content, bytes) else content.open("rb") as file:
        tar.addfile(info, file)


class Bundle:
    """A bundle that was read; every member was verified against ``SHA256SUMS``."""

    def __init__(self, file: Path, tar: tarfile.TarFile, say: Say) -> None:
        self.file, self.tar = file, tar
        self.members = {member.name: member for member in tar.getmembers() if member.isfile()}
        with self.open(SUMS) as sums:
            lines = sums.read().decode(errors="replace").splitlines()
        for line in lines:
            match = recipes.LINE.fullmatch(line)
            if not match:
                raise SupplyError(f"{file}: {SUMS} is malformed: {line[:80]!r}")
            say(f"hashing {match['name']}")
            digest = hashlib.sha256()
            with self.open(match["name"]) as member:
                while chunk := member.read(CHUNK):
                    digest.update(chunk)
            if digest.hexdigest() != match["digest"]:
                raise WrongDigest(f"{file}: {match['name']}", match["digest"], digest.hexdigest(), SUMS)

    def open(self, name: str) -> IO[bytes]:
        """Return a member's content.

        Raises:
            SupplyError: it is missing.
        """
        member = self.members.get(name)
        content = self.tar.extractfile(member) if member else None
        if not content:
            raise SupplyError(
                f"{self.file}: {name} is missing: the file was not completely written by `berny artifacts bundle`"
            )
        return content

    def load(self, store: Store, name: str, say: Say) -> Archive | None:
        """Load an archive into the store, or return None if the bundle has none of this checkout's recipe."""
        key = f"{name}/{ways.key(store.recipe(name))}.json"
        if key not in self.members:
            return None
        with self.open(key) as content:
            index = parse_index(content.read(), f"{self.file}: {key}", store.recipe(name))

        def copy(beside: Path) -> None:
            with self.open(f"{name}/{index.file}") as source, beside.open("wb") as out:
                shutil.copyfileobj(source, out, CHUNK)

        say(name)
        return store.adopt(name, index, copy)


def load_bundle(store: Store, file: Path, say: Say) -> tuple[list[Archive], list[str]]:
    """Load a bundle's archives into the store; return them, and the names of those that this checkout also needs.

    Raises:
        SupplyError: the file is not a bundle or is truncated; nothing was loaded.
        WrongDigest: a member is not what was bundled; nothing was loaded.
    """
    loaded, lacking = [], []
    try:
        with tarfile.open(file, mode="r:") as tar:
            bundle = Bundle(file, tar, say)
            for name, recipe in recipes.load_recipes().items():
                # Berny's own code is packed from this checkout.
                if recipe.kind != "source":
                    archive = bundle.load(store, name, say)
                    loaded += [archive] if archive else []
                    lacking += [] if archive or recipe.optional or store.find(name) else [name]
    except (OSError, tarfile.TarError) as error:
        raise SupplyError(f"{file}: is not a bundle, or is truncated ({error}); copy it again") from None
    return loaded, lacking
