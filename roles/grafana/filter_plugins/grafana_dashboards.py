"""The dashboards that Grafana provisions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def grafana_dashboards(manifests: Mapping[str, Any], folder: str, source: str) -> dict[str, str]:
    """Return, for each pipeline's dashboard, its file on the node, in ``folder``, and its file in the checkout."""
    return {
        f"{folder}/{name}.json": f"{source}/{name}/{manifest['dashboard']}"
        for name, manifest in manifests.items()
        if manifest["dashboard"]
    }


class FilterModule:
    """The filters by name."""

    def filters(self) -> dict[str, Any]:
        """Return the filters of this file."""
        return {"grafana_dashboards": grafana_dashboards}
