"""How Shelf is asked, and whether a pipeline has its shelves."""

from __future__ import annotations

from typing import Any

from berny.runtime.probe import Answer, Cluster, Probe, get_json


def shelf(cluster: Cluster, node: str) -> Answer:
    """Its health, which it reads from its disk."""
    host, port = cluster.endpoint("shelf", "http", node)
    return True, f"{host}:{port} has {get_json(host, port, '/health')['shelves']} shelves"


def resources(cluster: Cluster, pipeline: dict[str, Any]) -> list[str]:
    """Return the shelves of a pipeline that are not there."""
    host, port = cluster.endpoint("shelf", "http")
    found = get_json(host, port, "/shelves")
    return [
        f"the shelf {name} does not exist" for name in pipeline["resources"].get("shelves", {}) if name not in found
    ]


SERVICES: dict[str, Probe] = {"shelf": shelf}
