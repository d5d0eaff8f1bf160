"""``berny simulate``: outside systems with a real one's wire format, one for each pipeline that has a simulator."""

from __future__ import annotations

import importlib

import typer

from berny.model.manifest import PIPELINES

app = typer.Typer(no_args_is_help=True, help="Simulators of outside systems, by pipeline.")


@app.callback()
def simulate() -> None:
    """Simulators of outside systems."""


for file in sorted(PIPELINES.glob("*/controller/command.py")):
    name = file.parents[1].name
    app.command(name)(importlib.import_module(f"berny.pipelines.{name}.controller.command").simulate)
