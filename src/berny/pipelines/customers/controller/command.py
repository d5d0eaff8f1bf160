"""``berny simulate customers``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def simulate(
    truth: Annotated[Path, typer.Option(help="File that the ground truth of what was served is appended to.")],
    listen: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8096,
    seed: Annotated[int, typer.Option(help="The same seed gives the same customers.")] = 1,
    rate: Annotated[float, typer.Option(min=0, max=5000, help="New rows a second.")] = 5.0,
    run: Annotated[str, typer.Option(help="Name of the run in the ground truth.")] = "",
) -> None:
    """An S3 server with the file customers.csv, of which new versions come."""
    from berny.controller.simulator import serve
    from berny.pipelines.customers.controller.simulator import Simulator

    serve(listen, port, Simulator(seed, rate, truth, run=run))
