"""Compares ways from a file of customers to PostgreSQL on a lab: `python tests/compare/customer_rows.py --name NAME`.

Berny's way is the whole pipeline, from the version that is stored to the last row of its tables. Give the lab's other
pipelines a rate of 0 before.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

from on_node import FOLDER, TOPIC, OnNode
from sides import Measured, compare

from berny.lab import harness
from berny.lab.lab import Lab
from berny.pipelines.customers.controller import people

PIPELINE = "customers"
UNIT = f"berny-{PIPELINE}-producer"
DELIVERED_SECONDS, STORED_SECONDS = 60, 300
STORED = """
SELECT extract(epoch FROM max(stored_at) - min(observed_at)) FROM
(SELECT stored_at, observed_at FROM customers UNION ALL SELECT stored_at, observed_at FROM customers_alerts) AS stored
WHERE observed_at >= to_timestamp({since})
"""


class Pipeline:
    """The lab's pipeline customers."""

    def __init__(self, lab: Lab, node: str, rows: int) -> None:
        self.lab, self.node, self.rows = lab, node, rows
        self.simulator = lab.simulators[PIPELINE]
        self.tries = 0

    def shell(self, node: str, command: str) -> str:
        """Run a command on a node; return its output, or end with it."""
        done = self.lab.run(node, command, 120)
        if done.returncode:
            raise SystemExit(f"{node}: {command}: {done.stderr}")
        return done.stdout.strip()

    def served(self) -> int:
        """Return how many rows were served."""
        return int(self.simulator.ask("/_simulator/stats")["served"])

    def load(self, run: str, rate: float) -> None:
        """Set the load."""
        self.simulator.ask("/_simulator/run", {"run": run, "rate": rate})

    def measure(self) -> Measured:
        """Serve one version, and wait until both tables have it."""
        self.tries += 1
        run, since = f"compare-{self.tries}", time.time()
        self.load(run, 0)
        self.shell("master", f"sudo systemctl stop {UNIT}")
        before = self.served()
        self.load(run, self.rows / 5)
        time.sleep(5)
        self.shell("master", f"sudo systemctl start {UNIT}")
        self.wait(lambda: self.served() > before, DELIVERED_SECONDS, "the producer does not read the file")
        self.load(f"after-{run}", 0)

        def clean() -> bool:
            return harness.check(self.lab, PIPELINE, [run]).returncode == 0

        self.wait(clean, STORED_SECONDS, "not every row is in every sink")
        query = STORED.format(since=since).replace("\n", " ")
        seconds = float(self.shell(self.node, f'psql -At -d {PIPELINE} -c "{query}"'))
        return {"rows/s": (self.served() - before) / seconds}

    def wait(self, done: Any, seconds: float, words: str) -> None:
        """Wait until something is true, or end with words."""
        until = time.monotonic() + seconds
        while not done():
            if time.monotonic() > until:
                raise SystemExit(f"after {seconds:.0f} s: {words}")
            time.sleep(1)


def main() -> None:
    """Compare on the lab that the command line names."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--name", default="lab")
    arguments.add_argument("--times", type=int, default=3)
    arguments.add_argument("--rows", type=int, default=20_000, help="rows of each of Berny's versions")
    given = arguments.parse_args()
    lab = Lab.existing(given.name)
    node = lab.plan.groups["postgresql"][0]
    pipeline = Pipeline(lab, node, given.rows)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "customers.csv"
        file.write_bytes(people.text([people.customer(number, 1) for number in range(given.rows)], "utf-8"))
        with OnNode(lab, node, "row_by_row.py", programs=[file]) as script:
            script.shell(node, "sudo -u postgres dropdb --if-exists berny_compare")
            script.shell(node, "sudo -u postgres createdb berny_compare")
            try:

                def seed() -> Measured:
                    script.anew()
                    words = (f"{FOLDER}/{file.name}", "--servers", script.servers, "--topic", TOPIC)
                    return script.run(*words, user="postgres")

                compare("from the file to PostgreSQL", {"berny": pipeline.measure, "seed": seed}, given.times)
            finally:
                script.shell(node, "sudo -u postgres dropdb --if-exists berny_compare")


if __name__ == "__main__":
    main()
