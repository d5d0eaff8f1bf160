"""Give every play the catalog and the manifests as variables ``catalog`` and ``pipelines``, and ``ansible/cluster.yml``."""

from __future__ import annotations

DOCUMENTATION = """
name: berny_catalog
short_description: The catalog, the pipelines and the variables that all inventories share
description:
  - Sets C(catalog) and C(pipelines) from the files that the Python package reads too, so that a fact has one home.
  - Loads C(ansible/cluster.yml); an inventory's own variables override it.
options:
  stage:
    description: Read once with the inventory, so that its group_vars override what is read here.
    type: str
    choices: [inventory]
    default: inventory
"""

from functools import cache
from typing import Any

import yaml
from ansible.errors import AnsibleParserError
from ansible.inventory.group import Group
from ansible.plugins.vars import BaseVarsPlugin

from berny.model.catalog import SHARED, CatalogError, load_catalog, load_pipelines


@cache
def _facts() -> dict[str, Any]:
    catalog = load_catalog()
    services = {name: service.model_dump(mode="json") for name, service in catalog.services.items()}
    # The calls of commands are for tests.
    components = {
        name: component.model_dump(mode="json", exclude={"commands": {"calls"}})
        for name, component in catalog.components.items()
    }
    pipelines = {name: pipeline.model_dump(mode="json") for name, pipeline in load_pipelines().items()}
    return {
        "catalog": {"components": components, "services": services},
        "pipelines": pipelines,
        "os_packages": yaml.safe_load((SHARED / "os_packages.yml").read_text()),
    }


class VarsModule(BaseVarsPlugin):
    """Variables of the group ``all``; every host sees them."""

    def get_vars(self, loader: Any, path: str, entities: Any) -> dict[str, Any]:
        """Return the variables of ``entities``: those of the catalog for the group ``all``, none for others.

        Raises:
            AnsibleParserError: a catalog file or manifest is wrong; the message names it.
        """
        super().get_vars(loader, path, entities)
        entities = entities if isinstance(entities, list) else [entities]
        groups = [entity for entity in entities if isinstance(entity, Group) and entity.name == "all"]
        if not groups:
            return {}
        try:
            shared = loader.load_from_file(
                str(SHARED / "cluster.yml"), cache="all", unsafe=False, trusted_as_template=True
            )
            # What hosts.yml itself sets for all would else be overridden here.
            return {**_facts(), **{name: value for name, value in shared.items() if name not in groups[0].vars}}
        except CatalogError as error:
            raise AnsibleParserError(str(error)) from error
