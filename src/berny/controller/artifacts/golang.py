"""InfluxDB built from its Go module.

Its query engine is a Rust library that the module's own ``pkg-config`` builds with Cargo during the build.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from berny.controller.artifacts.errors import SupplyError
from berny.controller.artifacts.recipes import Recipe
from berny.controller.progress import Say, follow

# Lints that a newer compiler denies by default would fail the build of an older library.
WRAPPER = """#!/bin/sh
compiler=$1
shift
exec "$compiler" "$@" --cap-lints warn
"""
CARGO = (1, 80)
"""The minimum version; Go's is in the recipe's go.mod."""


def build(recipe: Recipe, scratch: Path, say: Say) -> dict[str, Path]:
    """Build ``bin/influxd`` from the go.mod and go.sum of the recipe's folder; about 7 minutes on 2 cores.

    Raises:
        SupplyError: compilers are missing or too old (all are named), or the build failed (with the compiler's last output).
    """
    module = scratch / "module"
    shutil.copytree(recipe.folder, module)
    tools = scratch / "tools"
    tools.mkdir()
    wrapper = tools / "rustc-wrapper"
    wrapper.write_text(WRAPPER)
    wrapper.chmod(0o755)
    environment = os.environ | {
        "PATH": f"{tools}:{os.environ['PATH']}",
        "PKG_CONFIG": str(tools / "pkg-config"),
        "RUSTC_WRAPPER": str(wrapper),
        "GOTOOLCHAIN": "local",
        "GOFLAGS": "-mod=readonly",
    }
    if shutil.which("rustup"):
        environment.setdefault("RUSTUP_TOOLCHAIN", "stable")
    if missing := lacking(module / "go.mod", environment):
        raise SupplyError(f"to build {recipe.name} this host lacks {', '.join(missing)}")
    target = scratch / "influxd"
    say("building its build tool")
    _run(["go", "build", "-o", str(tools / "pkg-config"), "github.com/influxdata/pkg-config"], module, environment)
    main = "github.com/influxdata/influxdb/v2/cmd/influxd"
    total = len(_run(["go", "list", "-deps", main], module, environment))
    say(f"{total} packages, of which the query engine's library comes first (about 7 minutes on 2 cores)")
    built = 0

    def compiled(line: str) -> None:
        nonlocal built
        built += 1
        say(f"compiled {built} of {total} packages: {line[-60:]}")

    flags = f"-s -w -X main.version=v{recipe.version}"
    _run(["go", "build", "-v", "-trimpath", "-ldflags", flags, "-o", str(target), main], module, environment, compiled)
    return {"bin/influxd": target}


def lacking(module: Path, environment: Mapping[str, str]) -> list[str]:
    """Return descriptions of the compilers that are missing or older than ``module``, a go.mod, and its library require."""
    wanted = re.search(r"^go (\d+)\.(\d+)", module.read_text(), re.M)
    assert wanted
    least = {"go": (int(wanted[1]), int(wanted[2])), "cargo": CARGO}
    found = []
    for tool, command, title in (("go", "version", "Go"), ("cargo", "--version", "Cargo")):
        version = _version([tool, command], environment)
        if version < least[tool]:
            words = "{}.{} or newer".format(*least[tool])
            found.append(f"{title} {words} (it has {version[0]}.{version[1]})" if version[0] else f"{title} {words}")
    return found if shutil.which("cc") else [*found, "a C compiler (gcc)"]


def _version(command: list[str], environment: Mapping[str, str]) -> tuple[int, int]:
    """Return the version that a compiler reports; zeros if there is none."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, env=dict(environment))
    except FileNotFoundError:
        return 0, 0
    told = re.search(r"(\d+)\.(\d+)", done.stdout)
    return (int(told[1]), int(told[2])) if told else (0, 0)


def _run(command: list[str], folder: Path, environment: dict[str, str], each: Say = lambda line: None) -> list[str]:
    lines: list[str] = []

    def note(line: str) -> None:
        lines.append(line)
        each(line)

    code, last = follow(command, note, cwd=folder, env=environment)
    if code:
        raise SupplyError(f"{' '.join(command[:2])} failed: {' '.join(last)[-1500:]}")
    return lines
