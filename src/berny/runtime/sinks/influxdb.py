"""InfluxDB as a sink of points: one bucket, and a token that is limited to writing to it."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence

from influxdb_client import InfluxDBClient
from influxdb_client.client.write_api import SYNCHRONOUS
from influxdb_client.rest import ApiException
from urllib3.exceptions import HTTPError

from berny.runtime.batch import BatchSettings, ItemsRefused, SinkAway
from berny.runtime.stage import ConfigurationError, log

LOGGER = logging.getLogger("influxdb")
REFUSED_BATCH = {400, 413, 422}
NEEDS_A_PERSON = {401, 403, 404}


class InfluxSettings(BatchSettings):
    """The environment of a consumer that writes to InfluxDB."""

    influx_url: str
    influx_org: str
    influx_bucket: str
    influx_bucket_id: str
    influx_token: str


class InfluxSink:
    """Writes lines (``lines.line``); a point of the same measurement, tags and time overwrites."""

    def __init__(self, settings: InfluxSettings) -> None:
        self.id = settings.influx_bucket_id
        self._url = settings.influx_url
        self._bucket = settings.influx_bucket
        client = InfluxDBClient(settings.influx_url, settings.influx_token, org=settings.influx_org, timeout=20_000)
        self._client, self._api = client, client.write_api(write_options=SYNCHRONOUS)

    def write(self, items: Sequence[str]) -> int:
        """Write lines; return how many are older than the bucket's retention.

        Raises:
            ConfigurationError: InfluxDB refuses the token or the bucket.
            ItemsRefused: InfluxDB refuses a point.
            SinkAway: InfluxDB does not respond, or reports a transient error.
        """
        try:
            self._api.write(self._bucket, record="\n".join(items))
            return 0
        except ApiException as error:
            self._end_without_bucket(error)
            if error.status not in REFUSED_BATCH:
                raise SinkAway(f"{self._url} returned {error.status}: {_text(error.body)[:200]}") from error
            too_old = expired(error.status, error.body)
            if too_old is None:
                raise ItemsRefused(f"InfluxDB refuses it: {_text(error.body)[:300]}") from error
            log(LOGGER, logging.INFO, "records are older than the bucket's retention", count=too_old)
            return too_old
        except (HTTPError, OSError) as error:
            raise SinkAway(f"{self._url}: {getattr(error, 'reason', None) or error}") from error

    def check(self) -> None:
        """Detect that the bucket or the token is gone before there is anything to write.

        Raises:
            ConfigurationError: InfluxDB refuses the token or the bucket.
            SinkAway: InfluxDB does not respond.
        """
        try:
            # Not a valid line: it is refused, but only after the token was checked.
            self._api.write(self._bucket, record="{}")
        except ApiException as error:
            self._end_without_bucket(error)
        except (HTTPError, OSError) as error:
            raise SinkAway(f"{self._url}: {getattr(error, 'reason', None) or error}") from error

    def _end_without_bucket(self, error: ApiException) -> None:
        if error.status in NEEDS_A_PERSON:
            raise ConfigurationError(
                f"InfluxDB at {self._url} returned {error.status} for the bucket "
                f"{self._bucket}: run site.yml, which creates it and renews INFLUX_TOKEN"
            ) from None


def expired(status: int | None, body: object) -> int | None:
    """Return how many points of a write were older than the bucket's retention, or None for another error.

    InfluxDB reports it after it has written all other points: 2.7.12, ``v1/coordinator/points_writer.go``.
    """
    found = (
        re.search(r"partial write: dropped (\d+) points outside retention policy", _text(body))
        if status == 422
        else None
    )
    return int(found[1]) if found else None


def _text(body: object) -> str:
    return body.decode(errors="replace") if isinstance(body, bytes) else str(body)
