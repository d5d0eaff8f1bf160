"""From OpenWeather to ``weather-api``: one record for each city and poll whose weather is new."""

from __future__ import annotations

import threading

from berny.pipelines.openweather import openweather
from berny.pipelines.openweather.settings import TopicSettings
from berny.runtime import response, stage
from berny.runtime.kafka import Publisher, Record
from berny.runtime.poller import Poller, PollerSettings
from berny.runtime.source import Refused
from berny.runtime.spool import Answer
from berny.runtime.stage import Stop


class Settings(TopicSettings, PollerSettings):
    """The producer's environment."""

    openweather_base_url: str = "https://api.openweathermap.org"
    openweather_api_key: str
    openweather_proxy: str = ""
    openweather_poll_seconds: float = 600
    """Of each city."""
    openweather_calls_a_minute: int = 60
    """Of all cities; 0 for no limit."""
    city: str = "Paris"


def records(answer: Answer, topic: str, origin: str) -> list[tuple[str, Record]]:
    """Return identity and record of a poll; a dead letter, without identity, of each part that is none."""
    return response.records(answer, topic, "openweather", origin, openweather.observations)


def poller(settings: Settings, stop: threading.Event) -> Poller:
    """Return the producer.

    Raises:
        Refused: the source can't be asked with these settings.
    """
    names = openweather.cities(settings.city)
    if not names:
        raise Refused("CITY names no city: give it as `Paris, Lyon`")
    return Poller(
        settings,
        openweather.OpenWeather(
            settings.openweather_base_url, settings.openweather_api_key, names, settings.openweather_proxy
        ),
        openweather.pace(settings.openweather_poll_seconds, len(names), settings.openweather_calls_a_minute),
        lambda answer: records(answer, settings.topic_name, settings.berny_data_origin),
        Publisher(settings.kafka_bootstrap_servers),
        stop,
    )


def run(settings: Settings, stop: Stop) -> None:
    """Run the producer until it is stopped."""
    poller(settings, stop).run()


if __name__ == "__main__":
    stage.main(Settings, run)
