"""Compares options of Java by what a service's start costs on a lab: `python tests/compare/jvm_starts.py --name NAME`.

A start ends when the service's probe reports that it is ready. What it has cost is the processor time of all processes of its
unit until then.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

from sides import Measured, compare

from berny.lab.lab import Lab

SERVICES = (
    "master zookeeper", "master hdfs-namenode", "worker_0 hdfs-datanode", "worker_2 kafka", "master spark-master",
    "worker_1 spark-worker", "master yarn-resourcemanager", "worker_0 yarn-nodemanager", "master hbase-master",
)  # fmt: skip
SIDES = {"tiers 1 to 4": "", "tier 1": "-XX:TieredStopAtLevel=1"}
SHARED = "-XX:SharedArchiveFile={file}"
SETTLE_SECONDS = 10


class Service:
    """A service of a node, whose Java gets further options by a drop-in of its unit."""

    def __init__(self, lab: Lab, node: str, unit: str) -> None:
        self.lab, self.node, self.unit = lab, node, unit
        self.folder = f"/run/systemd/system/{unit}.service.d"
        # A folder that the unit may write to, where it has one.
        self.file = self.shell(f"systemctl show -p WorkingDirectory --value {unit}").strip() + "/berny-compare.jsa"

    def shell(self, command: str) -> str:
        """Run a command; return its output, or end with it."""
        done = self.lab.run(self.node, command, 300)
        if done.returncode:
            raise SystemExit(f"{self.node}: {command}: {(done.stderr or done.stdout)[-2000:]}")
        return done.stdout

    def options(self, options: str) -> None:
        """Have the next start use options."""
        drop = f"[Service]\\nEnvironment=JAVA_TOOL_OPTIONS={options}\\n"
        self.shell(f"sudo mkdir -p {self.folder}; printf '{drop}' | sudo tee {self.folder}/compare.conf > /dev/null")
        self.shell("sudo systemctl daemon-reload")

    def start(self, options: str) -> Measured:
        """Start it anew."""
        self.options(options)
        self.shell(f"sudo systemctl stop {self.unit}")
        since = time.monotonic()
        self.shell(f"sudo systemctl start {self.unit} && sudo berny-probe {self.unit} --wait 120")
        took = time.monotonic() - since
        used = self.shell(f"systemctl show -p CPUUsageNSec --value {self.unit}")
        resident = self.shell(f"systemctl show -p MemoryCurrent --value {self.unit}")
        time.sleep(SETTLE_SECONDS)
        later = self.shell(f"systemctl show -p CPUUsageNSec --value {self.unit}")
        return {
            "seconds": took,
            "processor seconds": int(used) / 1e9,
            f"{SETTLE_SECONDS} s later": int(later) / 1e9,
            "MiB": int(resident) / 2**20,
        }

    def archive(self) -> str:
        """Have a run write an archive of its classes; return the option that uses it, or nothing where Java refuses."""
        self.options(f"-XX:ArchiveClassesAtExit={self.file}")
        self.shell(f"sudo systemctl restart {self.unit} && sudo berny-probe {self.unit} --wait 120")
        self.shell(f"sudo systemctl stop {self.unit}")
        found = self.shell(f"sudo ls {self.file} 2> /dev/null || true").strip()
        return SHARED.format(file=self.file) if found else ""

    def clean(self) -> None:
        """Leave the service as it was."""
        self.shell(
            f"sudo rm -rf {self.folder} {self.file}; sudo systemctl daemon-reload; sudo systemctl restart {self.unit}"
        )


def main() -> None:
    """Compare on the lab that the command line names."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--name", default="lab")
    arguments.add_argument("--times", type=int, default=3)
    arguments.add_argument("--services", nargs="+", default=SERVICES, help='such as "master zookeeper"')
    given = arguments.parse_args()
    lab = Lab.existing(given.name)
    for one in given.services:
        service = Service(lab, *one.split())
        try:
            each = dict(SIDES)
            if shared := service.archive():
                each["shared classes"] = shared

            def starts(options: str, service: Service = service) -> Callable[[], Measured]:
                return lambda: service.start(options)

            compare(
                f"{service.unit} of {service.node}", {side: starts(words) for side, words in each.items()}, given.times
            )
        finally:
            service.clean()


if __name__ == "__main__":
    main()
