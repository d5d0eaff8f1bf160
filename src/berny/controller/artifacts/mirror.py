"""Archives that were built elsewhere: an operator's mirror, and their verification against the locks of this checkout."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import tarfile
from pathlib import Path

import requests
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from berny.controller.artifacts.download import TIMEOUT, download
from berny.controller.artifacts.errors import SupplyError, WrongDigest
from berny.controller.artifacts.recipes import Recipe, read_lock
from berny.controller.progress import Say

VARIABLE = "BERNY_MIRROR"


class Index(BaseModel):
    """The content of ``NAME/KEY.json`` about an archive, in the store, in a bundle and on a mirror."""

    model_config = ConfigDict(frozen=True)

    # Only a name: an index from elsewhere must not lead out of the store.
    file: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*\.tar\.zst$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    bytes: int = Field(gt=0)
    version: str
    source: str | None = None
    """The digest of the vendor's archive that it was built from."""


def parse_index(text: str | bytes, where: str, recipe: Recipe) -> Index:
    """Read an index.

    Raises:
        SupplyError: it is malformed, or was made from another vendor's archive than expected; the message has its location.
    """
    try:
        index = Index.model_validate(json.loads(text))
    except (ValueError, ValidationError) as error:
        raise SupplyError(f"{where}: is not an index of an archive: {' '.join(str(error).split())[:200]}") from None
    wanted = recipe.vendor.wanted if recipe.vendor else None
    if wanted not in (None, index.source):
        raise SupplyError(f"{where}: was made from an archive with sha256 {index.source}, expected is {wanted}")
    return index


def base() -> str:
    """Return the mirror's address, or nothing if the operator has none."""
    return os.environ.get(VARIABLE, "").rstrip("/")


def ask(recipe: Recipe, key: str) -> Index:
    """Return the mirror's index of an archive.

    Raises:
        SupplyError: it can't be reached, does not have it, or has one of another vendor's archive than expected.
    """
    url = f"{base()}/{recipe.name}/{key}.json"
    try:
        answer = requests.get(url, timeout=TIMEOUT)
    except requests.RequestException as error:
        raise SupplyError(f"{url}: {type(error).__name__}") from None
    if answer.status_code != 200:
        raise SupplyError(f"{url}: the mirror responds with {answer.status_code}")
    return parse_index(answer.content, url, recipe)


def take(name: str, index: Index, beside: Path, say: Say) -> None:
    """Download an archive; a partial download is resumed.

    Raises:
        SupplyError: the mirror can't be reached, or does not have it.
        WrongDigest: the file is not the one in its index.
    """
    download(f"{base()}/{name}/{index.file}", beside, index.sha256, say, "the mirror's index")


def verify_lock(recipe: Recipe, archive: Path) -> None:
    """Verify every jar of an archive that was built elsewhere against this checkout's lock.

    Raises:
        WrongDigest: a jar is not the locked one; names it, expected and found.
        SupplyError: a locked jar is missing, or a jar is not locked.
    """
    if recipe.kind not in ("jars", "spark"):
        return
    folder = {"jars": "lib", "spark": "jars"}[recipe.kind]
    taken_apart = {source.split("!")[0] for source in recipe.extra.values()}
    locked = {
        f"{folder}/{_jar(coordinate)}": (coordinate, digest)
        for coordinate, digest in read_lock(recipe.lock_file).items()
        if ":" in coordinate and coordinate not in taken_apart
    }
    found = _digests(archive, folder)
    for name, (coordinate, digest) in locked.items():
        if name not in found:
            raise SupplyError(f"{archive.name}: {coordinate} is locked in {recipe.lock_file.name}, but missing")
        if found[name] != digest:
            raise WrongDigest(f"{archive.name}: {coordinate}", digest, found[name], recipe.lock_file)
    # A Python package has jars of its own, which its lock does not name.
    extra = sorted(set(found) - set(locked)) if recipe.kind == "jars" else []
    if extra:
        raise SupplyError(
            f"{archive.name}: {extra[0]} is not locked in {recipe.lock_file.name}. Nothing was installed."
        )


def _jar(coordinate: str) -> str:
    _, artifact, version, *classifier = coordinate.split(":")
    return "-".join([artifact, version, *classifier]) + ".jar"


def _digests(archive: Path, folder: str) -> dict[str, str]:
    pattern = re.compile(rf"{folder}/[^/]+\.jar")
    with subprocess.Popen(["zstd", "-q", "-d", "-c", str(archive)], stdout=subprocess.PIPE) as zstd:
        assert zstd.stdout is not None
        try:
            with tarfile.open(fileobj=zstd.stdout, mode="r|") as tar:
                found = {}
                for member in tar:
                    file = tar.extractfile(member) if pattern.fullmatch(member.name) else None
                    if file:
                        found[member.name] = hashlib.sha256(file.read()).hexdigest()
                return found
        except tarfile.TarError as error:
            raise SupplyError(f"{archive.name}: is not an archive: {error}") from None
