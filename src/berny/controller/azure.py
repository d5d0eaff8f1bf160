"""Azure machines for the inventory's mapping: their sizes, their disks, and the cost of a month."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import yaml

from berny.controller.placement import need
from berny.model.catalog import SHARED, load_catalog
from berny.model.component import NodeSize
from berny.model.topology import selected

USABLE = 0.95
"""Share of a machine's memory that its firmware and kernel leave."""
FIRST_PRIORITY = 1000


class AzureError(ValueError):
    """No machine fits; the message says what to change."""


@cache
def facts() -> dict[str, Any]:
    """Return sizes, disks and prices of ``ansible/azure.yml``."""
    found: dict[str, Any] = yaml.safe_load((SHARED / "azure.yml").read_text())
    return found


def fitting(memory: int, size: NodeSize) -> str:
    """Return the cheapest machine for services that need so much memory (MiB).

    Raises:
        AzureError: none is large enough.
    """
    sizes, wanted = facts()["sizes"], memory + facts()["reserve"]
    enough = [name for name in facts()["choice"][size] if sizes[name]["memory"] * 1024 * USABLE >= wanted]
    if not enough:
        raise AzureError(
            f"no machine for {size} services has {wanted} MiB: put some on another node, or set azure_sizes"
        )
    return min(enough, key=lambda name: float(sizes[name]["hour"]))


def disk_for(gib: int) -> int:
    """Return the disk size that is billed for so many GiB.

    Raises:
        AzureError: none is large enough.
    """
    enough = [step for step in facts()["disks"] if step >= gib]
    if not enough:
        raise AzureError(f"no disk has {gib} GiB: the largest has {facts()['disks'][-1]}")
    return int(enough[0])


def machines(
    groups: Mapping[str, Sequence[str]], size: NodeSize, given: Mapping[str, str], wanted: str | Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Return size, disk and a month's cost of each node's machine.

    ``given`` are sizes that the operator chose, ``wanted`` the inventory's pipelines.

    Raises:
        AzureError: none fits, or a size is unknown.
    """
    (catalog, pipelines), known = selected(groups, wanted), facts()
    found = {}
    for node in sorted(groups["all"]):
        needed = need(catalog, pipelines, groups, node, size, {})
        name = given.get(node) or fitting(needed.memory, size)
        if name not in known["sizes"]:
            raise AzureError(f"azure_sizes of {node}: {name} is not in ansible/azure.yml: add it with its price")
        disk = disk_for(max(sum(needed.disks.values()), 1))
        running = known["sizes"][name]["hour"] * known["hours_of_a_month"]
        kept = (disk + disk_for(known["system_disk"])) * known["disk_gib_month"] + known["address_month"]
        found[node] = {
            "size": name,
            **{fact: known["sizes"][name][fact] for fact in ("cores", "memory")},
            "needs": needed.memory,
            "disk": disk,
            "stopped_month": round(kept, 2),
            "month": round(running + kept, 2),
        }
    return found


def table(planned: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the lines to show before anything is created."""
    lines = [
        f"{node}: {m['size']} ({m['cores']} vCPU, {m['memory']} GiB; its services need {m['needs'] / 1024:.1f}), "
        f"data disk {m['disk']} GiB: about {m['month']:.0f} USD a month"
        for node, m in planned.items()
    ]
    total, stopped = (sum(machine[fact] for machine in planned.values()) for fact in ("month", "stopped_month"))
    lines.append(
        f"all: about {total:.0f} USD a month, {stopped:.0f} while stopped (ESTIMATE, prices of {facts()['as_of']})"
    )
    return lines


def rules(groups: Mapping[str, Sequence[str]], operators: Sequence[str]) -> list[dict[str, Any]]:
    """Return the rules of the security group: operators reach SSH and web UIs, as in the machines' own firewall."""
    services = load_catalog().services.values()
    pages = {s.ports[page] for s in services if groups.get(s.group) for page in s.pages}
    return [
        {
            "name": name,
            "protocol": "Tcp",
            "source_address_prefix": list(operators),
            "destination_port_range": [str(port) for port in ports],
            "access": "Allow",
            "direction": "Inbound",
            "priority": FIRST_PRIORITY + index,
        }
        for index, (name, ports) in enumerate({"ssh": [22], "pages": sorted(pages)}.items())
    ]
