"""The ways to have an archive: jars by Maven, packages by pip and uv, a vendor's archive or a build by Go, our own code."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

from berny.artifacts import golang, maven, recipes
from berny.artifacts.assemble import sha256_file, tree
from berny.artifacts.download import download
from berny.artifacts.errors import NotOffered, SupplyError, WrongDigest
from berny.artifacts.recipes import Recipe, read_lock
from berny.progress import Say, follow

PACKAGE = Path(__file__).resolve().parents[1]
CHECKOUT = PACKAGE.parents[1]
# What only a controller needs is not sent to nodes: a change there restarts nothing.
CONTROLLER_ONLY = {
    "addresses.py",
    "azure.py",
    "lab",
    "artifacts",
    "cli.py",
    "faults",
    "mapping.py",
    "placement.py",
    "preflight.py",
    "progress.py",
    "removal.py",
    "support",
}
DASHBOARD = {"dashboard.py", "dashboard.json"}
"""Of a pipeline's folder; Grafana is given the second by its role."""


def key(recipe: Recipe) -> str:
    """Return what a recipe's archive is indexed by: a digest of all its inputs."""
    if recipe.kind == "source":
        digest = hashlib.sha256()
        for name, path in sorted(own_code().items()):
            digest.update(f"{name} {sha256_file(path)}\n".encode())
        return digest.hexdigest()[:16]
    if recipe.kind == "wheels":
        return recipes.key(recipe, (CHECKOUT / "requirements" / "node.txt").read_text())
    if recipe.kind == "vendor" and recipe.vendor:
        # Whose archive it is, and its digest, are noted in the index: where nobody names one, what is there will do.
        anyones = recipe.vendor.model_copy(update={"url": "", "sha256": None})
        return recipes.key(recipe.model_copy(update={"vendor": anyones}))
    return recipes.key(recipe)


def members(recipe: Recipe, scratch: Path, say: Say) -> dict[str, Path]:
    """Have the files of an archive in ``scratch`` and return them by their names in it.

    Raises:
        SupplyError: no way worked.
    """
    way = {"jars": jars, "spark": spark, "go": binary, "vendor": whole, "wheels": wheels, "source": _source}[
        recipe.kind
    ]
    return way(recipe, scratch, say)


def _source(recipe: Recipe, scratch: Path, say: Say) -> dict[str, Path]:
    return own_code()


def own_code() -> dict[str, Path]:
    """Return the files of this package that nodes need."""
    found = tree(PACKAGE, "python/berny/")
    return {
        name: path
        for name, path in found.items()
        if name.split("/")[2] not in CONTROLLER_ONLY and path.name not in DASHBOARD and "__pycache__" not in name
    }


def jars(recipe: Recipe, scratch: Path, say: Say) -> dict[str, Path]:
    """Return ``lib/*.jar`` by the lock, and folders out of jars."""
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
    """Return Spark's home out of the Python package, with the connectors among its jars."""
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
        with tarfile.open(file) as tar:
            tar.extractall(scratch / "unpacked", filter="data")
    for file in wheels.glob("*.whl"):
        with zipfile.ZipFile(file) as wheel:
            wheel.extractall(scratch / "wheel")
    source = scratch / "unpacked" / f"{recipe.sdist}-{recipe.version}"
    archive = tree(source / "pyspark", "python/pyspark/") | tree(scratch / "wheel" / "py4j", "python/py4j/")
    archive = {n: p for n, p in archive.items() if not n.startswith("python/pyspark/python/")}
    for folder in ("bin", "sbin", "jars", "licenses"):
        archive |= tree(source / "deps" / folder, f"{folder}/")
    for path in (source / "lib").glob("*.zip"):
        archive[f"python/lib/{path.name}"] = path
    say(f"{len(coordinates)} jars")
    found = maven.copy_jars(coordinates, scratch / "jars", say=say)
    maven.check(found, coordinates, recipe.lock_file)
    return archive | {f"jars/{path.name}": path for path in found.values()}


def pip_download(words: list[str], target: Path, say: Say = lambda words: None) -> None:
    """Download what pip's ``words`` ask for.

    Raises:
        SupplyError: pip failed; the message ends with its words.
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


def wheels(recipe: Recipe, scratch: Path, say: Say) -> dict[str, Path]:
    """Return ``python/`` with the packages of requirements/node.txt for Python 3.11 on x86-64."""
    lock = CHECKOUT / "requirements" / "node.txt"
    say(f"{sum('==' in line for line in lock.read_text().splitlines())} packages")
    target = scratch / "target"
    command = [sys.executable, "-m", "uv", "pip", "install", "-q", "--require-hashes", "--no-deps", "-r", str(lock)]
    command += ["--target", str(target), "--python-version", recipe.version, "--link-mode", "copy"]
    command += ["--python-platform", "x86_64-manylinux_2_28"]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise SupplyError(f"the packages of {lock} can't be had: {done.stderr.strip()[-800:]}")
    dropped = {"RECORD", "INSTALLER", "REQUESTED", "direct_url.json"}
    return {
        name: path
        for name, path in tree(target, "python/").items()
        if path.name not in dropped and name.split("/")[1] not in {"bin", ".lock"} and "__pycache__" not in name
    }


def binary(recipe: Recipe, scratch: Path, say: Say) -> dict[str, Path]:
    """Return the vendor's binaries where its archive can be reached, else those built from the module."""
    reasons = []
    for way in (_vendor, golang.build):
        try:
            return way(recipe, scratch, say)
        except SupplyError as error:
            if isinstance(error, WrongDigest):
                raise
            reasons.append(str(error))
            say(f"{error}; trying the next way")
    raise SupplyError(f"{recipe.name} can't be had: " + " | ".join(reasons))


def _vendor(recipe: Recipe, scratch: Path, say: Say) -> dict[str, Path]:
    vendor = recipe.vendor
    if not vendor:
        raise SupplyError("no vendor's archive is known")
    variable = f"BERNY_{recipe.name.upper()}_SHA256"
    digest = os.environ.get(variable) or vendor.sha256
    if not digest:
        raise SupplyError(f"the vendor's archive has no locked digest ({variable} gives one)")
    target = scratch / "vendor.tar.gz"
    download(vendor.url, target, digest, say)
    with tarfile.open(target) as tar:
        tar.extractall(scratch / "vendor", filter="data")
    return {name: scratch / "vendor" / inside for name, inside in vendor.members.items()}


def whole(recipe: Recipe, scratch: Path, say: Say) -> dict[str, Path]:
    """Return all of a vendor's archive, or of the one that an operator names, without its one folder.

    Raises:
        NotOffered: nobody vouches for a digest, or the vendor can't be reached.
        WrongDigest: it is another file than the digest's.
        SupplyError: what an operator names can't be had, or has another layout.
    """
    vendor = recipe.vendor
    assert vendor is not None
    variable = f"BERNY_{recipe.name.upper()}"
    if not vendor.sha256:
        if vendor.named:
            raise SupplyError(f"{vendor.url}: its digest is not known; give it as {variable}_SHA256")
        raise NotOffered(f"nobody has given the digest of {vendor.url}")
    target = scratch / "vendor.tar.gz"
    if "://" in vendor.url:
        try:
            download(vendor.url, target, vendor.sha256, say)
        except WrongDigest:
            raise
        except SupplyError as error:
            raise (SupplyError if vendor.named else NotOffered)(str(error)) from error
    else:
        target = Path(vendor.url).expanduser()
        if not target.is_file():
            raise SupplyError(f"{target}: there is no such file; correct {variable}_ARCHIVE")
        found = sha256_file(target)
        if found != vendor.sha256:
            raise WrongDigest(str(target), vendor.sha256, found, f"{variable}_SHA256")
    say("unpacking")
    unpacked = scratch / "vendor"
    try:
        with tarfile.open(target) as tar:
            tar.extractall(unpacked, filter="data")
    except tarfile.TarError as error:
        raise SupplyError(f"{vendor.url} is no archive that can be unpacked: {error}") from error
    tops = list(unpacked.iterdir())
    lacking = [name for name in vendor.holds if len(tops) != 1 or not (tops[0] / name).exists()]
    if lacking:
        raise SupplyError(
            f"{vendor.url} is not laid out as the vendor's: below one folder it lacks {', '.join(lacking)}"
        )
    return tree(tops[0])


def version(recipe: Recipe, members: dict[str, Path]) -> str:
    """Return the version of what was had: the archive that an operator names tells its own."""
    told = members.get("VERSION")
    found = told.read_text().strip().removeprefix("v") if recipe.kind == "vendor" and told else ""
    return found if re.fullmatch(r"\d[\w.+-]{0,40}", found) else recipe.version
