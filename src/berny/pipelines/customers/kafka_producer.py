"""From ``customers.csv`` in S3 to ``customers-raw``: one record for each row, once for each version of the file."""

from __future__ import annotations

import threading

from pydantic import Field

from berny.pipelines.customers import records
from berny.pipelines.customers.s3 import S3Object
from berny.runtime import stage
from berny.runtime.file_poller import FilePoller
from berny.runtime.kafka import Publisher, Publishes
from berny.runtime.poller import PollerSettings
from berny.runtime.stage import Stop

TOPIC = "customers-raw"


class Settings(PollerSettings):
    """The producer's environment."""

    customers_s3_endpoint: str = ""
    """Amazon's without one."""
    customers_s3_region: str = "us-east-1"
    customers_s3_bucket: str = "customers"
    customers_s3_key: str = "customers.csv"
    customers_s3_access_key: str = ""
    customers_s3_secret_key: str
    customers_poll_seconds: float = Field(60, gt=0)
    """How often the file is looked for."""
    customers_rows_a_second: float = Field(10, ge=0)
    """How fast rows are published; 0 for as fast as brokers take them."""


def poller(settings: Settings, publisher: Publishes, stop: threading.Event) -> FilePoller:
    """Return the producer.

    Raises:
        Refused: the source can't be asked with these settings.
    """
    source = S3Object(
        settings.customers_s3_endpoint,
        settings.customers_s3_region,
        settings.customers_s3_bucket,
        settings.customers_s3_key,
        settings.customers_s3_access_key,
        settings.customers_s3_secret_key,
    )
    return FilePoller(
        settings,
        source,
        settings.customers_poll_seconds,
        lambda version: records.rows(version, TOPIC, settings.berny_data_origin),
        settings.customers_rows_a_second,
        publisher,
        stop,
    )


def run(settings: Settings, stop: Stop) -> None:
    """Run the producer until it is stopped."""
    poller(settings, Publisher(settings.kafka_bootstrap_servers), stop).run()


if __name__ == "__main__":
    stage.main(Settings, run)
