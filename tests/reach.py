"""Who reaches which ports of a lab's nodes, against the catalog: ``BERNY_LAB=NAME python tests/reach.py``.

Asked from outside (an address of the lab's network that is nobody's), as an operator (the box) and from a member.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from berny.lab.box import run
from berny.lab.lab import Lab
from berny.lab.plan import Plan
from berny.model.catalog import load_catalog
from berny.model.topology import selected_components, selected_pipelines

SCAN = Path(__file__).with_name("scan.py")
SSH = 22
OUTSIDER = 200
# Every one up to here, what is near the catalog's, and one of many above.
ALL_UP_TO, ONE_OF = 10240, 97
Ports = set[int]


def expected(plan: Plan, node: str) -> tuple[Ports, Ports]:
    """Return the ports of a lab's node that cluster nodes reach, and those that operators reach."""
    groups = plan.groups
    nodes, operators = set(), {SSH}
    for component in selected_components(load_catalog(), groups).components.values():
        if component.ephemeral_ports:
            first, last = component.ephemeral_ports
            nodes |= set(range(first, last + 1))
        for service in component.services.values():
            if node in groups[service.group]:
                nodes |= set(service.ports.values())
                operators |= {service.ports[page] for page in service.pages}
    for pipeline in selected_pipelines(plan.pipelines).values():
        nodes |= {stage.metrics_port for stage in pipeline.stages.values() if node in groups[stage.on]}
    return nodes, operators


def drivers(plan: Plan) -> set[str]:
    """Return the nodes that have ``start-dfs.sh`` or its like, which drive the units of the others."""
    catalog = selected_components(load_catalog(), plan.groups)
    orders = [order for component in catalog.components.values() for order in component.control.values()]
    return {plan.groups[catalog.services[order[0]].group][0] for order in orders}


def asked(plan: Plan) -> Ports:
    """Return the ports that are tried."""
    known = set().union(*(ports for node in plan.nodes for ports in expected(plan, node)))
    near = {port + step for port in known for step in (-1, 0, 1)}
    return {*range(1, ALL_UP_TO), *near, *range(ALL_UP_TO, 65536, ONE_OF), 65535}


def ranges(ports: Iterable[int]) -> str:
    """Return ports as the scan takes them."""
    found: list[list[int]] = []
    for port in sorted(ports):
        if found and found[-1][1] == port - 1:
            found[-1][1] = port
        else:
            found.append([port, port])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in found)


def scan(words: list[str], addresses: Iterable[str], ports: Ports) -> dict[str, Ports]:
    """Return, by address, the ports that a connection gets through to, tried by a Python that ``words`` start."""
    with SCAN.open() as program:
        command = [*words, "python3", "-", ",".join(addresses), ranges(ports)]
        said = subprocess.run(command, stdin=program, capture_output=True, text=True, timeout=300)
    assert said.returncode == 0, said.stderr[-2000:]
    return {address: {*found["open"], *found["refused"]} for address, found in json.loads(said.stdout).items()}


@contextmanager
def outside(lab: Lab) -> Iterator[list[str]]:
    """Give the words that run a command at an address of the lab's network that is no node's and no operator's."""
    name, link = f"berny-{lab.plan.name}-out", f"bnyo-{lab.plan.name}"
    # One that a killed run has left goes with its link.
    subprocess.run(["ip", "netns", "delete", name], capture_output=True)
    run(["ip", "netns", "add", name])
    try:
        run(["ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", name])
        run(["ip", "link", "set", link, "master", lab.plan.bridge, "up"])
        address = f"{lab.plan.network[OUTSIDER]}/{lab.plan.network.prefixlen}"
        run(["ip", "-n", name, "address", "add", address, "dev", "eth0"])
        run(["ip", "-n", name, "link", "set", "eth0", "up"])
        yield ["ip", "netns", "exec", name]
    finally:
        run(["ip", "netns", "delete", name])


def differences(lab: Lab) -> list[str]:
    """Return what differs between the catalog and what a scan finds; nothing is what it should be."""
    nodes = {node.name: node.address for node in lab.plan.nodes.values()}
    ports, problems = asked(lab.plan), []

    def compare(who: str, found: dict[str, Ports], wanted: dict[str, Ports]) -> None:
        for node, address in nodes.items():
            if address in found and found[address] != wanted[node]:
                more, less = found[address] - wanted[node], wanted[node] - found[address]
                words = f"open beyond the catalog: {ranges(more)[:200]}; closed: {ranges(less)[:200]}"
                problems.append(f"{who} to {node}: {words}")

    with outside(lab) as words:
        compare("from outside", scan(words, nodes.values(), ports), {node: set() for node in nodes})
    operators = {node: expected(lab.plan, node)[1] for node in nodes}
    compare("as an operator", scan([], nodes.values(), ports), operators)
    for member in ("master", "worker_0"):
        others = [address for node, address in nodes.items() if node != member]
        found = scan(lab.ssh(member), others, ports)
        also = {SSH} if member in drivers(lab.plan) else set()
        compare(f"from {member}", found, {node: expected(lab.plan, node)[0] | also for node in nodes})
    return problems


if __name__ == "__main__":
    sys.exit("\n".join(differences(Lab.existing(os.environ["BERNY_LAB"]))) or None)
