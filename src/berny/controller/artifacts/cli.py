"""``berny artifacts``: fetch, verify and list the archives of the store, and lock new versions."""

from __future__ import annotations

import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from berny.controller.artifacts import bundle as bundles
from berny.controller.artifacts import maven
from berny.controller.artifacts.assemble import sha256_file
from berny.controller.artifacts.errors import NotOffered, SupplyError
from berny.controller.artifacts.recipes import load_recipes, not_run, write_lock
from berny.controller.artifacts.store import Store
from berny.controller.artifacts.ways import pip_download
from berny.controller.progress import Steps

app = typer.Typer(no_args_is_help=True, help="The archives that nodes are installed from.")
Names = Annotated[list[str] | None, typer.Argument(help="Names of archives; by default all.")]
console = Console()


def fetch_all(names: list[str], steps: Steps, store: Store | None = None) -> None:
    """Fetch the archives into the store, two at a time; an optional one that is not available here is reported and skipped.

    Raises:
        SupplyError: one can't be obtained.
    """
    store = store or Store()
    missing = [name for name in names if not store.find(name)]

    def one(name: str) -> None:
        with steps.step(f"archive {name}") as say:
            try:
                archive = store.fetch(name, say)
            except NotOffered as error:
                if not load_recipes()[name].optional:
                    raise
                say(f"{error}. {not_run(load_recipes()[name])}")
                return
            say(f"{archive.version}, {archive.path.stat().st_size >> 20} MiB")

    # The longest build starts first.
    missing.sort(key=lambda name: {"go": 0, "spark": 1}.get(load_recipes()[name].kind, 2))
    with ThreadPoolExecutor(2) as pool:
        for _ in pool.map(one, missing):
            pass


@app.command()
def fetch(names: Names = None) -> None:
    """Fetch archives into the store: from the mirror BERNY_MIRROR, from the vendor, or built from a registry."""
    try:
        with Steps(console) as steps:
            fetch_all(names or list(load_recipes()), steps)
    except SupplyError as error:
        console.print(f"[red]error:[/] {error}", highlight=False, soft_wrap=True)
        raise typer.Exit(1) from None


@app.command()
def verify(names: Names = None) -> None:
    """Verify the digests of the archives in the store."""
    store, wrong = Store(), False
    for name in names or list(load_recipes()):
        if not names and load_recipes()[name].optional and not store.find(name):
            console.print(not_run(load_recipes()[name]), highlight=False, soft_wrap=True)
            continue
        try:
            archive = store.verify(name)
            console.print(f"ok {archive.path.name}", highlight=False)
        except SupplyError as error:
            wrong = True
            console.print(f"[red]error:[/] {error}", highlight=False, soft_wrap=True)
    raise typer.Exit(1 if wrong else 0)


@app.command()
def bundle(
    file: Annotated[Path, typer.Argument(help="The file to write, such as berny.tar.")], names: Names = None
) -> None:
    """Write archives of the store into one file: for a controller without internet access, or for a mirror."""
    store, recipes = Store(), load_recipes()
    # Berny's own code is packed from whichever checkout runs this.
    names = names or [n for n, one in recipes.items() if one.kind != "source" and (store.find(n) or not one.optional)]
    try:
        with Steps(console) as steps, steps.step(f"bundle {file}") as say:
            digest = bundles.write_bundle(store, names, file, say)
            say(f"{len(names)} archives, {file.stat().st_size >> 20} MiB")
    except SupplyError as error:
        console.print(f"[red]error:[/] {error}", highlight=False, soft_wrap=True)
        raise typer.Exit(1) from None
    console.print(f"sha256 {digest}", highlight=False, soft_wrap=True)
    words = f"nodes still fetch from Debian, with dependencies: {' '.join(bundles.os_packages())}"
    console.print(words, highlight=False, soft_wrap=True)


@app.command()
def load(file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="What `bundle` wrote.")]) -> None:
    """Load a bundle's archives into the store; each digest is verified first."""
    try:
        with Steps(console) as steps, steps.step(f"load {file}") as say:
            loaded, lacking = bundles.load_bundle(Store(), file, say)
            say(f"{len(loaded)} archives")
    except SupplyError as error:
        console.print(f"[red]error:[/] {error}", highlight=False, soft_wrap=True)
        raise typer.Exit(1) from None
    if lacking:
        words = f"{file} has no {', '.join(lacking)} of this checkout's recipes: bundle it by this version of Berny"
        console.print(f"[red]error:[/] {words}", highlight=False, soft_wrap=True)
        raise typer.Exit(1)


@app.command("os-packages")
def os_packages() -> None:
    """Print the operating system packages that nodes fetch from Debian, and which nodes fetch them."""
    for package, where in bundles.os_packages().items():
        console.print(f"{package:28}{where}", highlight=False)


@app.command("list")
def list_archives() -> None:
    """Show every archive, its version and whether it is in the store."""
    table = Table("archive", "version", "what", "in the store", box=None)
    for name, recipe in load_recipes().items():
        found = Store().find(name)
        there = f"{found.path.stat().st_size >> 20} MiB" if found else "no (optional)" if recipe.optional else "no"
        table.add_row(name, found.version if found else recipe.version, recipe.title, there)
    console.print(table)


@app.command()
def lock(names: Names = None) -> None:
    """Resolve the roots of jar recipes again and write their locks, to upgrade a version."""
    for name in names or [name for name, recipe in load_recipes().items() if recipe.kind in ("jars", "spark")]:
        recipe, since = load_recipes()[name], time.monotonic()
        with tempfile.TemporaryDirectory() as scratch:
            roots = [*recipe.roots, *recipe.alone, *(source.split("!")[0] for source in recipe.extra.values())]
            alone = recipe.alone if recipe.kind == "jars" else None
            exclude = [name for name in recipe.exclude if ":" in name]
            jars = maven.copy_jars(roots, Path(scratch) / "jars", exclude=exclude, alone=alone)
            locked = {coordinate: sha256_file(path) for coordinate, path in jars.items()}
            if recipe.sdist:
                locked |= _lock_sdist(f"{recipe.sdist}=={recipe.version}", Path(scratch))
        write_lock(recipe.lock_file, locked, f"{name} {recipe.version}, written by `berny artifacts lock`")
        console.print(f"{name}: {len(locked)} files locked in {time.monotonic() - since:.0f} s", highlight=False)


def _lock_sdist(pin: str, scratch: Path) -> dict[str, str]:
    package, version = pin.split("==")
    pip_download(["--no-binary", package, pin], scratch / "pip")
    locked = {pin: sha256_file(scratch / "pip" / f"{package}-{version}.tar.gz")}
    for wheel in (scratch / "pip").glob("*.whl"):
        name, its_version = wheel.name.split("-")[:2]
        locked[f"{name}=={its_version}"] = sha256_file(wheel)
    return locked
