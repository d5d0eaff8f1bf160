"""The current state of a lab's cluster: components, pipelines, addresses."""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from rich.console import Console
from rich.table import Table

from berny.controller.artifacts import Store
from berny.controller.artifacts.recipes import load_recipes, not_run
from berny.lab import harness
from berny.lab.lab import Lab
from berny.lab.plan import LabError
from berny.model.catalog import load_catalog
from berny.model.topology import selected_components


def probes(lab: Lab) -> dict[str, list[dict[str, Any]]]:
    """Return the results of all probes by node; an empty list for a node that does not respond."""

    def ask(node: str) -> list[dict[str, Any]]:
        done = lab.run(node, "sudo berny-probe --all --json")
        return json.loads(done.stdout) if done.stdout.startswith("[") else []

    with ThreadPoolExecutor(len(lab.machines)) as pool:
        return dict(zip(lab.machines, pool.map(ask, lab.machines), strict=True))


def pairs(status: Mapping[str, Any]) -> str:
    """Return the names and values of a pipeline's status in readable form."""

    def value(name: str, found: Any) -> str:
        if isinstance(found, Mapping):
            return ", ".join(f"{key} {value(name, one)}" for key, one in found.items()) or "none yet"
        if found is None:
            return "none yet"
        return f"{found:.1f} s" if "_seconds" in name else str(found)

    def words(name: str) -> str:
        return name.replace("_seconds", "").replace("_", " ")

    return "; ".join(f"{words(name)}: {value(name, found)}" for name, found in status.items())


def absent(component: str, archive: str) -> str:
    """Return the line for an optional component that no node runs."""
    if Store().find(archive):
        return f"NOT RUN: {component} (its archive is in the store: run site.yml)"
    return not_run(load_recipes()[archive])


def show(lab: Lab, console: Console) -> None:
    """Print the tables."""
    table = Table("component", "node", "version", "ready", "healthy", "memory", "", box=None)
    total = 0
    asked = probes(lab)
    for node, answers in asked.items():
        if not answers:
            table.add_row("?", node, "", "[red]no[/]", "", "", "no response: is it provisioned?")
        for health in answers:
            memory = health["memory_bytes"] or 0
            total += memory
            row = [health["service"], node, health["version"]]
            row += ["yes" if health[word] else "[red]no[/]" for word in ("ready", "healthy")]
            detail = "" if health["healthy"] else health["detail"]
            table.add_row(*row, f"{memory >> 20} MiB" if memory else "", detail)
    console.print(table)
    console.print(f"memory in total: {total / 2**30:.2f} GiB resident", highlight=False)
    rows = Table("pipeline", "status", box=None)
    for name in lab.simulators:
        try:
            rows.add_row(name, pairs(harness.status(lab, name)))
        except LabError as error:
            rows.add_row(name, str(error))
    console.print(rows)
    running = {health["service"] for answers in asked.values() for health in answers}
    groups = lab.plan.groups
    catalog = selected_components(load_catalog(), groups)
    for service in catalog.services.values():
        if catalog.components[service.component].optional and service.name not in running:
            continue
        # A web UI of many nodes is linked from the UI of a single node.
        for page in service.pages if service.instances == "one" else []:
            for node in groups[service.group]:
                address = f"http://{lab.plan.nodes[node].address}:{service.ports[page]}"
                console.print(f"web UI of {service.name}: {address}", highlight=False)
    for name, component in catalog.components.items():
        if component.optional and not running & component.services.keys():
            console.print(absent(name, component.archive), highlight=False, soft_wrap=True)
