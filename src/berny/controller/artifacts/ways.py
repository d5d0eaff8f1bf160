"""The ways to obtain an archive: jars by Maven, packages by pip and uv, a vendor's archive, a build by Go, our own code."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import zipfile
from pathlib import Path

from berny.controller.artifacts import golang, maven, recipes
from berny.controller.artifacts.assemble import sha256_file, tree, unpack
from berny.controller.artifacts.download import download
from berny.controller.artifacts.errors import NotOffered, SupplyError, WrongDigest
from berny.controller.artifacts.recipes import Recipe, Signature, read_lock
from berny.controller.artifacts.signature import Keyring
from berny.controller.progress import Say, follow
from berny.model.topology import CHECKOUT

PACKAGE = Path(__file__).resolve().parents[2]
NODES = ("model", "runtime")
"""What all nodes run. Pipelines are in archives of their own: a change to one restarts its stages alone."""
PYTHON = "3.11"
"""Python of the nodes, for which packages are chosen."""
PROBES = "berny_probes"
"""The package that ``berny.runtime.probe`` imports components' probes from."""


def key(recipe: Recipe) -> str:
    """Return the key of a recipe's archive: a digest of all its inputs."""
    if recipe.kind == "source":
        digest = hashlib.sha256()
        for name, path in sorted(own_code(recipe.pipeline).items()):
            digest.update(f"{name} {sha256_file(path)}\n".encode())
        return digest.hexdigest()[:16]
    if recipe.kind == "wheels" and not recipe.lock_file.exists():
        return recipes.key(recipe, packages_lock(recipe).read_text())
    return recipes.key(recipe)


def members(recipe: Recipe, scratch: Path, say: Say) -> tuple[dict[str, Path], str]:
    """Create the files of an archive in ``scratch`` and return them by their names in it.

    Also returns the digest of the vendor's archive that they are from, or nothing if there was none.

    Raises:
        SupplyError: no way worked.
    """
    if recipe.kind in ("go", "vendor"):
        return vendors(recipe, scratch, say)
    return {"jars": jars, "spark": spark, "wheels": wheels, "source": _source}[recipe.kind](recipe, scratch, say), ""


def _source(recipe: Recipe, scratch: Path, say: Say) -> dict[str, Path]:
    return own_code(recipe.pipeline)


def own_code(pipeline: str = "") -> dict[str, Path]:
    """Return the files of a pipeline that nodes need, or without one those of all nodes: model, runtime, components' probes.

    A pipeline's other subfolders than ``scripts``, which people run, and its documentation stay on the controller: a change
    there restarts nothing.
    """
    if pipeline:
        home = recipes.PIPELINES / pipeline
        places = {f"python/berny/pipelines/{pipeline}/": home, "scripts/": home / "scripts"}
        return {
            f"{place}{file.name}": file
            for place, held in places.items()
            if held.is_dir()
            for file in held.iterdir()
            if file.is_file() and file.suffix not in (".pyc", ".md")
        }
    found: dict[str, Path] = {}
    for folder in NODES:
        for name, path in tree(PACKAGE / folder, f"python/berny/{folder}/").items():
            if "__pycache__" not in path.relative_to(PACKAGE / folder).parts:
                found[name] = path
    for path in recipes.ROLES.glob("*/probe.py"):
        found[f"python/{PROBES}/{path.parent.name}.py"] = path
    return found


def jars(recipe: Recipe, scratch: Path, say: Say) -> dict[str, Path]:
    """Return ``lib/*.jar`` as locked, and folders extracted from jars."""
    locked = read_lock(recipe.lock_file)
    say(f"{len(locked)} jars")
    found = maven.copy_jars(locked, scratch / "jars", say=say)
    maven.check(found, locked, recipe.lock_file)
    archive: dict[str, Path] = {}
    taken = {source.split("!")[0]: (name, source.split("!")[1]) for name, source in recipe.extra.items()}
    for coordinate in locked:
        if coordinate in taken:
            name, folder = taken[coordinate]
            with zipfile.ZipFile(found[coordinate]) as jar:
                jar.extractall(scratch / "extra", [m for m in jar.namelist() if m.startswith(f"{folder}/")])
            archive |= tree(scratch / "extra" / folder, f"{name}/")
        else:
            archive[f"lib/{found[coordinate].name}"] = found[coordinate]
    return archive


def spark(recipe: Recipe, scratch: Path, say: Say) -> dict[str, Path]:
    """Return Spark's home from the Python package, with the connectors among its jars."""
    locked = read_lock(recipe.lock_file)
    coordinates = {name: digest for name, digest in locked.items() if ":" in name}
    say(f"{recipe.sdist} {recipe.version} (450 MB)")
    wheels = scratch / "pip"
    requirements = scratch / "requirements.txt"
    pins = [name for name in locked if ":" not in name]
    requirements.write_text("".join(f"{pin} --hash=sha256:{locked[pin]}\n" for pin in pins))
    pip_download(["--require-hashes", "--no-binary", recipe.sdist or "", "-r", str(requirements)], wheels, say)
    say("unpacking")
    for file in wheels.glob("*.tar.gz"):
        unpack(file, scratch / "unpacked")
    for file in wheels.glob("*.whl"):
        with zipfile.ZipFile(file) as wheel:
            wheel.extractall(scratch / "wheel")
    source = scratch / "unpacked" / f"{recipe.sdist}-{recipe.version}"
    archive = tree(source / "pyspark", "python/pyspark/") | tree(scratch / "wheel" / "py4j", "python/py4j/")
    for folder in ("bin", "sbin", "jars", "licenses"):
        archive |= tree(source / "deps" / folder, f"{folder}/")
    left_out = tuple(f"{folder}/" for folder in recipe.exclude if ":" not in folder)
    archive = {name: path for name, path in archive.items() if not name.startswith(left_out)}
    for path in (source / "lib").glob("*.zip"):
        archive[f"python/lib/{path.name}"] = path
    say(f"{len(coordinates)} jars")
    found = maven.copy_jars(coordinates, scratch / "jars", say=say)
    maven.check(found, coordinates, recipe.lock_file)
    return archive | {f"jars/{path.name}": path for path in found.values()}


def pip_download(words: list[str], target: Path, say: Say = lambda words: None) -> None:
    """Download with pip; ``words`` are its arguments.

    Raises:
        SupplyError: pip failed; the message ends with its output.
    """
    command = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--progress-bar", "raw"]

    def each(line: str) -> None:
        progress = re.match(r"Progress (\d+) of (\d+)", line)
        if progress:
            done, total = (int(count) >> 20 for count in progress.groups())
            say(f"{done} of {total} MiB")

    code, last = follow([*command, "-d", str(target), *words], each)
    if code:
        said = [line for line in last if not line.startswith("Progress ")]
        raise SupplyError(f"pip download {' '.join(words)}: {' '.join(said)[-800:]}")


def packages_lock(recipe: Recipe) -> Path:
    """Return the lock of a Python environment: the file beside its recipe, else that of all nodes."""
    return recipe.lock_file if recipe.lock_file.exists() else CHECKOUT / "requirements" / "node.txt"


def wheels(recipe: Recipe, scratch: Path, say: Say) -> dict[str, Path]:
    """Return ``python/`` with the packages of a lock for Python 3.11 on x86-64."""
    lock = packages_lock(recipe)
    say(f"{sum('==' in line for line in lock.read_text().splitlines())} packages")
    target = scratch / "target"
    command = [sys.executable, "-m", "uv", "pip", "install", "-q", "--require-hashes", "--no-deps", "-r", str(lock)]
    command += ["--target", str(target), "--python-version", PYTHON, "--link-mode", "copy"]
    command += ["--python-platform", "x86_64-manylinux_2_28"]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise SupplyError(f"the packages of {lock} can't be obtained: {done.stderr.strip()[-800:]}")
    dropped = {"RECORD", "INSTALLER", "REQUESTED", "direct_url.json"}
    return {
        name: path
        for name, path in tree(target, "python/").items()
        if path.name not in dropped and name.split("/")[1] not in {"bin", ".lock"} and "__pycache__" not in name
    }


def vendors(recipe: Recipe, scratch: Path, say: Say) -> tuple[dict[str, Path], str]:
    """Return the files of a vendor's or an operator's archive, and that archive's digest.

    For the kind ``go`` they are built if the vendor can't be reached; then the digest is empty.

    Raises:
        NotOffered: the vendor can't be reached.
        WrongDigest, WrongSignature: the archive failed verification; no other way is tried.
        SupplyError: the operator's archive can't be obtained, the layout differs, or the build failed.
    """
    try:
        archive = obtain(recipe, scratch, say)
    except NotOffered as away:
        if recipe.kind != "go" or not recipe.vendor or recipe.vendor.wanted:
            raise
        say(f"{away}; building {recipe.name}")
        try:
            return golang.build(recipe, scratch, say), ""
        except SupplyError as error:
            variable = f"BERNY_{recipe.name.upper()}"
            by_hand = f"{variable}_ARCHIVE=FILE {variable}_SHA256=DIGEST berny artifacts fetch {recipe.name}"
            raise SupplyError(f"{away}, and {error}. To use an archive that you have downloaded: {by_hand}") from error
    say("unpacking")
    assert recipe.vendor
    # With a digest it has been verified already.
    return _layout(recipe, archive, scratch / "vendor"), recipe.vendor.sha256 or sha256_file(archive)


def obtain(recipe: Recipe, scratch: Path, say: Say) -> Path:
    """Return the vendor's or the operator's archive, verified by digest or signature.

    Raises:
        NotOffered: the vendor can't be reached.
        ToolMissing: gpg is not installed.
        WrongDigest, WrongSignature: the archive failed verification.
        SupplyError: the operator's archive can't be obtained.
    """
    vendor, variable = recipe.vendor, f"BERNY_{recipe.name.upper()}"
    assert vendor is not None
    if vendor.named and not vendor.sha256:
        raise SupplyError(f"{vendor.url}: its digest is not known; give it as {variable}_SHA256")
    told_by = f"{variable}_SHA256" if vendor.wanted else f"{recipe.name}.yml"
    if "://" not in vendor.url:
        file = Path(vendor.url).expanduser()
        if not file.is_file():
            raise SupplyError(f"{file}: there is no such file; correct {variable}_ARCHIVE")
        found = sha256_file(file)
        if vendor.sha256 and found != vendor.sha256:
            raise WrongDigest(str(file), vendor.sha256, found, told_by)
        return file
    target = scratch / "vendor.tar.gz"
    try:
        if vendor.sha256:
            download(vendor.url, target, vendor.sha256, say, told_by)
        elif vendor.signature:
            _signed(vendor.url, vendor.signature, target, say)
    except NotOffered as error:
        if vendor.named:
            raise SupplyError(str(error)) from error
        raise
    return target


def _signed(url: str, signature: Signature, target: Path, say: Say) -> None:
    """Download an archive that is verified by signature: the key first, because nothing can be verified without it."""
    key, signed = target.with_name("vendor.key"), target.with_name("vendor.asc")
    download(signature.key, key, None, say)
    keyring = Keyring(target.with_name("gnupg"), key, signature.key, signature.fingerprint)
    download(f"{url}.asc", signed, None, say)
    download(url, target, None, say)
    keyring.verify(target, signed, url)


def _layout(recipe: Recipe, archive: Path, unpacked: Path) -> dict[str, Path]:
    """Return the files of an archive that the recipe names, or all of them, without the top folder."""
    vendor = recipe.vendor
    assert vendor is not None
    try:
        unpack(archive, unpacked)
    except SupplyError as error:
        raise SupplyError(f"{vendor.url}: {error}") from error
    if vendor.members:
        lacking = [inside for inside in vendor.members.values() if not (unpacked / inside).is_file()]
        if lacking:
            raise SupplyError(f"{vendor.url} is not laid out as the vendor's: it lacks {', '.join(lacking)}")
        return {name: unpacked / inside for name, inside in vendor.members.items()}
    tops = list(unpacked.iterdir())
    lacking = [name for name in vendor.holds if len(tops) != 1 or not (tops[0] / name).exists()]
    if lacking:
        raise SupplyError(
            f"{vendor.url} is not laid out as the vendor's: below one folder it lacks {', '.join(lacking)}"
        )
    return tree(tops[0])


def version(recipe: Recipe, members: dict[str, Path]) -> str:
    """Return the version of what was obtained: an operator's archive has its own."""
    told = members.get("VERSION")
    found = told.read_text().strip().removeprefix("v") if recipe.kind == "vendor" and told else ""
    return found if re.fullmatch(r"\d[\w.+-]{0,40}", found) else recipe.version
