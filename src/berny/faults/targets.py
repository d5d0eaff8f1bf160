"""The targets of faults: the nodes, units, disks and spools of an inventory that runs some pipelines."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property

from berny.controller.artifacts import Store
from berny.controller.placement import by_load, spools, units
from berny.lab.plan import Plan, groups_of
from berny.lab.simulation import select
from berny.model import names
from berny.model.catalog import Catalog, load_catalog
from berny.model.manifest import Pipeline, load_pipelines
from berny.model.topology import Groups, read_mapping


@dataclass(frozen=True)
class Targets:
    """The topology that fault cases are derived from; a service or component that runs nowhere has no nodes."""

    catalog: Catalog
    pipelines: Mapping[str, Pipeline]
    groups: Groups
    absent: Collection[str] = ()
    """Optional components whose archives are missing."""

    @property
    def nodes(self) -> list[str]:
        """All of them, in the inventory's order."""
        return list(self.groups["all"])

    @cached_property
    def busiest(self) -> list[str]:
        """All nodes, those with the most units first."""
        return by_load(self.catalog, self.pipelines, self.groups)

    @cached_property
    def units(self) -> dict[str, list[str]]:
        """The nodes of each unit: services, without those whose archives are missing, and stages."""
        absent = {name for name, service in self.catalog.services.items() if service.component in self.absent}
        found = units(self.catalog, self.pipelines)
        # A timer's program runs only at times: mostly there is nothing to kill.
        for pipeline in self.pipelines.values():
            for stage, facts in pipeline.stages.items():
                if facts.kind == "timer":
                    del found[names.unit(pipeline.name, stage)]
        return {unit: list(self.groups.get(group, ())) for unit, group in found.items() if unit not in absent}

    def of(self, service: str) -> list[str]:
        """Return the nodes of a service."""
        return self.units.get(service, [])

    def runs(self, component: str) -> bool:
        """Return whether a component runs anywhere."""
        return any(self.of(service) for service in self.catalog.components[component].services)

    def port(self, service: str, name: str) -> int:
        """Return a port of a service."""
        return self.catalog.services[service].ports[name]

    def spools(self) -> dict[str, dict[str, list[str]]]:
        """Return, by pipeline, the nodes of each stage that has a spool: it polls the source."""
        return {name: spools(pipeline, self.groups) for name, pipeline in self.pipelines.items()}

    def spooled_on(self, node: str) -> frozenset[str]:
        """Return the pipelines that have a spool on a node: while it is down, they do not poll."""
        return frozenset(name for name, stages in self.spools().items() if any(node in at for at in stages.values()))


def load_targets(pipelines: Collection[str] | None = None, groups: Groups | None = None) -> Targets:
    """Return the targets in a lab that runs these pipelines and has these groups; without them, those of a default lab."""
    catalog, store = load_catalog(), Store()
    absent = [name for name, one in catalog.components.items() if one.optional and not store.find(one.archive)]
    chosen = select("") if pipelines is None else pipelines
    running = {name: one for name, one in load_pipelines().items() if name in chosen}
    return Targets(catalog, running, groups or groups_of(read_mapping(), chosen), absent)


def targets_of(plan: Plan) -> Targets:
    """Return the targets in a lab."""
    return load_targets(plan.pipelines, plan.groups)
