"""``berny simulate openweather``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def simulate(
    truth: Annotated[Path, typer.Option(help="File that the ground truth of what was served is appended to.")],
    listen: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8097,
    seed: Annotated[int, typer.Option(help="The same seed gives the same climate.")] = 1,
    rate: Annotated[float, typer.Option(min=0, max=1000, help="New observations a second.")] = 2.0,
    run: Annotated[str, typer.Option(help="Name of the run in the ground truth.")] = "",
) -> None:
    """OpenWeather's current weather, forecast and air pollution of ten French cities."""
    from berny.controller.simulator import serve
    from berny.pipelines.openweather.controller.simulator import Simulator

    serve(listen, port, Simulator(seed, rate, truth, run=run))
