"""What the inventory places on which node, by owner. Owners are recorded on nodes (``/var/lib/berny/installed``).

Owners are services and stages by the name of their unit, components by their name (what clients need), and roles outside
the catalog, such as ``node``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from berny.model import names
from berny.model.catalog import Catalog
from berny.model.component import NodeSize
from berny.model.manifest import Pipeline
from berny.model.topology import Groups


@dataclass(frozen=True)
class Need:
    """What a node needs for the services and stages placed there."""

    memory: int
    """MiB for its services and stages."""
    jobs: int
    """MiB that they may allocate to applications."""
    disks: dict[str, int]
    """GiB by directory."""
    ports: dict[int, str]
    """The unit that listens on each port."""


def stage_units(pipelines: Mapping[str, Pipeline]) -> dict[str, str]:
    """Return the inventory group of each stage by the name of its unit, in the manifests' order."""
    return {
        names.unit(pipeline.name, name): stage.on
        for pipeline in pipelines.values()
        for name, stage in pipeline.stages.items()
    }


def spools(pipeline: Pipeline, groups: Groups) -> dict[str, list[str]]:
    """Return the nodes of each stage that has a spool on its data disk: it polls the source."""
    return {name: list(groups.get(stage.on, ())) for name, stage in pipeline.stages.items() if stage.data}


def placed(catalog: Catalog, pipelines: Mapping[str, Pipeline], groups: Groups, node: str) -> set[str]:
    """Return the owners that the inventory places on a node."""
    services = {name: s for name, s in catalog.services.items() if node in groups.get(s.group, ())}
    stages = {unit for unit, group in stage_units(pipelines).items() if node in groups.get(group, ())}
    return {*services, *stages, *(service.component for service in services.values())}


def units(catalog: Catalog, pipelines: Mapping[str, Pipeline]) -> dict[str, str]:
    """Return the inventory group of every service and stage by the name of its unit."""
    return {name: service.group for name, service in catalog.services.items()} | stage_units(pipelines)


def by_load(catalog: Catalog, pipelines: Mapping[str, Pipeline], groups: Groups) -> list[str]:
    """Return the nodes, those with the most units first; ties keep the inventory's order."""
    groups_of_units = units(catalog, pipelines).values()
    count = {node: sum(node in groups.get(group, ()) for group in groups_of_units) for node in groups["all"]}
    return sorted(count, key=lambda node: -count[node])


def need(
    catalog: Catalog,
    pipelines: Mapping[str, Pipeline],
    groups: Groups,
    node: str,
    size: NodeSize,
    heaps: Mapping[str, int],
) -> Need:
    """Return what a node of a size needs; ``heaps`` are those that the inventory sets, by service."""
    memory = jobs = 0
    disks: dict[str, int] = {}
    ports: dict[int, str] = {}
    for name, service in catalog.services.items():
        if node not in groups.get(service.group, ()):
            continue
        memory += service.resident(size, heaps.get(name))
        jobs += getattr(service.jobs, size) if service.jobs else 0
        ports |= dict.fromkeys(service.ports.values(), name)
        if service.disk:
            disks[f"/data/{name}"] = getattr(service.disk, size)
    for pipeline in pipelines.values():
        for name, stage in pipeline.stages.items():
            if node not in groups.get(stage.on, ()):
                continue
            memory += getattr(stage.memory, size)
            ports |= dict.fromkeys([stage.metrics_port, *stage.ports.values()], names.unit(pipeline.name, name))
            if stage.data:
                disks[names.data(pipeline.name)] = getattr(stage.data, size)
    return Need(memory, jobs, disks, ports)


def packaged(catalog: Catalog) -> dict[str, str]:
    """Return the operating system's units that components mask, each with the packages that may contain it."""
    found = [component.packages for component in catalog.components.values() if component.packages]
    return {unit: " or ".join(packages.names) for packages in found for unit in packages.masks}


def clashes(catalog: Catalog, pipelines: Mapping[str, Pipeline], groups: Groups) -> list[str]:
    """Return the ports that two services of one node would share."""
    problems = []
    listeners = [
        (name, service.group, port) for name, service in catalog.services.items() for port in service.ports.values()
    ]
    listeners += [
        (names.unit(pipeline.name, name), stage.on, port)
        for pipeline in pipelines.values()
        for name, stage in pipeline.stages.items()
        for port in [stage.metrics_port, *stage.ports.values()]
    ]
    for number, (name, group, port) in enumerate(listeners):
        for other, others_group, others_port in listeners[:number]:
            shared = sorted(set(groups.get(group, ())) & set(groups.get(others_group, ())))
            if port == others_port and shared and name != other:
                problems.append(
                    f"{shared[0]}: {other} and {name} would both listen on port {port}: put one of them elsewhere, or "
                    "change its port in the component.yml of its role"
                )
    return problems
