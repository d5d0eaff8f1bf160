"""Problems that would stop a converge: readings of all nodes, checked against what the inventory places there. Read-only."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from berny.controller.preflight.cluster import clocks, machines, memory, reach
from berny.controller.preflight.finding import KINDS, Finding
from berny.controller.preflight.node import (
    Node,
    accounts,
    disks,
    foreign,
    kept,
    limits,
    logins,
    orphans,
    ports,
    system,
)

__all__ = ["KINDS", "Finding", "Node", "find", "report"]


def find(nodes: Mapping[str, Node], inventory: Iterable[str] = (), roles: Iterable[str] = ()) -> list[Finding]:
    """Return all problems of all nodes; ``inventory`` are those of the inventory itself, reported unchanged."""
    known = set(roles)
    found = [Finding("inventory", *_split(problem)) for problem in inventory]
    seen = {name: node for name, node in nodes.items() if not node.failure}
    twice, doubled = machines(seen)
    for name, node in nodes.items():
        if node.failure:
            found.append(Finding("reach", name, f"can't be read: {node.failure}"))
            continue
        found += [*system(name, node), *ports(name, node), *disks(name, node), *limits(name, node)]
        found += [*accounts(name, node), *foreign(name, node), *kept(name, node), *logins(name, node)]
        # What belongs to the machine's other name is not an orphan.
        found += orphans(name, node, known) if name not in doubled else []
    found += twice
    found += memory(seen)
    found += clocks({name: node.clock for name, node in seen.items() if node.clock})
    found += reach(seen, nodes)
    return found


def _split(problem: str) -> tuple[str, str]:
    """Return host and text of a problem of the inventory: if it concerns one node, it begins with the node's name."""
    match = re.match(r"(\w+): (.*)", problem, re.S)
    return (match[1], match[2]) if match else ("inventory", problem)


def report(found: Iterable[Finding], allowed: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return what a converge fails on, and warnings: lesser findings, and kinds that the inventory allows."""
    permitted = set(allowed)
    fatal = [finding for finding in found if finding.fatal and finding.kind not in permitted]
    told = [finding for finding in found if finding not in fatal]
    return list(map(str, fatal)), list(map(str, told))
