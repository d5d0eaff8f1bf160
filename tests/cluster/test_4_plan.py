"""``berny plan``: what a converge would change and restart, held against a dry run of ``site.yml``."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from support import Cluster, on_controller, play

VARIABLE = ("-e", "kafka_log_segment_bytes=33554432")


def planned(*options: str) -> str:
    """Return what the command prints, without what it says of its progress."""
    done = on_controller([str(Path(sys.executable).with_name("berny")), "plan", *options])
    assert done.returncode == 0, done.stdout
    return "".join(line for line in done.stdout.splitlines(keepends=True) if not re.match(r"\s*[…✔] ?", line.strip()))


def test_nothing_is_planned_where_nothing_would_change(cluster: Cluster) -> None:
    assert planned() == ""


def test_what_runs_beside_a_service_is_planned_and_started(cluster: Cluster) -> None:
    """Without a restart of the service itself."""
    before = cluster.processes()
    cluster.sh("master", "sudo systemctl disable --now berny-spark-events.timer")
    assert planned("--tags", "spark") == "master\n  spark-master: starts berny-spark-events.timer\n"
    assert play("site.yml", "--tags", "spark").recap("changed") == 1
    cluster.sh(
        "master", "systemctl is-active berny-spark-events.timer && systemctl is-enabled berny-spark-events.timer"
    )
    assert cluster.processes() == before


def test_the_plan_is_what_a_dry_run_finds(cluster: Cluster) -> None:
    """The brokers and nobody else; the file with what would change in it, and nothing is touched."""
    before = cluster.processes()
    lines = planned("--diff", *VARIABLE).splitlines()
    brokers = cluster.groups["kafka"]
    assert [line for line in lines if not line.startswith(" ")] == sorted(brokers)
    service = "  kafka: restarts; writes /etc/berny/kafka/server.properties"
    assert [line for line in lines if re.match(r"  \S", line)].count(service) == len(brokers), lines
    assert sum("+log.segment.bytes=33554432" in line for line in lines) == len(brokers)
    dry = play("site.yml", "--check", "--diff", *VARIABLE)
    changed = {host for host, count in re.findall(r"^(\w+)\s+: .*changed=(\d+)", dry.output, re.M) if count != "0"}
    assert changed == set(brokers)
    assert sum("+log.segment.bytes=33554432" in line for line in dry.output.splitlines()) == len(brokers)
    assert cluster.processes() == before
