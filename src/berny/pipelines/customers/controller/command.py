"""``berny simulate customers``."""

from __future__ import annotations

from berny.controller.simulate import LOCAL, Listen, Port, Rate, Run, Seed, Truth


def simulate(
    truth: Truth, listen: Listen = LOCAL, port: Port = 8096, seed: Seed = 1, rate: Rate = 5.0, run: Run = ""
) -> None:
    """An S3 server with the file customers.csv, of which new versions come."""
    from berny.controller.simulator import serve
    from berny.pipelines.customers.controller.simulator import Simulator

    serve(listen, port, Simulator(seed, rate, truth, run=run))
