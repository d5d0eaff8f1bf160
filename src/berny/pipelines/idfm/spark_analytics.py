"""The delay of every observation: ``idfm-realtime`` to ``idfm-processed``, by Spark."""

from __future__ import annotations

from berny.pipelines.idfm.columns import DEAD, OUT, transform
from berny.runtime import stage, stream
from berny.runtime.stage import Stop
from berny.runtime.stream import StreamSettings as Settings

TOPIC = "idfm-realtime"


def run(settings: Settings, stop: Stop) -> None:
    """Run the query until it fails (the unit starts it again) or the stage is stopped."""
    stream.run(settings, TOPIC, (OUT, DEAD), transform, stop)


if __name__ == "__main__":
    stage.main(Settings, run)
