"""From PRIM to ``idfm-realtime``, one record for each visit, and to HDFS, the raw responses."""

from __future__ import annotations

import threading

from berny.model.component import seconds
from berny.pipelines.idfm import prim
from berny.runtime import response, stage
from berny.runtime.kafka import Publisher, Record
from berny.runtime.landing import Landing, LandingSettings
from berny.runtime.poller import Pace, Poller, PollerSettings, Raw
from berny.runtime.spool import Answer
from berny.runtime.stage import Stop

TOPIC = "idfm-realtime"


class Settings(PollerSettings, LandingSettings):
    """The producer's environment."""

    prim_base_url: str = "https://prim.iledefrance-mobilites.fr"
    prim_api_key: str
    prim_monitoring_ref: str = "STIF:StopArea:SP:46007:"
    prim_line_ref: str = "STIF:Line::C01743:"
    prim_proxy: str = ""
    prim_poll_seconds: float = 90
    prim_daily_quota: int = 1000
    """Calls per day (UTC); 0 for no limit."""


def records(answer: Answer, origin: str) -> list[tuple[str, Record]]:
    """Return identity and record of each visit of a response, and a dead letter without identity for each bad part."""
    return response.records(answer, TOPIC, "prim", origin, prim.observations)


def poller(settings: Settings, stop: threading.Event) -> Poller:
    """Return the producer.

    Raises:
        Refused: the source can't be called with these settings.
    """
    source = prim.Prim(
        settings.prim_base_url,
        settings.prim_api_key,
        settings.prim_monitoring_ref,
        settings.prim_line_ref,
        proxy=settings.prim_proxy,
    )
    return Poller(
        settings,
        source,
        Pace(settings.prim_poll_seconds, settings.prim_daily_quota),
        lambda answer: records(answer, settings.berny_data_origin),
        Publisher(settings.kafka_bootstrap_servers),
        stop,
        Raw(Landing.of(settings), seconds(settings.berny_raw_keep)),
    )


def run(settings: Settings, stop: Stop) -> None:
    """Run the producer until it is stopped."""
    poller(settings, stop).run()


if __name__ == "__main__":
    stage.main(Settings, run)
