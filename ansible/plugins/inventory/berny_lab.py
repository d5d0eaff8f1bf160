"""Read a lab as an inventory: what ``berny lab up`` writes, as plain data."""

from __future__ import annotations

DOCUMENTATION = """
name: berny_lab
short_description: The machines of a lab
description:
  - Reads C(lab.yml) of the lab that C(BERNY_LAB) names (C(lab) without it), below the XDG state folder.
  - Sets C(lab), C(lab_name) and C(lab_folder), and the address of each host that has none, as plain data that costs
    no task a template.
  - Empties the groups of components that none of the lab's pipelines needs.
  - Hosts and groups come from C(hosts.yml) in the same folder, which Ansible reads first.
options:
  plugin:
    description: The name of this plugin.
    type: str
    required: true
    choices: [berny_lab]
"""

import os
from collections.abc import Mapping, Sequence

import yaml
from ansible.errors import AnsibleParserError
from ansible.inventory.data import InventoryData
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.inventory import BaseInventoryPlugin
from ansible.template import trust_as_template

from berny.lab.errors import LabError
from berny.lab.plan import NAME, described_groups, state_folder
from berny.model.catalog import CatalogError


def empty(inventory: InventoryData, groups: Mapping[str, Sequence[str]]) -> None:
    """Remove the hosts of groups that have none in ``groups``."""
    for name in [name for name, nodes in groups.items() if not nodes]:
        group = inventory.groups[name]
        for host in list(group.hosts):
            group.remove_host(host)


class InventoryModule(BaseInventoryPlugin):
    """The variables of a lab."""

    NAME = "berny_lab"

    def verify_file(self, path: str) -> bool:
        """Return whether ``path`` is a source of this plugin: ``lab.berny.yml``."""
        return bool(super().verify_file(path)) and path.endswith(".berny.yml")

    def parse(self, inventory: InventoryData, loader: DataLoader, path: str, cache: bool = True) -> None:
        """Set the variables of the group ``all`` and the hosts' addresses, and empty the groups that the lab does not run.

        Raises:
            AnsibleParserError: the name is not valid, ``lab.yml`` is not what ``berny lab up`` writes, or a file of the
                catalog or of a pipeline is wrong.
        """
        super().parse(inventory, loader, path, cache)
        name = os.environ.get("BERNY_LAB") or "lab"
        if not NAME.fullmatch(name):
            raise AnsibleParserError(f"BERNY_LAB is {name!r}, which is not a valid name of a lab")
        file = state_folder() / name / "lab.yml"
        inventory.set_variable("all", "lab_name", name)
        inventory.set_variable("all", "lab_folder", str(file.parent))
        try:
            lab = yaml.safe_load(file.read_text()) if file.exists() else None
            addresses = {node: facts["address"] for node, facts in lab["nodes"].items()} if lab else {}
        except (yaml.YAMLError, AttributeError, KeyError, TypeError) as error:
            raise AnsibleParserError(
                f"{file} can't be read ({error!r}): `berny lab up --name {name}` writes it"
            ) from error
        try:
            # One that was never up would run what labs run by default.
            mapping = {name: [host.name for host in group.hosts] for name, group in inventory.groups.items()}
            empty(inventory, described_groups(mapping, lab or {}))
        except (CatalogError, LabError) as error:
            raise AnsibleParserError(str(error)) from error
        # Not an error until it is used: `ansible-inventory --graph` needs no machines.
        missing = f"{{{{ undef(hint='the lab {name} has no such machine: `berny lab up --name {name}` makes it') }}}}"
        inventory.set_variable("all", "lab", lab or trust_as_template(missing))
        for node, host in inventory.hosts.items():
            if "ansible_host" not in host.vars:
                inventory.set_variable(node, "ansible_host", addresses.get(node) or trust_as_template(missing))
