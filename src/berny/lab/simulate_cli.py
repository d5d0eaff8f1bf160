"""``berny simulate``: external systems with the wire format of the real ones, one for each pipeline with a simulator."""

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
