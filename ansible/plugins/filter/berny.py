"""Filters that turn the catalog and the inventory into what a node is told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def describe_cluster(
    catalog: Mapping[str, Any],
    pipelines: Mapping[str, Any],
    groups: Mapping[str, list[str]],
    machine_names: Mapping[str, str],
    addresses: Mapping[str, str],
    name: str,
) -> dict[str, Any]:
    """Return the cluster as probes read it (``/etc/berny/cluster.json``)."""
    nodes = {node: {"machine": machine_names[node], "address": addresses[node]} for node in sorted(groups["all"])}
    services = {
        service["name"]: {
            "component": service["component"],
            "version": catalog["components"][service["component"]]["version"],
            "nodes": sorted(groups.get(service["group"], [])),
            "ports": service["ports"],
        }
        for service in catalog["services"].values()
    }
    stages = {
        pipeline: {
            "title": manifest["title"],
            "topics": sorted(manifest["topics"]),
            "stages": {
                stage: {
                    "nodes": sorted(groups.get(facts["on"], [])),
                    "unit": f"berny-{pipeline}-{stage}",
                    "metrics_port": facts["metrics_port"],
                }
                for stage, facts in manifest["stages"].items()
            },
        }
        for pipeline, manifest in pipelines.items()
    }
    return {"cluster": name, "nodes": nodes, "services": services, "pipelines": stages}


def stages(pipelines: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return every stage with its name and its pipeline's, in the manifests' order."""
    return [
        {**stage, "pipeline": pipeline, "name": name}
        for pipeline, manifest in pipelines.items()
        for name, stage in manifest["stages"].items()
    ]


def hdfs_directories(pipelines: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Return the directories of HDFS that pipelines write to, with owner and mode."""
    return {
        f"/{folder}/{name}": {"owner": manifest["user"]["name"], "mode": "755"}
        for name, manifest in pipelines.items()
        for folder in ("data", "user")
    }


class FilterModule:
    """The filters by name."""

    def filters(self) -> dict[str, Any]:
        """Return the filters of this file."""
        return {"describe_cluster": describe_cluster, "stages": stages, "hdfs_directories": hdfs_directories}
