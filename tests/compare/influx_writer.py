"""Fills a topic with records of ``idfm-processed``, or writes it to InfluxDB in one of three ways, on a node.

``berny`` is the pipeline's own consumer; ``seed`` writes each record by a call of its own, as a first script does it;
``telegraf`` is its ``kafka_consumer`` and ``influxdb_v2``. Each joins a group of its own, and has written the topic once that
has committed its end.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, TopicPartition

from berny.pipelines.idfm.influx_consumer import Settings
from berny.pipelines.idfm.points import point
from berny.runtime import batch
from berny.runtime.kafka import Publisher, Record
from berny.runtime.sinks.influxdb import InfluxSink

ASK_SECONDS = 0.2
TELEGRAF = """
[agent]
  interval = "1s"
  flush_interval = "1s"
  metric_batch_size = 5000
  metric_buffer_limit = 100000
  omit_hostname = true
[[inputs.kafka_consumer]]
  brokers = {brokers}
  topics = ["{topic}"]
  consumer_group = "{group}"
  offset = "oldest"
  max_undelivered_messages = 50000
  data_format = "json_v2"
  topic_tag = ""
  [[inputs.kafka_consumer.json_v2]]
    measurement_name = "health"
    timestamp_path = "recorded_at"
    timestamp_format = "2006-01-02T15:04:05.000Z"
{tags}
{fields}
[[outputs.influxdb_v2]]
  urls = ["{influx_url}"]
  token = "{influx_token}"
  organization = "{influx_org}"
  bucket = "{influx_bucket}"
"""
# The journey is no tag, as in Berny's points: each train would be a series of its own.
TAGS = ("direction", "line", "mission", "stop")
FIELDS = {
    "identity": "string", "journey": "string", "cancelled": "bool", "delay_sec": "float", "status": "string",
    "status_told": "string", "destination": "string", "platform": "string", "data_origin": "string", "theoretical": "string",
    "predicted": "string",
}  # fmt: skip


def record(number: int, now: float) -> dict[str, Any]:
    """Return a record of ``idfm-processed``; a train is seen twenty times."""
    digest = hashlib.sha256(f"{now}{number}".encode()).hexdigest()
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now - number // 100)) + f".{number % 1000:03}Z"
    return {
        "identity": digest[:32], "line": "C01743", "stop": "STIF:StopArea:SP:46007:", "stop_name": "La Croix de Berny",
        "direction": "Aller", "destination": "Aéroport Charles de Gaulle 2 TGV", "mission": "EKLI",
        "journey": f"RATP-SIV:VehicleJourney::RB.{number // 20:08}:LOC", "platform": "1", "theoretical": moment,
        "predicted": moment, "delay_sec": float(number % 300), "status_told": "onTime", "status": "onTime",
        "cancelled": False, "at_stop": False, "recorded_at": moment, "observed_at": now, "data_origin": "simulated",
    }  # fmt: skip


def fill(given: argparse.Namespace) -> None:
    """Publish the records."""
    publisher, now = Publisher(given.servers), time.time()
    for first in range(0, given.records, 5000):
        numbers = range(first, min(first + 5000, given.records))
        publisher.publish(
            Record(given.topic, str(number % 50).encode(), json.dumps(record(number, now)).encode())
            for number in numbers
        )


def berny(settings: Settings, given: argparse.Namespace) -> None:
    """Run the pipeline's consumer."""
    sink = InfluxSink(settings)
    batch.run(settings, given.topic, given.group, sink, lambda found, _: point(found), threading.Event())


def seed(settings: Settings, given: argparse.Namespace) -> None:
    """Write each record by itself."""
    from influxdb_client import InfluxDBClient
    from influxdb_client.client.write_api import SYNCHRONOUS

    client = InfluxDBClient(settings.influx_url, settings.influx_token, org=settings.influx_org)
    write = client.write_api(write_options=SYNCHRONOUS)
    consumer = Consumer(
        {"bootstrap.servers": given.servers, "group.id": given.group, "auto.offset.reset": "earliest",
         "auto.commit.interval.ms": 1000}
    )  # fmt: skip
    consumer.subscribe([given.topic])
    while True:
        message = consumer.poll(1)
        if message and not message.error():
            write.write(settings.influx_bucket, record=point(json.loads(message.value() or b"")))


def telegraf(settings: Settings, given: argparse.Namespace) -> None:
    """Run Telegraf."""
    tags = "".join(f'    [[inputs.kafka_consumer.json_v2.tag]]\n      path = "{name}"\n' for name in TAGS)
    fields = "".join(
        f'    [[inputs.kafka_consumer.json_v2.field]]\n      path = "{name}"\n      type = "{kind}"\n'
        for name, kind in FIELDS.items()
    )
    named = settings.model_dump() | {"topic": given.topic, "group": given.group}
    text = TELEGRAF.format(**named, brokers=json.dumps(given.servers.split(",")), tags=tags, fields=fields)
    file = Path(f"{given.folder}/telegraf.conf")
    file.write_text(text)
    # Telegraf keeps secrets in locked memory, and waits for ever in a container, which may not lock any.
    words = ["--quiet", "--unprotected", "--non-strict-env-handling"]
    subprocess.run([f"{given.folder}/telegraf", "--config", file, *words], check=True)


class Written:
    """How many records of the topic the group has committed, asked over one connection."""

    def __init__(self, given: argparse.Namespace) -> None:
        settings = {"bootstrap.servers": given.servers, "group.id": given.group, "enable.auto.commit": False}
        self._asking = Consumer(settings)
        found = self._asking.list_topics(given.topic, timeout=10).topics[given.topic].partitions
        self._partitions = [TopicPartition(given.topic, number) for number in found]

    def count(self) -> int:
        """Return it."""
        return sum(max(0, partition.offset) for partition in self._asking.committed(self._partitions, timeout=10))


def measure(given: argparse.Namespace) -> dict[str, float]:
    """Start a writer, and measure from its first commit until nothing is left, or as long as is measured."""
    command = [sys.executable, __file__, "run", given.side, *sys.argv[3:], "--group", given.group]
    written = Written(given)
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True) as writer:
        first = since = 0.0
        until = time.monotonic() + given.seconds
        try:
            while time.monotonic() < until and writer.poll() is None:
                count = written.count()
                if not since and count:
                    first, since = count, time.monotonic()
                if count >= given.records:
                    break
                # Brokers announce no commits.
                time.sleep(ASK_SECONDS)
            took = time.monotonic() - since
            cpu, peak = _used(writer.pid)
        finally:
            subprocess.run(["pkill", "-TERM", "-g", str(writer.pid)])
    return {"points/s": (count - first) / took, "µs of processor/point": 1e6 * cpu / count, "peak MiB": peak}


def _used(pid: int) -> tuple[float, float]:
    """Return the processor time in seconds and the peak of resident memory in MiB of a process, or of its child."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    folder = Path(f"/proc/{children[0] if children else pid}")
    ticks = folder.joinpath("stat").read_text().rpartition(")")[2].split()[11:13]
    peak = next(line for line in folder.joinpath("status").read_text().splitlines() if line.startswith("VmHWM"))
    return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK"), int(peak.split()[1]) / 1024


def main() -> None:
    """Do what the command line says."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("action", choices=["fill", "run", "measure"])
    arguments.add_argument("side", choices=["berny", "seed", "telegraf"])
    arguments.add_argument("--servers", required=True)
    arguments.add_argument("--topic", required=True)
    arguments.add_argument("--records", type=int, default=500_000)
    arguments.add_argument("--seconds", type=float, default=60)
    arguments.add_argument("--folder", default="/var/tmp/berny-compare")
    arguments.add_argument("--influx", required=True, help="JSON of url, org, bucket, bucket_id, token")
    arguments.add_argument("--group", default=f"compare-{time.time():.6f}")
    given = arguments.parse_args()
    influx = {f"influx_{name}": value for name, value in json.loads(given.influx).items()}
    settings = Settings.model_validate(
        influx | {"berny_pipeline": "compare", "berny_stage": given.side, "berny_metrics_port": 1,
                  "kafka_bootstrap_servers": given.servers, "berny_state_dir": given.folder}
    )  # fmt: skip
    if given.action == "fill":
        fill(given)
    elif given.action == "measure":
        print(json.dumps(measure(given)))
    else:
        {"berny": berny, "seed": seed, "telegraf": telegraf}[given.side](settings, given)


if __name__ == "__main__":
    main()
