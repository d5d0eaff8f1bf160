"""For a bench: print each second when the newest point was recorded, in Unix seconds; nothing where InfluxDB is silent."""

from __future__ import annotations

import time

from influxdb_client import InfluxDBClient
from influxdb_client.rest import ApiException
from urllib3.exceptions import HTTPError

from berny.pipelines.idfm.points import MEASUREMENT
from berny.pipelines.idfm.status import TOKEN
from berny.runtime.probe import Cluster


def main() -> None:
    """Ask until nobody listens any more."""
    cluster = Cluster.load()
    url = "http://{}:{}".format(*cluster.endpoint("influxdb", "http"))
    bucket = next(iter(cluster.facts["pipelines"]["idfm"]["resources"]["influxdb"]))
    flux = (
        f'from(bucket: "{bucket}") |> range(start: -10m)'
        f' |> filter(fn: (r) => r._measurement == "{MEASUREMENT}" and r._field == "cancelled")'
        ' |> last() |> keep(columns: ["_time"]) |> group() |> max(column: "_time")'
    )
    while True:
        since = time.monotonic()
        try:
            # Anew each time: an InfluxDB that lost its disk and was restored has another token.
            with InfluxDBClient(url, TOKEN.read_text().strip(), org="berny", timeout=5_000) as client:
                found = [record.get_time() for table in client.query_api().query(flux) for record in table.records]
            print(found[0].timestamp() if found else "", flush=True)
        except (ApiException, HTTPError):
            print(flush=True)
        time.sleep(max(0.0, 1 - (time.monotonic() - since)))


if __name__ == "__main__":
    main()
