"""Compares the two clients of Kafka on a lab: `python tests/compare/kafka_clients.py --name NAME`.

Rate and processor time of publishing and reading on a node of its own, and what a broker that is killed does to each.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from functools import partial
from typing import Any

from on_node import TOPIC, OnNode
from sides import Measured, compare

from berny.lab.lab import Lab

CLIENTS = ["confluent-kafka", "kafka-python"]
PACKAGES = ["kafka-python==3.0.12", "lz4==4.4.5"]
NODE, KILLED = "worker_1", "worker_2"
FAULT_SECONDS, KILL_AFTER_SECONDS = 45, 15


def publish(script: OnNode, records: int, client: str) -> Measured:
    """Measure publishing."""
    script.anew()
    return rates(script.run("publish", client, script.servers, TOPIC, f"--records {records}"), records)


def read(script: OnNode, records: int, client: str) -> Measured:
    """Measure reading; the topic holds the records already."""
    found = script.run("read", client, script.servers, TOPIC, f"--records {records}")
    return rates(found, found["counted"])


def fault(script: OnNode, client: str) -> Measured:
    """Kill a broker while records are published; systemd starts it again."""
    script.anew()
    command = script.command("publish-slowly", client, script.servers, TOPIC, f"--seconds {FAULT_SECONDS}")
    with subprocess.Popen(script.lab.ssh(script.node, command), stdout=subprocess.PIPE, text=True) as publishing:
        time.sleep(KILL_AFTER_SECONDS)
        script.shell(KILLED, "sudo systemctl kill -s KILL kafka")
        said = json.loads(publishing.communicate(timeout=FAULT_SECONDS + 120)[0].splitlines()[-1])
    counted = script.run("count", "confluent-kafka", script.servers, TOPIC)
    return {
        "longest wait, s": said["longest"],
        "batches sent again": said["again"],
        "lost": said["published"] - counted["different"],
        "twice": counted["records"] - 1 - counted["different"],
    }


def rates(found: dict[str, Any], records: int) -> Measured:
    """Return records per second, and microseconds of processor time for each."""
    return {"records/s": records / found["seconds"], "µs of processor/record": 1e6 * found["cpu"] / records}


def main() -> None:
    """Compare on the lab that the command line names."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--name", default="lab")
    arguments.add_argument("--times", type=int, default=3)
    arguments.add_argument("--records", type=int, default=100_000, help="1.6 kB each")
    given = arguments.parse_args()
    with OnNode(Lab.existing(given.name), NODE, "kafka_client.py", PACKAGES) as script:
        for title, measure in {
            "publish": partial(publish, script, given.records),
            "read": partial(read, script, given.records),
            "a broker is killed": partial(fault, script),
        }.items():
            compare(title, {client: partial(measure, client) for client in CLIENTS}, given.times)


if __name__ == "__main__":
    main()
