"""A guest as data: the names of its parts, the path of its state, its node of the mapping."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from berny.controller.placement import by_load
from berny.lab.plan import disks, state_folder
from berny.model.catalog import load_catalog
from berny.model.manifest import load_pipelines
from berny.model.topology import read_mapping

PUBLIC = ipaddress.IPv4Network("198.51.100.0/24")
"""A network reserved for documentation: what is sent there reaches a guest of this host, or nothing."""


@cache
def node() -> str:
    """Return the node of the mapping that the guest represents: the one that runs the least."""
    return by_load(load_catalog(), load_pipelines(), read_mapping())[-1]


@cache
def data_folder() -> str:
    """Return the folder of the guest's data disk: that of a service of the node."""
    return f"/data/{next(disk.service for disk in disks(read_mapping(), load_catalog(), {}) if disk.node == node())}"


@dataclass(frozen=True)
class GuestPlan:
    """A guest by its name: the path of its state, the names of its parts."""

    name: str
    network: ipaddress.IPv4Network

    @property
    def folder(self) -> Path:
        """The guest's state."""
        return state_folder().with_name("vms") / self.name

    @property
    def id(self) -> str:
        """The name of the guest's process."""
        return f"berny-vm-{self.name}"

    @property
    def bridge(self) -> str:
        """The bridge on the host (at most 15 characters)."""
        return f"bnyv-{self.name}"

    @property
    def tap(self) -> str:
        """The guest's link to the bridge."""
        return f"bnyt-{self.name}"

    @property
    def table(self) -> str:
        """The guest's nftables table."""
        return self.id

    @property
    def gateway(self) -> str:
        """The host's address on the guest's network."""
        return str(self.network[1])

    @property
    def address(self) -> str:
        """The guest's own address."""
        return self.addresses[node()]

    @property
    def addresses(self) -> dict[str, str]:
        """Addresses for all nodes of the mapping, of which only the guest exists."""
        return {node: str(self.network[10 + index]) for index, node in enumerate(read_mapping()["all"])}

    @property
    def public(self) -> str:
        """The address that the host connects to."""
        return str(PUBLIC[self.network.network_address.packed[2]])

    def inventory(self) -> dict[str, Any]:
        """Return what is added to the inventory ``azure``: one guest, and the addresses that the others would have."""
        guest = {
            "ansible_host": self.public,
            "ansible_user": "berny",
            "ansible_ssh_private_key_file": str(self.folder / "id_ed25519"),
            "ansible_ssh_common_args": f"-o UserKnownHostsFile={self.folder / 'known_hosts'} -o IdentitiesOnly=yes",
            "node_size": "small",
            "node_data_disks": {"/dev/disk/by-id/virtio-data": data_folder()},
            "secrets_file": str(self.folder / "secrets.yml"),
            "addresses_file": str(self.folder / "addresses.yml"),
        }
        others = {name: {"private_address": address} for name, address in self.addresses.items() if name != node()}
        return {"all": {"hosts": {node(): guest, **others}}}
