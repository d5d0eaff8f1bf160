"""What a lab consists of, as data: names, addresses, disks. Nothing here touches the host."""

from __future__ import annotations

import hashlib
import ipaddress
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from berny.lab.errors import LabError
from berny.lab.simulation import Simulation, load_simulations, select
from berny.model import names
from berny.model.catalog import Catalog, load_catalog
from berny.model.manifest import Pipeline, load_pipelines
from berny.model.topology import Groups, demanded_groups, read_mapping, selected_pipelines

NAME = re.compile(r"[a-z][a-z0-9-]{0,9}")
FIRST_NODE = 10


@dataclass(frozen=True)
class Disk:
    """A data disk: an image on the host, mounted there and bound into one machine."""

    node: str
    service: str
    """The folder below ``/data``."""
    gib: int


@dataclass(frozen=True)
class Node:
    """One machine."""

    name: str
    machine: str
    address: str


def state_folder() -> Path:
    """Return the folder of all labs' state, below the XDG state folder."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "berny" / "labs"


def disks(groups: Mapping[str, list[str]], catalog: Catalog, pipelines: Mapping[str, Pipeline]) -> list[Disk]:
    """Return the data disks: one for each service and for each stage's spool on each node that runs it."""
    found = [
        Disk(node, service.name, service.disk.small)
        for service in catalog.services.values()
        if service.disk
        for node in groups.get(service.group, [])
    ]
    for pipeline in pipelines.values():
        for stage in pipeline.stages.values():
            if stage.data:
                found += [Disk(node, names.disk(pipeline.name), stage.data.small) for node in groups.get(stage.on, [])]
    return found


def groups_of(mapping: Groups, pipelines: Iterable[str], everything: bool = False) -> dict[str, list[str]]:
    """Return the nodes of each group in a lab that runs these pipelines, or every component of the mapping."""
    if everything:
        return {group: list(nodes) for group, nodes in mapping.items()}
    return demanded_groups(load_catalog(), mapping, selected_pipelines(pipelines).values())


def described_groups(mapping: Groups, described: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the nodes of each group in a lab by the content of its ``lab.yml``."""
    return groups_of(mapping, **_selection(described))


def _selection(described: Mapping[str, Any]) -> dict[str, Any]:
    """Return what ``lab.yml`` selects; where it names no pipelines, the default ones."""
    pipelines = tuple(described.get("pipelines") or select(""))
    return {"pipelines": pipelines, "everything": bool(described.get("everything"))}


def choose_network(name: str, taken: Iterable[str]) -> ipaddress.IPv4Network:
    """Return a /24 of 10.180.0.0/16 for the lab, derived from its name, that overlaps with no network of ``taken``.

    Raises:
        LabError: all 256 are taken.
    """
    others = [ipaddress.ip_network(route, strict=False) for route in taken]
    first = int.from_bytes(hashlib.sha256(name.encode()).digest()[:1])
    for step in range(256):
        network = ipaddress.IPv4Network(f"10.180.{(first + step) % 256}.0/24")
        if not any(network.overlaps(other) for other in others if other.version == 4):
            return network
    raise LabError("no free network in 10.180.0.0/16: remove the route that covers it (ip route)")


@dataclass(frozen=True)
class Plan:
    """A lab by its name: the path of its state, the names of its parts."""

    name: str
    network: ipaddress.IPv4Network
    pipelines: tuple[str, ...] = field(default_factory=lambda: select(""))
    """The pipelines that it runs."""
    everything: bool = False
    """Whether it also runs the on-demand components that none of its pipelines needs."""
    made: Mapping[str, str] = field(default_factory=dict)
    """The addresses of the machines that it has already, by inventory name."""

    @property
    def folder(self) -> Path:
        """The lab's state."""
        return state_folder() / self.name

    @property
    def bridge(self) -> str:
        """The bridge on the host (at most 15 characters)."""
        return f"bny-{self.name}"

    @property
    def link(self) -> str:
        """The simulators' link to the bridge."""
        return f"bnya-{self.name}"

    @property
    def namespace(self) -> str:
        """The network namespace that the simulators of outside systems run in."""
        return f"berny-{self.name}-api"

    @property
    def table(self) -> str:
        """The lab's nftables table."""
        return f"berny-{self.name}"

    @property
    def gateway(self) -> str:
        """The host's address on the lab's network."""
        return str(self.network[1])

    @property
    def simulator(self) -> str:
        """The simulators' address."""
        return str(self.network[5])

    @property
    def simulations(self) -> dict[str, Simulation]:
        """The simulation of each of its pipelines, except those that this checkout does not have."""
        return {name: found for name, found in load_simulations().items() if name in self.pipelines}

    @cached_property
    def nodes(self) -> dict[str, Node]:
        """The machines of the inventory by name; each keeps the address that it has."""
        taken = {*self.made.values()}
        free = (str(self.network[last]) for last in range(FIRST_NODE, 255) if str(self.network[last]) not in taken)
        return {name: _node(name, self.made.get(name) or next(free)) for name in read_mapping()["all"]}

    @cached_property
    def left(self) -> dict[str, Node]:
        """The machines that it has and that are no longer in the inventory."""
        return {name: _node(name, address) for name, address in self.made.items() if name not in self.nodes}

    @cached_property
    def groups(self) -> dict[str, list[str]]:
        """The nodes of each inventory group, and all of them as ``all``; a component that it does not run has none."""
        return groups_of(read_mapping(), self.pipelines, self.everything)

    @cached_property
    def disks(self) -> list[Disk]:
        """The data disks of everything that it may come to run: a machine gets its disks when it boots."""
        return disks(read_mapping(), load_catalog(), load_pipelines())

    def describe(self) -> dict[str, Any]:
        """Return the content of ``lab.yml``, which the inventory ``inventory/lab`` reads."""
        return {
            "name": self.name,
            "network": str(self.network),
            "gateway": self.gateway,
            "nodes": {n.name: {"machine": n.machine, "address": n.address} for n in self.nodes.values()},
            "pipelines": list(self.pipelines),
            "everything": self.everything,
            "simulations": {name: one.describe(self.simulator) for name, one in self.simulations.items()},
        }


def _node(name: str, address: str) -> Node:
    # The name of a machine can't contain an underscore.
    return Node(name, name.replace("_", "-"), address)


def load_plan(name: str) -> Plan | None:
    """Return the plan of a lab that exists, or None.

    Raises:
        LabError: the name is not valid, or the lab's state can't be read.
    """
    if not NAME.fullmatch(name):
        raise LabError(f"{name!r} is not a valid name of a lab: use up to 10 of a to z, 0 to 9 and '-', a letter first")
    file = state_folder() / name / "lab.yml"
    if not file.exists():
        return None
    try:
        kept = yaml.safe_load(file.read_text())
        made = {node: str(facts["address"]) for node, facts in kept["nodes"].items()}
        return Plan(name, ipaddress.IPv4Network(kept["network"]), **_selection(kept), made=made)
    except (yaml.YAMLError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise LabError(
            f"{file} is damaged ({type(error).__name__}): bring it back, or end the lab's machines (machinectl list, "
            f"machinectl terminate) and remove {file.parent}"
        ) from error
