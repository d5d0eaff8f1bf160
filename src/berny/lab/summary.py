"""What a lab's cluster does now: components, pipelines, addresses."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from rich.console import Console
from rich.table import Table

from berny.catalog import load_catalog, load_pipelines
from berny.lab.lab import Lab
from berny.lab.plan import LabError, read_mapping

PAGES = {"hdfs-namenode": ("web", "HDFS"), "spark-master": ("web", "Spark"), "influxdb": ("http", "InfluxDB (API)")}
STATUS = "sudo env PYTHONPATH=/opt/berny/berny/python:/opt/berny/runtime/python python3 -m berny.pipelines.status"


def probes(lab: Lab) -> dict[str, list[dict[str, Any]]]:
    """Return the answers of all probes by node; an empty list for a node that does not answer."""

    def ask(node: str) -> list[dict[str, Any]]:
        done = lab.run(node, "sudo berny-probe --all --json")
        return json.loads(done.stdout) if done.stdout.startswith("[") else []

    with ThreadPoolExecutor(len(lab.machines)) as pool:
        return dict(zip(lab.machines, pool.map(ask, lab.machines), strict=True))


def pipeline_status(lab: Lab, name: str) -> dict[str, Any]:
    """Return a pipeline's status, asked where InfluxDB runs.

    Raises:
        LabError: it can't be told; the message has the last line of what was said.
    """
    done = lab.run(read_mapping()["influxdb"][0], f"{STATUS} {name} --json")
    if done.returncode:
        said = (done.stderr.strip() or "no answer").splitlines()[-1]
        raise LabError(f"{name}: {said}")
    return dict(json.loads(done.stdout))


def show(lab: Lab, console: Console) -> None:
    """Print the tables."""
    table = Table("component", "node", "version", "serving", "whole", "memory", "", box=None)
    total = 0
    for node, answers in probes(lab).items():
        if not answers:
            table.add_row("?", node, "", "[red]no[/]", "", "", "no answer: is it provisioned?")
        for health in answers:
            memory = health["memory_bytes"] or 0
            total += memory
            row = [health["service"], node, health["version"]]
            row += ["yes" if health[word] else "[red]no[/]" for word in ("serving", "whole")]
            detail = "" if health["whole"] else health["detail"]
            table.add_row(*row, f"{memory >> 20} MiB" if memory else "", detail)
    console.print(table)
    console.print(f"memory of all: {total / 2**30:.2f} GiB resident", highlight=False)
    rows = Table("pipeline", "observed", "computed", "stored", "oldest unprocessed", "freshness", box=None)
    delays = []
    for name in load_pipelines():
        try:
            status = pipeline_status(lab, name)
        except LabError as error:
            rows.add_row(name, str(error))
            continue
        fresh = status["freshness_seconds"]
        counts = [str(status[word]) for word in ("observed", "computed", "stored")]
        ages = [f"{status['oldest_unprocessed_seconds']:.1f} s", "no point yet" if fresh is None else f"{fresh:.1f} s"]
        rows.add_row(name, *counts, *ages)
        delays += [f"{way} {seconds:+.0f} s" for way, seconds in status["delay_seconds_by_direction"].items()]
    console.print(rows)
    console.print(f"delay now (median of 15 minutes): {', '.join(delays) or 'none yet'}", highlight=False)
    groups, services = read_mapping(), load_catalog().services
    for service, (port, title) in PAGES.items():
        for node in groups[services[service].group]:
            address = lab.plan.nodes[node].address
            console.print(f"{title}: http://{address}:{services[service].ports[port]}", highlight=False)
