"""The lab's network: a bridge, an uplink for packages, a namespace for outside systems."""

from __future__ import annotations

import ipaddress
import json
import shutil
import subprocess
from typing import Any, Protocol

from berny.lab.box import run, succeeds
from berny.lab.plan import Plan


def _links() -> set[str]:
    return {link["ifname"] for link in json.loads(run(["ip", "-j", "link", "show"]))}


class Uplinked(Protocol):
    """The names of a network with an uplink."""

    @property
    def bridge(self) -> str:
        """The bridge on the host."""

    @property
    def table(self) -> str:
        """The nftables table of its masquerading."""

    @property
    def gateway(self) -> str:
        """The host's address."""

    @property
    def network(self) -> ipaddress.IPv4Network:
        """The machines' addresses."""


def up(plan: Plan) -> None:
    """Create bridge, masquerading and the simulators' namespace where they are missing."""
    bridge_up(plan)
    _namespace(plan)


def bridge_up(plan: Uplinked) -> None:
    """Create the bridge and masquerading where they are missing, and let its packets through the host's firewall."""
    if plan.bridge not in _links():
        run(["ip", "link", "add", plan.bridge, "type", "bridge"])
    run(["ip", "address", "replace", f"{plan.gateway}/{plan.network.prefixlen}", "dev", plan.bridge])
    run(["ip", "link", "set", plan.bridge, "up"])
    _uplink(plan)
    _admit(plan)


def _uplink(plan: Uplinked) -> None:
    rules = f"""
table ip {plan.table}
delete table ip {plan.table}
table ip {plan.table} {{
    chain postrouting {{
        type nat hook postrouting priority srcnat;
        ip saddr {plan.network} oifname != "{plan.bridge}" masquerade
    }}
}}
"""
    run(["nft", "-f", "-"], stdin=rules)
    run(["sysctl", "-q", "-w", "net.ipv4.ip_forward=1"])


def _ruleset() -> list[dict[str, Any]]:
    return list(json.loads(run(["nft", "-j", "list", "ruleset"]))["nftables"])


def _admit(plan: Uplinked) -> None:
    """Accept the bridge's packets where another table drops what is forwarded, as Docker has it.

    An accept in a table of the lab's own would not help: a packet has to pass the chains of all tables. Where the kernel's
    br_netfilter is loaded, packets from machine to machine pass them, too.
    """
    _withdraw(plan)
    for chain in (one["chain"] for one in _ruleset() if "chain" in one):
        if chain.get("hook") == "forward" and chain.get("policy") == "drop" and chain["family"] in ("ip", "inet"):
            for interface in ("iifname", "oifname"):
                place = [chain["family"], chain["table"], chain["name"]]
                words = [
                    "nft",
                    "insert",
                    "rule",
                    *place,
                    interface,
                    plan.bridge,
                    "accept",
                    "comment",
                    f'"{plan.table}"',
                ]
                run(words)


def _withdraw(plan: Uplinked) -> None:
    """Remove the rules that let its packets through the chains of others."""
    for rule in (one["rule"] for one in _ruleset() if "rule" in one):
        if rule.get("comment") == plan.table:
            place = [rule["family"], rule["table"], rule["chain"]]
            run(["nft", "delete", "rule", *place, "handle", str(rule["handle"])])


def _namespace(plan: Plan) -> None:
    outside = plan.link
    if not succeeds(["ip", "netns", "pids", plan.namespace]):
        run(["ip", "netns", "add", plan.namespace])
    if outside not in _links():
        run(["ip", "link", "add", outside, "type", "veth", "peer", "name", "eth0", "netns", plan.namespace])
    run(["ip", "link", "set", outside, "master", plan.bridge, "up"])
    inside = ["ip", "-n", plan.namespace]
    run([*inside, "address", "replace", f"{plan.simulator}/{plan.network.prefixlen}", "dev", "eth0"])
    run([*inside, "link", "set", "eth0", "up"])
    run([*inside, "link", "set", "lo", "up"])


def faults_table(plan: Plan) -> str:
    """Return the name of the table of bridge rules that a fault bench creates."""
    return f"{plan.table}-faults"


def remove(plan: Plan) -> None:
    """Remove namespace, bridge and rules; the namespace's processes must have ended."""
    for command in (
        ["nft", "delete", "table", "bridge", faults_table(plan)],
        ["ip", "netns", "delete", plan.namespace],
        ["ip", "link", "delete", plan.link],
    ):
        _attempt(command)
    bridge_down(plan)


def bridge_down(plan: Uplinked) -> None:
    """Remove what ``bridge_up`` has created."""
    _attempt(["ip", "link", "delete", plan.bridge])
    _attempt(["nft", "delete", "table", "ip", plan.table])
    if shutil.which("nft"):
        _withdraw(plan)


def _attempt(command: list[str]) -> None:
    # A host that never had a lab may lack the tools to create one.
    if shutil.which(command[0]):
        subprocess.run(command, capture_output=True)
