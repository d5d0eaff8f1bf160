"""Compares ways from Kafka to InfluxDB on a lab: `python tests/compare/influx_writers.py --name NAME --telegraf FILE`.

From a full topic to a bucket of its own, on the node of InfluxDB. What the pipelines of the lab do meanwhile is measured too:
give it a rate of 0 before.
"""

from __future__ import annotations

import argparse
import json
import shlex
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from on_node import TOPIC, OnNode
from sides import Measured, compare

from berny.lab.lab import Lab

BUCKET = "berny-compare"
ASK = """
import sys, urllib.request
method, url, token, body = sys.argv[1:]
headers = {"Authorization": "Token " + token, "Content-Type": "application/json"}
asked = urllib.request.Request(url, body.encode() or None, headers, method=method)
print(urllib.request.urlopen(asked, timeout=30).read().decode())
"""


class Influx:
    """The lab's InfluxDB, as its first user; from its own node, since only cluster nodes may connect."""

    def __init__(self, lab: Lab) -> None:
        self.lab, self.node = lab, lab.plan.groups["influxdb"][0]
        self.url = f"http://{lab.plan.nodes[self.node].machine}:8086"
        self.token = yaml.safe_load((lab.plan.folder / "secrets.yml").read_text())["influxdb_admin_token"]

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """Return what it responds."""
        words = [method, f"{self.url}/api/v2/{path}", self.token, json.dumps(body) if body else ""]
        done = self.lab.run(self.node, shlex.join(["python3", "-c", ASK, *words]))
        if done.returncode:
            raise SystemExit(f"{method} {path}: {done.stderr}")
        return json.loads(done.stdout.strip() or "null")

    def anew(self) -> dict[str, str]:
        """Create the bucket anew; return what a writer has to know."""
        self.delete()
        org = self.ask("GET", "orgs")["orgs"][0]
        bucket = self.ask("POST", "buckets", {"name": BUCKET, "orgID": org["id"], "retentionRules": []})
        return {"url": self.url, "org": org["name"], "bucket": BUCKET, "bucket_id": bucket["id"], "token": self.token}

    def delete(self) -> None:
        """Delete the bucket."""
        for bucket in self.ask("GET", "buckets?limit=100")["buckets"]:
            if bucket["name"] == BUCKET:
                self.ask("DELETE", f"buckets/{bucket['id']}")


def measure(script: OnNode, influx: Influx, records: int, side: str, action: str = "measure") -> Measured:
    """Fill the topic, or write what it has into a new bucket."""
    known = shlex.quote(json.dumps(influx.anew()))
    words = f"--servers {script.servers} --topic {TOPIC} --records {records} --influx {known}"
    if action == "fill":
        script.shell(script.node, script.command(action, side, words), 600)
        return {}
    return script.run(action, side, words)


def main() -> None:
    """Compare on the lab that the command line names."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--name", default="lab")
    arguments.add_argument("--times", type=int, default=3)
    arguments.add_argument("--records", type=int, default=500_000)
    arguments.add_argument("--telegraf", type=Path, help="Telegraf's program; without it, it is left out")
    arguments.add_argument("--sides", nargs="+", default=["berny", "seed", "telegraf"])
    given = arguments.parse_args()
    lab = Lab.existing(given.name)
    influx = Influx(lab)
    programs = [given.telegraf] if given.telegraf else []
    sides = [side for side in given.sides if programs or side != "telegraf"]
    with OnNode(lab, influx.node, "influx_writer.py", programs=programs) as script:
        script.anew()
        try:
            measure(script, influx, given.records, "berny", "fill")
            each = {side: partial(measure, script, influx, given.records, side) for side in sides}
            compare("from Kafka to InfluxDB", each, given.times)
        finally:
            influx.delete()


if __name__ == "__main__":
    main()
