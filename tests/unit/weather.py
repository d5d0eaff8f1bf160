"""The database of openweather, and its rows."""

from __future__ import annotations

import json
from typing import Any

from pipeline_database import PipelineDatabase

from berny.model.manifest import load_pipelines
from berny.pipelines.openweather import openweather
from berny.pipelines.openweather.consumer import COLUMNS, row
from berny.pipelines.openweather.controller import climate
from berny.pipelines.openweather.controller.climate import CITIES
from berny.runtime.kafka import Origin

PIPELINE = "openweather"
MANIFEST = load_pipelines()[PIPELINE]
INSERT = f"INSERT INTO weather ({', '.join(COLUMNS)}) VALUES ({', '.join(['%s'] * len(COLUMNS))})"


class Database(PipelineDatabase):
    """The pipeline's database."""

    MANIFEST = MANIFEST

    def insert(self, *records: dict[str, Any], first: int = 0) -> None:
        """Insert the rows of records, each in a transaction of its own."""
        for number, one in enumerate(records):
            self.ask(INSERT, *row(one, Origin("id", 0, first + number)))

    def empty(self) -> None:
        """Delete all rows."""
        self.ask("TRUNCATE weather, ref_date")


def record(city: str, moment: int, number: int = 0, aqi: int = 2, **change: Any) -> dict[str, Any]:
    """Return a record of ``weather-api``: what the climate says of a city at a Unix time."""
    said, _ = climate.weather(CITIES[city], moment, number, 1)
    answer = {"city": city, "missing": {}, "weather": json.dumps(said | change)}
    answer["air_pollution"] = json.dumps({"list": [{"main": {"aqi": aqi}}]})
    [found] = openweather.observations(answer)
    assert isinstance(found, openweather.Observation)
    return {"identity": found.identity, "observed_at": moment, "data_origin": "simulated", **found.content}
