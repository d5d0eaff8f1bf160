"""``berny simulate toy``."""

from __future__ import annotations

from berny.controller.simulate import LOCAL, Listen, Port, Rate, Run, Truth


def simulate(truth: Truth, listen: Listen = LOCAL, port: Port = 8098, rate: Rate = 2.0, run: Run = "") -> None:
    """Items with a number."""
    from berny.controller.simulator import serve
    from berny.pipelines.toy.controller.simulator import Simulator

    serve(listen, port, Simulator(truth, rate, run))
