"""Filters that turn the catalog and the inventory into what a node is told."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from berny.controller import azure
from berny.controller.addresses import is_private
from berny.model import names
from berny.model.topology import asked, chosen, selected, selected_pipelines, stage_environment


def manifests(pipelines: str | Sequence[str]) -> dict[str, Any]:
    """Return the manifests of the pipelines that an inventory names, in its order."""
    return {name: pipeline.model_dump(mode="json") for name, pipeline in selected_pipelines(chosen(pipelines)).items()}


def asked_of(pipelines: str | Sequence[str], kind: str, groups: Mapping[str, list[str]]) -> dict[str, Any]:
    """Return the resources of a kind that the selected components and pipelines ask for, with who asks."""
    return asked(*selected(groups, pipelines), kind)


def grants(variables: Mapping[str, Any], components: Iterable[str], pipeline: str) -> dict[str, dict[str, Any]]:
    """Return what components have granted a pipeline, out of what their tasks ``provide`` registered on this host."""
    provided = {name: variables.get(f"_{name}_provided") or {} for name in components}
    return {name: one.get("granted", {}).get(pipeline, {}) for name, one in provided.items()}


def stage_grants(variables: Mapping[str, Any], stage: Mapping[str, Any]) -> dict[str, str]:
    """Return what the components that a stage needs have granted it alone, whether it reads or writes there."""
    provided = [variables.get(f"_{name}_provided") or {} for name in stage["needs"]]
    own = [one.get("granted_stages", {}).get(stage["pipeline"], {}).get(stage["name"], {}) for one in provided]
    return {variable: value for granted in own for variable, value in granted.items()}


def environment_of(
    stage: Mapping[str, Any],
    groups: Mapping[str, list[str]],
    addresses: Mapping[str, str],
    granted: Mapping[str, Mapping[str, str | Mapping[str, str]]],
) -> dict[str, str]:
    """Return a stage's environment variables for the components that it needs."""
    catalog, pipelines = selected(groups, [stage["pipeline"]])
    return stage_environment(pipelines[stage["pipeline"]], stage["name"], catalog, addresses, granted)


def metrics_targets(
    catalog: Mapping[str, Any], manifests: Mapping[str, Any], groups: Mapping[str, list[str]]
) -> dict[str, dict[str, Any]]:
    """Return what serves metrics in Prometheus' format, by unit: its nodes, the port and the path."""
    served = {
        name: (service["group"], service["ports"][service["metrics"]], service["metrics_path"])
        for name, service in catalog["services"].items()
        if service["metrics"]
    }
    served |= {stage["unit"]: (stage["on"], stage["metrics_port"], "/metrics") for stage in stages(manifests)}
    return {
        unit: {"nodes": sorted(groups.get(group, [])), "port": port, "path": path}
        for unit, (group, port, path) in served.items()
    }


def describe_cluster(
    catalog: Mapping[str, Any],
    manifests: Mapping[str, Any],
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
    pipelines = {
        pipeline: {
            "name": pipeline,
            "title": manifest["title"],
            "user": manifest["user"]["name"],
            "resources": manifest["resources"],
            "stages": {
                stage["name"]: {
                    "nodes": sorted(groups.get(stage["on"], [])),
                    **{
                        key: stage[key] for key in ("unit", "metrics_port", "kind", "needs", "reads", "writes", "state")
                    },
                    "data": stage["data_directory"],
                }
                for stage in stages({pipeline: manifest})
            },
        }
        for pipeline, manifest in manifests.items()
    }
    control = {
        kind: order for component in catalog["components"].values() for kind, order in component["control"].items()
    }
    return {
        "cluster": name,
        "nodes": nodes,
        "services": services,
        "pipelines": pipelines,
        "metrics": metrics_targets(catalog, manifests, groups),
        "control": control,
    }


def control_drivers(catalog: Mapping[str, Any], groups: Mapping[str, list[str]]) -> dict[str, str]:
    """Return the node that has ``start-NAME.sh`` and ``stop-NAME.sh`` by NAME: that of the first service they drive."""
    return {
        kind: groups[catalog["services"][order[0]]["group"]][0]
        for component in catalog["components"].values()
        for kind, order in component["control"].items()
    }


def stages(manifests: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return every stage with its name and its pipeline's, what follows from these, in the manifests' order."""
    return [
        {
            **stage,
            "pipeline": pipeline,
            "name": name,
            "unit": names.unit(pipeline, name),
            "target": names.target(pipeline),
            "group": names.group(pipeline, name),
            "checkpoint": names.checkpoint(pipeline, stage["checkpoint"] or name) if stage["engine"] else "",
            "state": names.state(pipeline, name),
            "data_directory": names.data(pipeline) if stage["data"] else "",
            "archive": names.archive(pipeline),
            "user": manifest["user"]["name"],
            "title": f"{manifest['title']}: {name}",
        }
        for pipeline, manifest in manifests.items()
        for name, stage in manifest["stages"].items()
    ]


def as_services(stages: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return stages as the role ``service`` takes them: by unit, each with itself as the variable ``_stage``."""
    return {stage["unit"]: {"_stage": stage} for stage in stages}


def without(stages: Iterable[Mapping[str, Any]], secrets: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the secrets that stages need and that are not set, by the stage's unit."""
    missing = {stage["unit"]: [name for name in stage["secrets"] if not secrets.get(name)] for stage in stages}
    return {unit: names for unit, names in missing.items() if names}


def environment_value(value: object) -> str:
    """Return a value for an environment file: in quotes, as systemd.exec(5) reads them, unless all of it is plain.

    Without them a line break would end the value, and what follows it would be another variable.
    """
    text = str(value)
    if re.fullmatch(r"[\w./:,@%+=-]*", text, re.ASCII):
        return text
    return '"' + re.sub(r'(["\\`$])', r"\\\1", text) + '"'


def open_ports(
    catalog: Mapping[str, Any], manifests: Mapping[str, Any], groups: Mapping[str, list[str]], node: str
) -> dict[str, list[str]]:
    """Return what a node's firewall opens to ``nodes`` and to ``operators``, as nftables writes ports and ranges."""
    here = [service for service in catalog["services"].values() if node in groups.get(service["group"], [])]
    to_nodes = {port for service in here for port in service["ports"].values()}
    for stage in stages(manifests):
        if node in groups.get(stage["on"], []):
            to_nodes |= {stage["metrics_port"], *stage["ports"].values()}
    # On every node: an application's parts run wherever they are submitted and wherever a manager puts them.
    ranges = {tuple(c["ephemeral_ports"]) for c in catalog["components"].values() if c["ephemeral_ports"]}
    pages = {service["ports"][page] for service in here for page in service["pages"]}
    return {
        "nodes": [*map(str, sorted(to_nodes)), *(f"{first}-{last}" for first, last in sorted(ranges))],
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


def are_tagged(components: Iterable[str], run: Iterable[str], skip: Iterable[str]) -> list[str]:
    """Return the components that ``--tags`` and ``--skip-tags`` choose; each component's name is its tag."""
    run, skip = set(run), set(skip)
    return [name for name in components if (name in run or run & {"all", "tagged"}) and name not in skip]


def restored(components: Mapping[str, Any]) -> list[str]:
    """Return the components that can be restored, in an order in which each comes after those that it is restored after."""
    order: list[str] = []

    def add(name: str) -> None:
        for other in components[name]["restored_after"]:
            if other in components:
                add(other)
        if name not in order and "restore" in components[name]["verbs"]:
            order.append(name)

    for name in components:
        add(name)
    return order


def lost(components: Iterable[str], variables: Mapping[str, Any]) -> dict[str, str]:
    """Return what is lost of components, in words, out of what their tasks ``lost`` set on this host."""
    return {name: variables[f"_{name}_lost"] for name in components if variables.get(f"_{name}_lost")}


def outdated(
    hosts: Iterable[str], hostvars: Mapping[str, Mapping[str, Any]], services: Iterable[str]
) -> list[dict[str, Any]]:
    """Return what runs from something else than what is on disk: how each service is restarted, and on which ``host``."""
    states = {host: hostvars[host].get("_service_state", {}).get("services", {}) for host in hosts}
    return [
        {word: own[name][word] for word in ("name", "probe", "gate", "component", "wait")} | {"host": host}
        for name in services
        for host, own in states.items()
        if own.get(name, {}).get("differs")
    ]


class FilterModule:
    """The filters by name."""

    def filters(self) -> dict[str, Any]:
        """Return the filters of this file."""
        return {
            "control_drivers": control_drivers,
            "describe_cluster": describe_cluster,
            "metrics_targets": metrics_targets,
            "stages": stages,
            "manifests": manifests,
            "asked": asked_of,
            "grants": grants,
            "stage_grants": stage_grants,
            "stage_environment": environment_of,
            "environment_value": environment_value,
            "outdated": outdated,
            "without": without,
            "as_services": as_services,
            "restored": restored,
            "lost": lost,
            "are_tagged": are_tagged,
            "open_ports": open_ports,
            "ipv4": ipv4,
            "is_private": is_private,
            "azure_machines": azure.machines,
            "azure_rules": azure.rules,
            "azure_table": azure.table,
        }
