"""What an inventory selects and puts where, as data.

A component is selected when one of its inventory groups has a node, a pipeline when the inventory's list ``pipelines``
names it. What those require must be selected as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import yaml

from berny.model import names
from berny.model.catalog import ROLES, Catalog, load_catalog
from berny.model.component import Component, Endpoint
from berny.model.manifest import Pipeline, load_pipelines

CHECKOUT = ROLES.parent
INVENTORY = CHECKOUT / "inventory" / "lab"

Groups = Mapping[str, Sequence[str]]
"""The nodes of each inventory group."""


def read_mapping(inventory: Path = INVENTORY) -> dict[str, list[str]]:
    """Return the nodes of each group of ``hosts.yml``, and all of them as ``all``."""
    data = yaml.safe_load((inventory / "hosts.yml").read_text())["all"]
    groups = {name: sorted(group["hosts"]) for name, group in data["children"].items()}
    return groups | {"all": sorted(data["hosts"])}


def is_selected(component: Component, groups: Groups) -> bool:
    """Return whether one of a component's groups has a node."""
    return any(groups.get(group) for group in component.groups)


def selected_components(catalog: Catalog, groups: Groups) -> Catalog:
    """Return the components that an inventory selects, in the catalog's order."""
    return Catalog(components={name: one for name, one in catalog.components.items() if is_selected(one, groups)})


def demanded_groups(catalog: Catalog, groups: Groups, pipelines: Iterable[Pipeline]) -> dict[str, list[str]]:
    """Return the groups of an inventory, without the nodes of on-demand components that nothing needs.

    A pipeline needs the components of its resources and of the groups that its stages run on, its engines, and what these
    require. What a selected component requires that is not on demand is needed as well.

    Args:
        catalog: all components.
        groups: the inventory's groups; those that no component has are kept as they are.
        pipelines: the pipelines that are to run.
    """
    owners = {group: component.name for component in catalog.components.values() for group in component.groups}
    needed = {name for name, one in selected_components(catalog, groups).components.items() if not one.on_demand}
    for pipeline in pipelines:
        needed |= pipeline.requires | {catalog.kinds[kind].component for kind in pipeline.resources}
        needed |= {owners[stage.on] for stage in pipeline.stages.values() if stage.on in owners}
    # In the catalog's order a component comes after what it requires.
    for name, component in reversed(catalog.components.items()):
        needed |= {*component.requires} if name in needed else set()
    idle = {name for name, one in catalog.components.items() if one.on_demand} - needed
    return {group: [] if owners.get(group) in idle else list(nodes) for group, nodes in groups.items()}


def chosen(pipelines: str | Sequence[str]) -> list[str]:
    """Return the names of the inventory's pipelines; a text (``-e pipelines=a,b``) has them with commas or spaces between."""
    return pipelines.replace(",", " ").split() if isinstance(pipelines, str) else list(pipelines)


def selected_pipelines(wanted: Iterable[str]) -> dict[str, Pipeline]:
    """Return the manifests of pipelines that an inventory names, in its order; those that there are not are left out."""
    known = load_pipelines()
    return {name: known[name] for name in dict.fromkeys(wanted) if name in known}


def selected(groups: Groups, pipelines: str | Sequence[str]) -> tuple[Catalog, dict[str, Pipeline]]:
    """Return the components and the manifests that an inventory selects, by its groups and its list ``pipelines``."""
    return selected_components(load_catalog(), groups), selected_pipelines(chosen(pipelines))


def selection_problems(catalog: Catalog, groups: Groups, wanted: Sequence[str]) -> Iterator[str]:
    """Yield what is wrong with a selection.

    Args:
        catalog: all components.
        groups: the inventory's groups.
        wanted: the names of the pipelines.
    """
    found, known = selected_components(catalog, groups), load_pipelines()
    for component in found.components.values():
        for service in component.services.values():
            nodes = groups.get(service.group, ())
            if not nodes:
                yield f"no node runs {service.name}: put one into the group {service.group}"
            elif service.instances == "one" and len(nodes) > 1:
                yield (
                    f"{len(nodes)} nodes are to run {service.name} ({', '.join(sorted(nodes))}), which there can be one of: "
                    f"keep one in the group {service.group}"
                )
    by_user = [(component.name, component.requires) for component in found.components.values()]
    by_user += [(f"the pipeline {name}", sorted(known[name].requires)) for name in wanted if name in known]
    for user, required in by_user:
        for other in required:
            if other not in found.components:
                missing = ", ".join(catalog.components[other].groups)
                yield f"{user} requires {other}, which no node runs: put nodes into its groups ({missing})"
    for name in wanted:
        if name not in known:
            yield f"there is no pipeline {name}{names.nearest_or_all(name, known)}"


def address(endpoint: Endpoint, catalog: Catalog, groups: Groups, machines: Mapping[str, str]) -> str:
    """Return the value of an endpoint of selected components."""
    service = catalog.services[endpoint.service]
    nodes = list(groups[service.group])[: None if endpoint.every else 1]
    if endpoint.part:
        return machines[nodes[0]] if endpoint.part == "host" else str(service.ports[endpoint.port])
    scheme = f"{endpoint.scheme}://" if endpoint.scheme else ""
    return ",".join(f"{scheme}{machines[node]}:{service.ports[endpoint.port]}" for node in nodes)


def endpoints(catalog: Catalog, groups: Groups, machines: Mapping[str, str]) -> dict[str, str]:
    """Return the addresses that plays and stages get, by the variables of stages.

    Args:
        catalog: the selected components.
        groups: the inventory's groups, in its order.
        machines: the machine name of each node.
    """
    return {
        name: address(endpoint, catalog, groups, machines)
        for component in catalog.components.values()
        for name, endpoint in component.endpoints.items()
        if endpoint.service and groups.get(catalog.services[endpoint.service].group)
    }


def stage_environment(
    pipeline: Pipeline,
    stage: str,
    catalog: Catalog,
    addresses: Mapping[str, str],
    granted: Mapping[str, Mapping[str, str | Mapping[str, str]]],
) -> dict[str, str]:
    """Return what a stage is told of the components that it needs, and of no other.

    Args:
        pipeline: its manifest.
        stage: its name.
        catalog: the selected components.
        addresses: those of ``endpoints``.
        granted: by component, what its role has created for this pipeline: credentials, say. A variable that differs by
            resource has a value for each.
    """
    manifest = pipeline.stages[stage]
    words = {
        "user": pipeline.user.name,
        "pipeline": pipeline.name,
        "stage": stage,
        "checkpoint": names.checkpoint(pipeline.name, manifest.checkpoint or stage),
        **{name.lower(): value for name, value in addresses.items()},
    }
    found: dict[str, str] = {}
    for name in manifest.needs:
        component = catalog.components[name]
        for variable, endpoint in component.endpoints.items():
            found[variable] = endpoint.text.format(**words) if endpoint.text else addresses[variable]
        for kind, rule in component.kinds.items():
            listed: list[dict[str, str]] = []
            for resource in pipeline.writes(stage, kind):
                # A key that the resource does not have is empty.
                keys = {**dict.fromkeys(rule.keys, ""), **pipeline.resources[kind][resource], "name": resource}
                listed.append({variable: text.format(**keys) for variable, text in rule.listing.items()})
                found |= {variable: text.format(**keys) for variable, text in rule.environment.items()}
                # A credential is for what writes there.
                for variable, value in granted.get(name, {}).items():
                    found[variable] = value if isinstance(value, str) else value[resource]
            if listed:
                found |= {variable: ",".join(one[variable] for one in listed) for variable in rule.listing}
    engine = catalog.components[manifest.engine].engine if manifest.engine else None
    if engine:
        found |= {variable: text.format(**words) for variable, text in engine.environment.items()}
    return found


def asked(catalog: Catalog, pipelines: Mapping[str, Pipeline], kind: str) -> dict[str, dict[str, object]]:
    """Return all resources of a kind, each with the ``pipeline`` and the ``user`` that asks for it."""
    found: dict[str, dict[str, object]] = {}
    rule = catalog.kinds[kind]
    for component in catalog.components.values():
        for name, given in component.resources.get(kind, {}).items():
            found[name] = {**rule.complete(given), "pipeline": "", "user": component.user.name}
    for pipeline in pipelines.values():
        for name, given in pipeline.resources.get(kind, {}).items():
            found[name] = {**given, "pipeline": pipeline.name, "user": pipeline.user.name}
    return found
