"""The tables that each stage uses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

KIND = "postgresql"


def postgresql_stages(manifests: Mapping[str, Any]) -> dict[str, dict[str, dict[str, list[str]]]]:
    """Return the tables that each stage ``reads`` and ``writes``, by pipeline and stage, without stages that use none."""
    found: dict[str, dict[str, dict[str, list[str]]]] = {}
    for pipeline, manifest in manifests.items():
        tables = manifest["resources"].get(KIND, {})
        for name, stage in manifest["stages"].items():
            own = {does: [table for table in stage[does] if table in tables] for does in ("reads", "writes")}
            if any(own.values()):
                found.setdefault(pipeline, {})[name] = own
    return found


class FilterModule:
    """The filters by name."""

    def filters(self) -> dict[str, Any]:
        """Return the filters of this file."""
        return {"postgresql_stages": postgresql_stages}
