"""The directories that HDFS has to have."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

COMPONENT = "hdfs"


def hdfs_wanted(asked: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    """Return the directories that components and pipelines declare, with owner and mode.

    Args:
        asked: by path: ``mode``, and ``owner`` or else the declaring ``user``.
    """
    return {
        path: {"owner": str(keys.get("owner") or keys["user"]), "mode": keys["mode"]} for path, keys in asked.items()
    }


def hdfs_of_pipelines(manifests: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Return the directories that each pipeline that uses HDFS always has: its data, with checkpoints, and its home."""
    return {
        path: {"owner": manifest["user"]["name"], "mode": "755"}
        for name, manifest in manifests.items()
        if any(COMPONENT in stage["needs"] for stage in manifest["stages"].values())
        for path in (f"/data/{name}", f"/user/{name}")
    }


def hdfs_withdrawn(manifest: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Return the directories of a pipeline: those that its manifest declares, its data and its home."""
    owner = manifest["user"]["name"]
    asked = {path: {"owner": owner} for path in manifest["resources"].get(COMPONENT, {})}
    return {**asked, **hdfs_of_pipelines({manifest["name"]: manifest})}


def hdfs_homes(hosts: Mapping[str, Mapping[str, Any]], users: Iterable[str]) -> dict[str, dict[str, str]]:
    """Return the home directories of ``users`` and of the users that Ansible logs in as, with their owners.

    ``hosts`` are the variables of all hosts by name.
    """
    logins = {str(hosts[host]["ansible_user"]) for host in hosts if "ansible_user" in hosts[host]}
    return {f"/user/{user}": {"owner": user} for user in sorted({*logins, *users})}


def outer_first(directories: Mapping[str, Any]) -> dict[str, Any]:
    """Return directories in an order in which parents come first."""
    return {path: directories[path] for path in sorted(directories)}


class FilterModule:
    """The filters by name."""

    def filters(self) -> dict[str, Any]:
        """Return the filters of this file."""
        return {
            "hdfs_wanted": hdfs_wanted,
            "hdfs_of_pipelines": hdfs_of_pipelines,
            "hdfs_withdrawn": hdfs_withdrawn,
            "hdfs_homes": hdfs_homes,
            "outer_first": outer_first,
        }
