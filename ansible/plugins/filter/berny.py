"""Filters that turn the catalog and the inventory into what a node is told."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from typing import Any

from berny.controller import azure
from berny.controller.addresses import is_private
from berny.controller.restoration import kafka_restoration, lost_zookeeper


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
            **({"optional": True} if catalog["components"][service["component"]]["optional"] else {}),
        }
        for service in catalog["services"].values()
    }
    stages = {
        pipeline: {
            "name": pipeline,
            "title": manifest["title"],
            "topics": sorted(manifest["topics"]),
            "directories": sorted(hdfs_directories({pipeline: manifest})),
            "buckets": [manifest["sinks"]["influxdb"]["bucket"]] if "influxdb" in manifest["sinks"] else [],
            "stages": {
                stage: {
                    "nodes": sorted(groups.get(facts["on"], [])),
                    "unit": f"berny-{pipeline}-{stage}",
                    "metrics_port": facts["metrics_port"],
                    "needs": facts["needs"],
                }
                for stage, facts in manifest["stages"].items()
            },
        }
        for pipeline, manifest in pipelines.items()
    }
    control = {
        kind: order for component in catalog["components"].values() for kind, order in component["control"].items()
    }
    return {"cluster": name, "nodes": nodes, "services": services, "pipelines": stages, "control": control}


def control_drivers(catalog: Mapping[str, Any], groups: Mapping[str, list[str]]) -> dict[str, str]:
    """Return the node that has ``start-NAME.sh`` and ``stop-NAME.sh`` by NAME: that of the first service they drive."""
    return {
        kind: groups[catalog["services"][order[0]]["group"]][0]
        for component in catalog["components"].values()
        for kind, order in component["control"].items()
    }


def stages(pipelines: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return every stage with its name and its pipeline's, in the manifests' order."""
    return [
        {**stage, "pipeline": pipeline, "name": name}
        for pipeline, manifest in pipelines.items()
        for name, stage in manifest["stages"].items()
    ]


def environment_value(value: object) -> str:
    """Return a value for an environment file: in quotes, as systemd.exec(5) reads them, unless all of it is plain.

    Without them a line break would end the value, and what follows it would be another variable.
    """
    text = str(value)
    if re.fullmatch(r"[\w./:,@%+=-]*", text, re.ASCII):
        return text
    return '"' + re.sub(r'(["\\`$])', r"\\\1", text) + '"'


def hdfs_directories(pipelines: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Return the directories of HDFS that pipelines write to, with owner and mode."""
    found = {}
    for name, manifest in pipelines.items():
        landing = manifest["sinks"].get("hdfs", {}).get("path")
        for path in [f"/data/{name}", f"/user/{name}", *([landing] if landing else [])]:
            found[path] = {"owner": manifest["user"]["name"], "mode": "755"}
    return found


def homes(hosts: Mapping[str, Mapping[str, Any]], users: Iterable[str]) -> dict[str, dict[str, str]]:
    """Return the home directories in HDFS of ``users`` and of whom Ansible logs in as, with their owners.

    ``hosts`` are the variables of all hosts by name.
    """
    logins = {str(hosts[host]["ansible_user"]) for host in hosts if "ansible_user" in hosts[host]}
    return {f"/user/{user}": {"owner": user} for user in sorted({*logins, *users})}


def open_ports(
    catalog: Mapping[str, Any], pipelines: Mapping[str, Any], groups: Mapping[str, list[str]], node: str
) -> dict[str, list[str]]:
    """Return what a node's firewall opens to ``members`` and to ``operators``, as nftables writes ports and ranges."""
    here = [service for service in catalog["services"].values() if node in groups.get(service["group"], [])]
    members = {port for service in here for port in service["ports"].values()}
    members |= {stage["metrics_port"] for stage in stages(pipelines) if node in groups.get(stage["on"], [])}
    # On every node: an application's parts run wherever they are submitted and wherever a manager puts them.
    ranges = {tuple(c["ephemeral_ports"]) for c in catalog["components"].values() if c["ephemeral_ports"]}
    pages = {service["ports"][page] for service in here for page in service["pages"]}
    return {
        "members": [*map(str, sorted(members)), *(f"{first}-{last}" for first, last in sorted(ranges))],
        "operators": [str(port) for port in sorted(pages)],
    }


def ipv4(addresses: Iterable[str]) -> list[str]:
    """Return the IPv4 addresses among ``addresses`` (the others are names, or of IPv6), each once and in order."""
    found = set()
    for address in addresses:
        try:
            found.add(ipaddress.IPv4Address(address))
        except ValueError:
            continue
    return [str(address) for address in sorted(found)]


def dashboards(pipelines: Mapping[str, Any], folder: str, source: str) -> dict[str, str]:
    """Return the pipelines' dashboards: the file of each on the node, in ``folder``, and that of the checkout it is from."""
    return {
        f"{folder}/{name}.json": f"{source}/{name}/{manifest['dashboard']}"
        for name, manifest in pipelines.items()
        if manifest["dashboard"]
    }


def outdated(hosts: Iterable[str], hostvars: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the hosts whose service runs from something else than what is on disk; see the role ``service``."""
    return [host for host in hosts if hostvars[host].get("_service_state", {}).get("differs")]


class FilterModule:
    """The filters by name."""

    def filters(self) -> dict[str, Any]:
        """Return the filters of this file."""
        return {
            "control_drivers": control_drivers,
            "describe_cluster": describe_cluster,
            "stages": stages,
            "environment_value": environment_value,
            "hdfs_directories": hdfs_directories,
            "homes": homes,
            "outdated": outdated,
            "open_ports": open_ports,
            "ipv4": ipv4,
            "dashboards": dashboards,
            "is_private": is_private,
            "kafka_restoration": kafka_restoration,
            "lost_zookeeper": lost_zookeeper,
            "azure_machines": azure.machines,
            "azure_rules": azure.rules,
            "azure_table": azure.table,
        }
