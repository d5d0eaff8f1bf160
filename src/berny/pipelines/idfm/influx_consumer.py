"""From ``idfm-processed`` to InfluxDB: one point for each record."""

from __future__ import annotations

from berny.pipelines.idfm.points import point
from berny.runtime import batch, stage
from berny.runtime.sinks.influxdb import InfluxSettings as Settings
from berny.runtime.sinks.influxdb import InfluxSink
from berny.runtime.stage import Stop

TOPIC = "idfm-processed"
GROUP = "idfm-influx-consumer"


def run(settings: Settings, stop: Stop) -> None:
    """Run the consumer until it is stopped."""
    batch.run(settings, TOPIC, GROUP, InfluxSink(settings), lambda record, _: point(record), stop)


if __name__ == "__main__":
    stage.main(Settings, run)
