"""Checks across nodes: shared machines and memory, clocks, reachability."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Mapping

from berny.controller.preflight.finding import Finding
from berny.controller.preflight.node import Clock, Node

RESERVE_MIB = 512
"""Reserved for the operating system, once per kernel."""
CLOCK_WARN, CLOCK_FAIL = 1.0, 5.0


def machines(nodes: Mapping[str, Node]) -> tuple[list[Finding], set[str]]:
    """Return machines that appear under two names, and all names of such machines."""
    homes: dict[tuple[str, str], str] = {}
    found, doubled = [], set()
    for name, node in nodes.items():
        home = homes.setdefault((node.facts["boot"], node.facts["processes"]), name)
        if home != name:
            doubled |= {home, name}
            text = f"is the same machine as {home}: give each its own ansible_host, or remove one of the two from hosts.yml"
            found.append(Finding("inventory", name, text))
    return found, doubled


def memory(nodes: Mapping[str, Node]) -> list[Finding]:
    """Check memory against the catalog's budget. Machines with one kernel (a lab's) share its memory: their needs add up."""
    kernels: dict[str, list[str]] = {}
    for name, node in nodes.items():
        kernels.setdefault(node.facts["boot"], []).append(name)
    found = []
    for names in kernels.values():
        wanted = sum(nodes[name].need.memory for name in names) + RESERVE_MIB
        jobs = sum(nodes[name].need.jobs for name in names)
        facts = nodes[names[0]].facts["memory"]
        left = facts["available"] + sum(nodes[name].facts["memory"]["ours"] for name in names)
        who = f"{names[0]}" if len(names) == 1 else f"{names[0]} (with {', '.join(names[1:])}: one kernel)"
        remedy = "give it more, set node_size: small or heaps (SERVICE_heap), or move services"
        needs = f"the services placed there need {wanted}"
        if facts["total"] < wanted:
            found.append(Finding("memory", who, f"{facts['total']} MiB of memory, {needs}: {remedy}"))
        elif facts["total"] < wanted + jobs:
            text = f"{facts['total']} MiB of memory, {needs}, and {jobs} more for applications: {remedy}"
            found.append(Finding("memory", who, text, fatal=False))
        elif left < wanted:
            text = f"other programs leave {left} MiB of memory, {needs}: end them, or {remedy}"
            found.append(Finding("memory", who, text, fatal=False))
    return found


def offset(clock: Clock) -> tuple[float, float]:
    """Return how far a node's clock is ahead, and the uncertainty: it was read at some moment of the round trip."""
    asked, said, answered = clock
    return said - (asked + answered) / 2, (answered - asked) / 2


def clocks(readings: Mapping[str, Clock]) -> list[Finding]:
    """Find clocks that certainly differ. If most nodes agree, but not with the controller, its clock is the wrong one."""
    offsets = {name: offset(clock) for name, clock in readings.items()}
    if not offsets:
        return []
    found, reference, against = [], 0.0, "the controller's"
    median = statistics.median(ahead for ahead, _ in offsets.values())
    agree = [name for name, (ahead, doubt) in offsets.items() if abs(ahead - median) - doubt <= CLOCK_WARN]
    if (
        len(agree) > 1
        and len(agree) > len(offsets) / 2
        and abs(median) - max(d for _, d in offsets.values()) > CLOCK_WARN
    ):
        reference, against = median, "most nodes'"
        text = f"its clock is {_apart(-median)} most nodes': set it (nothing in the cluster depends on it)"
        found.append(Finding("clock", "controller", text, fatal=False))
    for name, (ahead, doubt) in offsets.items():
        certain = abs(ahead - reference) - doubt
        if certain > CLOCK_WARN:
            text = f"its clock is {_apart(ahead - reference)} {against}: synchronize it with chrony (chronyc tracking)"
            found.append(Finding("clock", name, text, fatal=certain > CLOCK_FAIL))
    return found


def _apart(seconds: float) -> str:
    return f"{abs(seconds):.1f} s {'ahead of' if seconds > 0 else 'behind'}"


def reach(nodes: Mapping[str, Node], play: Collection[str]) -> list[Finding]:
    """Find pairs of nodes that do not reach each other; nodes that the controller does not reach are reported elsewhere.

    A node that the play leaves out may be down while another one is repaired, so that is a lesser finding. A firewall that
    does not have a node's address yet gets it in the play: the node is new, or its address has changed.
    """
    found = []
    failed = {
        (name, peer): why
        for name, node in nodes.items()
        for peer, why in node.facts["reach"].items()
        if why and peer in nodes
    }
    stale = {(name, peer) for name, peer in failed if not _admits(nodes[peer], nodes[name].address)}
    for (name, peer), why in failed.items():
        if (name, peer) in stale:
            continue
        if (peer, name) in stale:
            text = f"does not reach {peer}: {why}"
        elif (peer, name) not in failed:
            text = f"does not reach {peer} (which reaches {name}): {why}"
        elif name < peer:
            text = f"and {peer} do not reach each other: {why}"
        else:
            continue
        found.append(Finding("reach", name, f"{text}; allow it in firewall, security group or route"))
    for name, node in nodes.items():
        if away := [peer for peer, why in node.facts["reach"].items() if why and peer not in play]:
            text = f"does not reach {', '.join(away)}, which this play leaves out: if that is because their firewalls do not "
            text += f"have {name} yet, run site.yml without --limit"
            found.append(Finding("reach", name, text, fatal=False))
    return found


def _admits(node: Node, address: str) -> bool:
    """Return whether a node's own firewall, if it has one, knows an address as a node's."""
    return node.facts["admitted"] is None or address in node.facts["admitted"]
