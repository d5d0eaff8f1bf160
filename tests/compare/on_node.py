"""Runs a script of this folder on a node of a lab, where Berny's Python is."""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from berny.lab.harness import PYTHON_PATH
from berny.lab.lab import Lab

FOLDER = "/var/tmp/berny-compare"
TOPIC = "berny-compare"
DELETED_SECONDS = 30
PATHS = f"{FOLDER}:{PYTHON_PATH}:/opt/berny/berny-idfm/python"


class OnNode:
    """A script of this folder, sent to a node with what it needs; the node has nothing of it afterwards.

    Args:
        lab: a running lab.
        node: the name of one of its nodes.
        script: the name of a file beside this one.
        packages: Python packages, pinned, that Berny does not have.
        programs: files of this machine that the script runs.
    """

    def __init__(
        self, lab: Lab, node: str, script: str, packages: Sequence[str] = (), programs: Sequence[Path] = ()
    ) -> None:
        self.lab, self.node = lab, node
        self.script, self.packages, self.programs = script, packages, programs
        brokers = [lab.plan.nodes[broker].machine for broker in lab.plan.groups["kafka"]]
        self.servers = ",".join(f"{machine}:9092" for machine in brokers)

    def __enter__(self) -> OnNode:
        with tempfile.TemporaryDirectory() as folder:
            Path(folder).chmod(0o755)
            if self.packages:
                command = [".venv/bin/uv", "pip", "install", "-q", "--target", folder, *self.packages]
                subprocess.run(command, check=True)
            for file in (Path(__file__).with_name(self.script), *self.programs):
                (Path(folder) / file.name).write_bytes(file.read_bytes())
                (Path(folder) / file.name).chmod(0o755)
            packed = subprocess.run(["tar", "-cC", folder, "."], stdout=subprocess.PIPE, check=True).stdout
        unpack = f"sudo mkdir -p {FOLDER} && sudo tar -xC {FOLDER}"
        subprocess.run(self.lab.ssh(self.node, unpack), input=packed, check=True)
        return self

    def __exit__(self, *_: object) -> None:
        self.topics(f"--delete --if-exists --topic {TOPIC}")
        self.shell(self.node, f"sudo rm -rf {FOLDER}")

    def command(self, *words: str, user: str = "root") -> str:
        """Return the command line that runs the script."""
        return f"sudo -u {user} env PYTHONPATH={PATHS} python3 {FOLDER}/{self.script} {' '.join(words)}"

    def run(self, *words: str, seconds: float = 400, user: str = "root") -> dict[str, Any]:
        """Return the JSON of the script's last line."""
        return dict(json.loads(self.shell(self.node, self.command(*words, user=user), seconds).splitlines()[-1]))

    def shell(self, node: str, command: str, seconds: float = 60) -> str:
        """Run a command on a node; return its output, or end with it."""
        done = self.lab.run(node, command, seconds)
        if done.returncode:
            raise SystemExit(f"{node}: {command}: {(done.stderr or done.stdout)[-2000:]}")
        return done.stdout

    def topics(self, words: str) -> str:
        """Run ``kafka-topics.sh``; return its output."""
        return self.shell("master", f"kafka-topics.sh --bootstrap-server {self.servers} {words}")

    def anew(self) -> None:
        """Create the topic anew."""
        self.topics(f"--delete --if-exists --topic {TOPIC}")
        until = time.monotonic() + DELETED_SECONDS
        while self._topic_exists():
            if time.monotonic() > until:
                raise SystemExit(f"the topic {TOPIC} is not deleted after {DELETED_SECONDS} s")
        self.topics(f"--create --topic {TOPIC} --partitions 3 --replication-factor 2")

    def _topic_exists(self) -> bool:
        return TOPIC in self.topics("--list").split()
