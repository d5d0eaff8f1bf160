"""InfluxDB built from its Go module.

Its query engine is a Rust library that the module's own ``pkg-config`` builds through Cargo on the way.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from berny.artifacts.errors import SupplyError, ToolMissing
from berny.artifacts.recipes import Recipe, recipes_folder
from berny.progress import Say, follow

# Lints that a newer compiler denies by default would end the build of an older library.
WRAPPER = """#!/bin/sh
compiler=$1
shift
exec "$compiler" "$@" --cap-lints warn
"""
NEEDS = {
    "go": "golang (1.23 or newer)",
    "cargo": "cargo (Rust 1.80 or newer)",
    "cc": "gcc",
    "protoc": "protobuf-compiler",
}


def build(recipe: Recipe, scratch: Path, say: Say) -> dict[str, Path]:
    """Build ``bin/influxd`` by the go.mod and go.sum of the recipe's folder; about 7 minutes on 2 cores.

    Raises:
        ToolMissing: Go, Cargo or a C compiler is not there.
        SupplyError: the build failed; the message ends with the compiler's last words.
    """
    for tool in ("go", "cargo", "cc"):
        if not shutil.which(tool):
            raise ToolMissing(tool, NEEDS[tool])
    module = scratch / "module"
    shutil.copytree(recipes_folder() / recipe.name, module)
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


def _run(command: list[str], folder: Path, environment: dict[str, str], each: Say = lambda line: None) -> list[str]:
    lines: list[str] = []

    def note(line: str) -> None:
        lines.append(line)
        each(line)

    code, last = follow(command, note, cwd=folder, env=environment)
    if code:
        raise SupplyError(f"{' '.join(command[:2])} failed: {' '.join(last)[-1500:]}")
    return lines
