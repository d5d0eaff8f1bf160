"""``berny simulate toy``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def simulate(
    truth: Annotated[Path, typer.Option(help="File that the ground truth of what was served is appended to.")],
    listen: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8098,
    rate: Annotated[float, typer.Option(min=0, max=1000, help="New items a second.")] = 2.0,
    run: Annotated[str, typer.Option(help="Name of the run in the ground truth.")] = "",
) -> None:
    """Items with a number."""
    from berny.controller.simulator import serve
    from berny.pipelines.toy.controller.simulator import Simulator

    serve(listen, port, Simulator(truth, rate, run))
