"""``berny simulate idfm``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def simulate(
    truth: Annotated[Path, typer.Option(help="File that the ground truth is appended to.")],
    listen: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8099,
    seed: Annotated[int, typer.Option(help="The same seed produces the same service day.")] = 1,
    rate: Annotated[float, typer.Option(min=0, max=1000, help="New observations per second.")] = 2.0,
    run: Annotated[str, typer.Option(help="Name of the run in the ground truth.")] = "",
    recordings: Annotated[
        Path | None, typer.Option(exists=True, file_okay=False, help="Replay the *.json responses of this folder.")
    ] = None,
) -> None:
    """Simulate PRIM's stop monitoring for the RER B at La Croix de Berny."""
    from berny.controller.simulator import serve
    from berny.pipelines.idfm.controller.simulator import Simulator

    serve(listen, port, Simulator(seed, rate, truth, recordings, run=run))
