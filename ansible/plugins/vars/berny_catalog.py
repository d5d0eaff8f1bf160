"""Give every play the selected components, what follows from where they are, and ``ansible/cluster.yml``, as plain data."""

from __future__ import annotations

DOCUMENTATION = """
name: berny_catalog
short_description: The catalog, addresses of services and the variables that all inventories share
description:
  - Sets C(catalog) to the components whose groups have nodes, from the files that the Python package reads too.
  - Sets the addresses of their services (C(endpoints), and each by its name in small letters) and C(machine_names).
    Computed once, with the inventory, they cost no task a template.
  - Loads C(ansible/cluster.yml); an inventory's own variables override all of it.
options:
  stage:
    description: Read once with the inventory, so that its group_vars override what is read here.
    type: str
    choices: [inventory]
    default: inventory
"""

from collections.abc import Mapping, Sequence
from typing import Any

import yaml
from ansible.errors import AnsibleParserError
from ansible.inventory.group import Group
from ansible.plugins.loader import filter_loader, test_loader
from ansible.plugins.vars import BaseVarsPlugin

from berny.controller.artifacts.store import cache_folder
from berny.controller.compiled import enable
from berny.model.catalog import SHARED, CatalogError, load_catalog
from berny.model.topology import endpoints, selected_components


def facts(groups: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Return the variables that follow from the files of the catalog and an inventory's groups.

    Raises:
        CatalogError: a file is wrong; the message names it.
    """
    catalog = selected_components(load_catalog(), groups)
    services = {name: service.model_dump(mode="json") for name, service in catalog.services.items()}
    # The calls of commands are for tests.
    components = {
        name: component.model_dump(mode="json", exclude={"commands": {"calls"}}) | {"groups": component.groups}
        for name, component in catalog.components.items()
    }
    # Operating system names have no underscore: java.net.URI finds no host in a name with one.
    machines = {node: node.replace("_", "-") for node in groups["all"]}
    addresses = endpoints(catalog, groups, machines)
    return {
        "catalog": {"components": components, "services": services},
        "machine_names": machines,
        "endpoints": addresses,
        **{name.lower(): value for name, value in addresses.items()},
        "os_packages": yaml.safe_load((SHARED / "os_packages.yml").read_text()),
    }


class VarsModule(BaseVarsPlugin):
    """Variables of the group ``all``; every host sees them."""

    def get_vars(self, loader: Any, path: str, entities: Any) -> dict[str, Any]:
        """Return the variables of ``entities``: those of the catalog for the group ``all``, none for others.

        Raises:
            AnsibleParserError: a catalog file is wrong; the message names it.
        """
        super().get_vars(loader, path, entities)
        entities = entities if isinstance(entities, list) else [entities]
        everything = next((entity for entity in entities if isinstance(entity, Group) and entity.name == "all"), None)
        if not everything:
            return {}
        groups = {group.name: [host.name for host in group.get_hosts()] for group in everything.get_descendants()}
        groups["all"] = [host.name for host in everything.get_hosts()]
        # The workers that are forked for tasks inherit what is loaded here; each would load all filters and tests again.
        for plugins in (filter_loader, test_loader):
            list(plugins.all())
        enable(cache_folder() / "ansible")
        try:
            shared = loader.load_from_file(
                str(SHARED / "cluster.yml"), cache="all", unsafe=False, trusted_as_template=True
            )
            # What hosts.yml itself sets for all would else be overridden here.
            found = {**facts(groups), **shared}
            return {name: value for name, value in found.items() if name not in everything.vars}
        except CatalogError as error:
            raise AnsibleParserError(str(error)) from error
