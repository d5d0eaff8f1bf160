"""What a reset removes from which node, and reasons to refuse it. Pure: nothing here touches a node."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from berny.controller.placement import Groups, stage_units, units
from berny.model import names
from berny.model.catalog import Catalog
from berny.model.manifest import Pipeline

NODE = "node"
"""The owner of what every machine has; it is removed only with everything else."""


class Refused(ValueError):
    """The reset is refused; ``problems`` are all the reasons, each with its remedy."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__(" | ".join(problems))
        self.problems = problems


@dataclass(frozen=True)
class Request:
    """What the operator typed: one of the first three, and the cluster's name if data is to be removed as well."""

    component: str = ""
    pipeline: str = ""
    everything: bool = False
    data: str = ""


@dataclass(frozen=True)
class Plan:
    """What to remove."""

    owners: list[str]
    """In the order of removal: dependents before what they need."""
    hosts: dict[str, list[str]]
    """The owners to remove, by node."""
    everything: bool
    data: bool
    pipeline_data: str
    """The pipeline whose resources are removed, or nothing."""
    kept: list[str]
    """What stays that the operator should know about."""


def plan(
    request: Request,
    cluster: str,
    catalog: Catalog,
    pipelines: Mapping[str, Pipeline],
    groups: Groups,
    installed: Mapping[str, Collection[str]],
    remembered: Mapping[str, Collection[str]],
    unrecorded: Mapping[str, Collection[str]],
    of: Mapping[str, str],
) -> Plan:
    """Return what to remove, on the nodes of the play (``--limit``).

    Args:
        installed: The owners of files by node.
        remembered: Those that were removed and whose data was kept, by node.
        unrecorded: Units of a node that are not recorded.
        of: The pipeline of each owner that is a stage, as recorded on the nodes.

    Raises:
        Refused: the request is invalid, names what does not exist, would remove what others need, or records are lost.
    """
    if request.data:
        removable = {host: {*owners, *remembered[host]} for host, owners in installed.items()}
    else:
        removable = {host: set(owners) for host, owners in installed.items()}
    seen = {owner for owners in removable.values() for owner in owners}
    stages = {**{names.unit(p.name, stage): p.name for p in pipelines.values() for stage in p.stages}, **of}
    problems = _check(request, cluster, catalog, pipelines, seen, stages)
    problems += [
        f"{host}: there is no record (/var/lib/berny) of {', '.join(traces)}, so their dependencies are unknown: run "
        "site.yml, which records them again, then repeat this"
        for host, traces in unrecorded.items()
        if traces
    ]
    if problems:
        raise Refused(problems)
    wanted = _wanted(request, catalog, seen, stages)
    hosts = {}
    for host, owners in removable.items():
        going = wanted & owners
        # What a component's services share is removed with the last of them.
        for component in catalog.components.values():
            services = set(component.services)
            if going & services and not (owners & services) - going:
                going |= {component.name} & owners
        hosts[host] = going
    problems = _needed(hosts, catalog, pipelines, groups, installed)
    if problems:
        raise Refused(problems)
    order = _order(catalog, pipelines, seen, stages)
    everywhere = _is_removed_everywhere(request.pipeline, pipelines, groups, set(installed))
    shared = request.pipeline if request.data and everywhere else ""
    return Plan(
        owners=[owner for owner in order if any(owner in owners for owners in hosts.values())],
        hosts={host: [owner for owner in order if owner in owners] for host, owners in hosts.items()},
        everything=request.everything,
        data=bool(request.data),
        pipeline_data=shared,
        kept=_kept(request, hosts, shared, groups, catalog, pipelines),
    )


def _check(
    request: Request,
    cluster: str,
    catalog: Catalog,
    pipelines: Mapping[str, Pipeline],
    seen: set[str],
    stages: Mapping[str, str],
) -> list[str]:
    given = [request.component, request.pipeline, request.everything]
    problems = []
    if sum(map(bool, given)) != 1:
        problems.append("specify what to remove, one of: -e component=NAME, -e pipeline=NAME, -e everything=true")
    if request.data and request.data != cluster:
        problems.append(
            f"data={request.data} is not the name of this cluster ({cluster}): its data is removed only if you give its name"
        )
    components = {*catalog.components, *units(catalog, pipelines), *seen} - {NODE}
    if request.component and request.component not in components:
        problems.append(
            f"there is no component {request.component}{names.nearest_or_all(request.component, components)}"
        )
    known = {*pipelines, *(stages[owner] for owner in seen if owner in stages)}
    if request.pipeline and request.pipeline not in known:
        problems.append(f"there is no pipeline {request.pipeline}{names.nearest_or_all(request.pipeline, known)}")
    return problems


def _wanted(request: Request, catalog: Catalog, seen: set[str], stages: Mapping[str, str]) -> set[str]:
    if request.everything:
        return seen - {NODE}
    if request.pipeline:
        return {owner for owner in seen if stages.get(owner) == request.pipeline}
    component = catalog.components.get(request.component)
    return {request.component, *(component.services if component else ())}


def _needed(
    going: Mapping[str, Collection[str]],
    catalog: Catalog,
    pipelines: Mapping[str, Pipeline],
    groups: Groups,
    installed: Mapping[str, Collection[str]],
) -> list[str]:
    """Return what would lose a dependency: the last node that the inventory gives to one of a component's services."""
    staying = {owner for host, owners in installed.items() for owner in owners if owner not in going[host]}
    # Nodes outside the play are assumed to have what the inventory places there.
    staying |= {
        unit
        for unit, group in units(catalog, pipelines).items()
        if any(node not in installed for node in groups.get(group, ()))
    }
    dependents: dict[str, set[str]] = {}
    for component in catalog.components.values():
        for other in component.requires:
            if staying & set(component.services):
                dependents.setdefault(other, set()).add(component.name)
    for pipeline in pipelines.values():
        for name, stage in pipeline.stages.items():
            if names.unit(pipeline.name, name) in staying:
                for other in stage.needs:
                    dependents.setdefault(other, set()).add(f"the pipeline {pipeline.name}")
    problems = []
    for name, service in catalog.services.items():
        nodes = set(groups.get(service.group, ()))
        lost = nodes and all(name in going.get(node, ()) for node in nodes)
        if lost and dependents.get(service.component):
            who = " and ".join(sorted(dependents[service.component]))
            problems.append(
                f"{name} is needed by {who}: remove {'that' if len(dependents) == 1 else 'these'} first, or all"
            )
    return problems


def _is_removed_everywhere(name: str, pipelines: Mapping[str, Pipeline], groups: Groups, hosts: set[str]) -> bool:
    """Return whether a pipeline is removed from every node that the inventory places it on."""
    if name not in pipelines:
        return False
    return {node for stage in pipelines[name].stages.values() for node in groups.get(stage.on, ())} <= hosts


def _kept(
    request: Request,
    hosts: Mapping[str, Collection[str]],
    shared: str,
    groups: Groups,
    catalog: Catalog,
    pipelines: Mapping[str, Pipeline],
) -> list[str]:
    kept = []
    if not request.data:
        kept.append("data is kept (-e data=NAME OF THE CLUSTER removes it as well)")
    elif request.pipeline and not shared:
        kept.append(f"resources of {request.pipeline} in the cluster are kept: not all of its nodes are in this play")
    back = sorted({
        owner
        for host, owners in hosts.items()
        for owner in owners
        if host in groups.get(units(catalog, pipelines).get(owner, ""), ())
    })  # fmt: skip
    if back:
        kept.append(f"the inventory still has {', '.join(back)}: site.yml installs it again")
    return kept


def _order(catalog: Catalog, pipelines: Mapping[str, Pipeline], seen: set[str], of: Mapping[str, str]) -> list[str]:
    """Return all owners: stages first, then services after their dependents, then whatever is outside the catalog."""
    stages = list(reversed(stage_units(pipelines)))
    gone = sorted(owner for owner in seen if owner in of and owner not in stages)
    services: list[str] = []
    for component in reversed(catalog.components.values()):
        # A component's own files contain its services' commands.
        services += [name for name in reversed(component.services) if name != component.name] + [component.name]
    known = [*gone, *stages, *services]
    return [*known, *sorted(seen - {*known, NODE})]
