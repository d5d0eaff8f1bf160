"""``berny artifacts``: have, check and list the archives of the store, and lock new versions."""

from __future__ import annotations

import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from berny.artifacts import maven
from berny.artifacts.assemble import sha256_file
from berny.artifacts.errors import SupplyError
from berny.artifacts.recipes import load_recipes, write_lock
from berny.artifacts.store import Store
from berny.artifacts.ways import pip_download
from berny.progress import Steps

app = typer.Typer(no_args_is_help=True, help="The archives that nodes are installed from.")
Names = Annotated[list[str] | None, typer.Argument(help="Names of archives; all without.")]
console = Console()


def fetch_all(names: list[str], steps: Steps, store: Store | None = None) -> None:
    """Have the archives in the store, two at a time.

    Raises:
        SupplyError: one can't be had.
    """
    store = store or Store()
    missing = [name for name in names if not store.find(name)]

    def one(name: str) -> None:
        with steps.step(f"archive {name}") as say:
            archive = store.fetch(name, say)
            say(f"{archive.version}, {archive.path.stat().st_size >> 20} MiB")

    # What is built longest goes first.
    missing.sort(key=lambda name: {"go": 0, "spark": 1}.get(load_recipes()[name].kind, 2))
    with ThreadPoolExecutor(2) as pool:
        for _ in pool.map(one, missing):
            pass


@app.command()
def fetch(names: Names = None) -> None:
    """Have archives in the store: from there, from the vendor, or built from a package registry."""
    try:
        with Steps(console) as steps:
            fetch_all(names or list(load_recipes()), steps)
    except SupplyError as error:
        console.print(f"[red]error:[/] {error}", highlight=False, soft_wrap=True)
        raise typer.Exit(1) from None


@app.command()
def verify(names: Names = None) -> None:
    """Hash the archives of the store again."""
    store, wrong = Store(), False
    for name in names or list(load_recipes()):
        try:
            archive = store.verify(name)
            console.print(f"ok {archive.path.name}", highlight=False)
        except SupplyError as error:
            wrong = True
            console.print(f"[red]error:[/] {error}", highlight=False, soft_wrap=True)
    raise typer.Exit(1 if wrong else 0)


@app.command("list")
def list_archives() -> None:
    """Show every archive, its version and whether it is in the store."""
    table = Table("archive", "version", "what", "in the store", box=None)
    for name, recipe in load_recipes().items():
        found = Store().find(name)
        table.add_row(name, recipe.version, recipe.title, f"{found.path.stat().st_size >> 20} MiB" if found else "no")
    console.print(table)


@app.command()
def lock(names: Names = None) -> None:
    """Resolve the roots of jar recipes anew and write their locks: how a version is bumped."""
    for name in names or [name for name, recipe in load_recipes().items() if recipe.kind in ("jars", "spark")]:
        recipe, since = load_recipes()[name], time.monotonic()
        with tempfile.TemporaryDirectory() as scratch:
            roots = [*recipe.roots, *(source.split("!")[0] for source in recipe.extra.values())]
            jars = maven.copy_jars(
                roots, Path(scratch) / "jars", exclude=recipe.exclude, transitive=recipe.kind == "jars"
            )
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
