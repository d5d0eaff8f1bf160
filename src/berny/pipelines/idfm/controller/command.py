"""``berny simulate idfm``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from berny.controller.simulate import LOCAL, Listen, Port, Rate, Run, Seed, Truth


def simulate(
    truth: Truth,
    listen: Listen = LOCAL,
    port: Port = 8099,
    seed: Seed = 1,
    rate: Rate = 2.0,
    run: Run = "",
    recordings: Annotated[
        Path | None, typer.Option(exists=True, file_okay=False, help="Replay the *.json responses of this folder.")
    ] = None,
) -> None:
    """Simulate PRIM's stop monitoring for the RER B at La Croix de Berny."""
    from berny.controller.simulator import serve
    from berny.pipelines.idfm.controller.simulator import Simulator

    serve(listen, port, Simulator(seed, rate, truth, recordings, run=run))
