"""What the commands ``berny simulate PIPELINE`` have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Truth = Annotated[Path, typer.Option(help="File that the ground truth of what was served is appended to.")]
Listen = Annotated[str, typer.Option(help="Address to listen on.")]
Port = Annotated[int, typer.Option(help="Port to listen on.")]
Seed = Annotated[int, typer.Option(help="The same seed produces the same observations.")]
MAX_RATE = 5000
Rate = Annotated[float, typer.Option(min=0, max=MAX_RATE, help="New observations per second.")]
Run = Annotated[str, typer.Option(help="Name of the run in the ground truth.")]
LOCAL = "127.0.0.1"
