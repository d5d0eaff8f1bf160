"""What processes of a lab take of memory beside what the catalog and the manifests plan for them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from berny.lab.lab import Lab
from berny.lab.summary import probes
from berny.model import names
from berny.model.catalog import Catalog, load_catalog
from berny.model.manifest import Pipeline, load_pipelines

MARGIN = 0.25
"""The share of its budget that a process may take beyond it."""


@dataclass(frozen=True)
class Use:
    """The memory of one unit on one node, in MiB."""

    node: str
    unit: str
    resident: int
    budget: int
    """Its own process, and the applications that it starts."""

    @property
    def ratio(self) -> float:
        """Return the share of the budget that it takes."""
        return self.resident / self.budget

    @property
    def exceeds(self) -> bool:
        """Return whether it takes too much more than planned."""
        return self.ratio > 1 + MARGIN


def budgets(catalog: Catalog, pipelines: Mapping[str, Pipeline]) -> dict[str, int]:
    """Return the MiB that are planned for each unit of a small node, as a lab's are, by its name without suffix."""
    found = {
        service.name: service.resident("small") + (service.jobs.small if service.jobs else 0)
        for service in catalog.services.values()
    }
    for pipeline in pipelines.values():
        for name, stage in pipeline.stages.items():
            found[names.unit(pipeline.name, name)] = stage.memory.small
    return found


def compare(asked: Mapping[str, Iterable[Mapping[str, Any]]], planned: Mapping[str, int]) -> list[Use]:
    """Return what each unit takes, the greatest share of its budget first.

    Args:
        asked: results of probes by node.
        planned: budgets by unit; what has none, such as the firewall, is left out.
    """
    found = [
        Use(node, health["service"], health["memory_bytes"] >> 20, planned[health["service"]])
        for node, answers in asked.items()
        for health in answers
        if health["memory_bytes"] and health["service"] in planned
    ]
    return sorted(found, key=lambda use: -use.ratio)


def uses(lab: Lab) -> list[Use]:
    """Return what each unit of a lab takes now, the greatest share of its budget first."""
    return compare(probes(lab), budgets(load_catalog(), load_pipelines()))
