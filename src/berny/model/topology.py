"""What an inventory puts where, as data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from berny.model.catalog import ROLES

CHECKOUT = ROLES.parent
INVENTORY = CHECKOUT / "inventory" / "lab"

Groups = Mapping[str, Sequence[str]]
"""The nodes of each inventory group."""


def read_mapping(inventory: Path = INVENTORY) -> dict[str, list[str]]:
    """Return the nodes of each group of ``hosts.yml``, and all of them as ``all``."""
    data = yaml.safe_load((inventory / "hosts.yml").read_text())["all"]
    groups = {name: sorted(group["hosts"]) for name, group in data["children"].items()}
    return groups | {"all": sorted(data["hosts"])}
