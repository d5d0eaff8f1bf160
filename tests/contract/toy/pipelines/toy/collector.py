"""From the source to ``toy-items``, one record for each item, and to HDFS, the raw responses."""

from __future__ import annotations

from berny.model.component import seconds
from berny.pipelines.toy import source
from berny.runtime import response, stage
from berny.runtime.kafka import Publisher
from berny.runtime.landing import Landing, LandingSettings
from berny.runtime.poller import Pace, Poller, PollerSettings, Raw
from berny.runtime.stage import Stop

TOPIC = "toy-items"


class Settings(PollerSettings, LandingSettings):
    """The collector's environment."""

    toy_base_url: str
    toy_api_key: str
    toy_poll_seconds: float = 60


def run(settings: Settings, stop: Stop) -> None:
    """Run the collector until it is stopped."""
    Poller(
        settings,
        source.Items(settings.toy_base_url, settings.toy_api_key),
        Pace(settings.toy_poll_seconds),
        lambda answer: response.records(answer, TOPIC, "toy", settings.berny_data_origin, source.observations),
        Publisher(settings.kafka_bootstrap_servers),
        stop,
        Raw(Landing.of(settings), seconds(settings.berny_raw_keep)),
    ).run()


if __name__ == "__main__":
    stage.main(Settings, run)
