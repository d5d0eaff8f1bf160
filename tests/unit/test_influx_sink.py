"""InfluxDB as a sink, asked of the InfluxDB that nodes run: what it refuses, what it no longer keeps, and that it is away."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from influxdb_client import InfluxDBClient

from berny.runtime.batch import ItemsRefused, SinkAway
from berny.runtime.lines import line
from berny.runtime.sinks.influxdb import InfluxSettings, InfluxSink
from berny.runtime.stage import ConfigurationError

DAY = 86400


@dataclass
class Server:
    """An InfluxDB with one bucket that keeps a week."""

    url: str
    bucket_id: str
    process: subprocess.Popen[bytes]

    def sink(self, **other: Any) -> InfluxSink:
        """Return a sink of its bucket, or of what is given instead."""
        words = {"influx_url": self.url, "influx_org": "o", "influx_bucket": "b", "influx_bucket_id": self.bucket_id,
                 "influx_token": "admin", "berny_state_dir": "/nowhere", "kafka_bootstrap_servers": "-",
                 "berny_pipeline": "p", "berny_stage": "s", "berny_metrics_port": 1}  # fmt: skip
        return InfluxSink(InfluxSettings.model_validate(words | other))

    def values(self, measurement: str) -> list[Any]:
        """Return every value of a measurement."""
        flux = f'from(bucket: "b") |> range(start: 0) |> filter(fn: (r) => r._measurement == "{measurement}")'
        with InfluxDBClient(self.url, "admin", org="o") as client:
            return sorted(record.get_value() for table in client.query_api().query(flux) for record in table.records)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, archive: Callable[[str], Path]) -> Iterator[Server]:
    """Run one on a free port of 127.0.0.1."""
    folder: Path = tmp_path_factory.mktemp("influxdb")
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
    words = [f"--bolt-path={folder}/bolt", f"--sqlite-path={folder}/sqlite", f"--engine-path={folder}/engine",
             f"--http-bind-address=127.0.0.1:{port}", "--reporting-disabled", "--log-level=error"]  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    with subprocess.Popen([archive("influxdb") / "bin" / "influxd", *words]) as process:
        try:
            deadline = time.monotonic() + 60
            while not ready(url):
                assert process.poll() is None and time.monotonic() < deadline
                time.sleep(0.1)
            body = {"username": "admin", "password": "a password", "token": "admin", "org": "o", "bucket": "b",
                    "retentionPeriodSeconds": 7 * DAY}  # fmt: skip
            made = requests.post(f"{url}/api/v2/setup", json=body, timeout=30)
            made.raise_for_status()
            yield Server(url, made.json()["bucket"]["id"], process)
        finally:
            process.kill()


def ready(url: str) -> bool:
    """Tell whether it serves."""
    try:
        return requests.get(f"{url}/health", timeout=5).ok
    except requests.RequestException:
        return False


def point(measurement: str, value: int | str, age: float = 0, tag: str = "one") -> str:
    """Return the line of a point of so many seconds ago."""
    moment = (int(time.time()) - int(age)) // 3600 * 3600 * 10**9
    return line(measurement, {"tag": tag}, {"value": value}, moment)


def test_points_that_are_written_again_overwrite(server: Server) -> None:
    """A batch that was not committed comes twice."""
    sink, points = server.sink(), [point("again", number, tag=str(number)) for number in range(3)]
    assert [sink.write(points) for _ in range(2)] == [0, 0]
    assert server.values("again") == [0, 1, 2]
    assert sink.id == server.bucket_id


def test_point_that_is_refused_is_told(server: Server) -> None:
    """Of another type than the field has by now; what is beside it is written once it is alone."""
    sink = server.sink()
    sink.write([point("typed", 1, tag="a")])
    with pytest.raises(ItemsRefused, match=r"InfluxDB refuses it: .*field type conflict"):
        sink.write([point("typed", "text", tag="b"), point("typed", 2, tag="c")])
    sink.write([point("typed", 2, tag="c")])
    assert server.values("typed") == [1, 2]


def test_points_older_than_the_bucket_keeps_are_counted(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """The others are written, and none is refused."""
    caplog.set_level("INFO")
    old = [point("old", number, 30 * DAY, str(number)) for number in range(2)]
    assert server.sink().write([old[0], point("old", 7), old[1]]) == 2
    assert server.values("old") == [7]
    assert "records are older than the bucket's retention" in caplog.messages


@pytest.mark.parametrize("wrong", [{"influx_token": "another"}, {"influx_bucket": "gone"}])
def test_token_or_bucket_that_is_gone_needs_a_person(server: Server, wrong: dict[str, str]) -> None:
    """With something to write and without; what is to be done is told, the token is not."""
    for call in (lambda sink: sink.write([point("no", 1)]), lambda sink: sink.check()):
        with pytest.raises(
            ConfigurationError, match=r"run site\.yml, which creates it and renews INFLUX_TOKEN"
        ) as error:
            call(server.sink(**wrong))
        assert "another" not in str(error.value)
    server.sink().check()


def test_server_that_is_away_gets_it_later(server: Server) -> None:
    """Once it is back the same sink works."""
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        nobody = f"http://127.0.0.1:{taken.getsockname()[1]}"
    away = server.sink(influx_url=nobody)
    with pytest.raises(SinkAway, match="refused"):
        away.write([point("away", 1)])
    with pytest.raises(SinkAway, match="refused"):
        away.check()
