#!/usr/bin/python3
"""Reports the contents of a broker's disk, from its files alone, whether the broker runs or not."""

from __future__ import annotations

DOCUMENTATION = """
module: kafka_disk
short_description: Read the contents of a broker's disk; changes nothing
options:
  directory: {description: The broker's log directory., type: path, required: true}
author: [Berny (@berny)]
"""
EXAMPLES = """
- name: Read the disk
  kafka_disk: {directory: /data/kafka/log}
"""
RETURN = """
cluster_id: {description: The Kafka cluster that the disk belongs to; empty for an empty disk., type: str, returned: always}
topics:
  description: 'By name: id, and for each partition the last leader epoch, and first offset and size of the last segment.'
  type: dict
  returned: always
"""

import re
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

# Partitions that Kafka is deleting, and stray ones, have a suffix after the number and do not match.
FOLDER = re.compile(r"(?P<topic>[a-zA-Z0-9._-]+)-(?P<partition>\d+)")


def lines(path: Path) -> list[str]:
    """Return the lines of a file, none if it does not exist."""
    return path.read_text().splitlines() if path.exists() else []


def last_epoch(folder: Path) -> int:
    """Return a partition's last leader epoch. ``leader-epoch-checkpoint`` has version, count, then lines EPOCH OFFSET."""
    return max((int(line.split()[0]) for line in lines(folder / "leader-epoch-checkpoint")[2:]), default=0)


def topics(directory: Path) -> dict[str, Any]:
    """Return the topics of a log directory."""
    found: dict[str, Any] = {}
    for folder in sorted(directory.iterdir()) if directory.exists() else []:
        match = FOLDER.fullmatch(folder.name)
        segments = sorted(folder.glob("*.log")) if match else []
        if not match or not segments:
            continue
        facts = dict(line.split(": ", 1) for line in lines(folder / "partition.metadata"))
        topic = found.setdefault(match["topic"], {"id": facts.get("topic_id"), "partitions": {}})
        last = segments[-1]
        reached = {"epoch": last_epoch(folder), "offset": int(last.stem), "bytes": last.stat().st_size}
        topic["partitions"][match["partition"]] = reached
    return found


def main() -> None:
    module = AnsibleModule(argument_spec={"directory": {"type": "path", "required": True}}, supports_check_mode=True)
    directory = Path(module.params["directory"])
    facts = dict(line.split("=", 1) for line in lines(directory / "meta.properties") if "=" in line)
    module.exit_json(changed=False, cluster_id=facts.get("cluster.id", ""), topics=topics(directory))


if __name__ == "__main__":
    main()
