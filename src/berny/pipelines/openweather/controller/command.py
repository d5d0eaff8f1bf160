"""``berny simulate openweather``."""

from __future__ import annotations

from berny.controller.simulate import LOCAL, Listen, Port, Rate, Run, Seed, Truth


def simulate(
    truth: Truth, listen: Listen = LOCAL, port: Port = 8097, seed: Seed = 1, rate: Rate = 2.0, run: Run = ""
) -> None:
    """OpenWeather's current weather, forecast and air pollution of ten French cities."""
    from berny.controller.simulator import serve
    from berny.pipelines.openweather.controller.simulator import Simulator

    serve(listen, port, Simulator(seed, rate, truth, run=run))
