"""Memory of a lab's processes beside the catalog's budget."""

from __future__ import annotations

from berny.lab.memory import budgets, compare
from berny.model.catalog import load_catalog
from berny.model.manifest import load_pipelines


def test_every_service_and_stage_has_a_budget() -> None:
    """A service that hands out memory to applications is measured with them."""
    catalog, pipelines = load_catalog(), load_pipelines()
    found = budgets(catalog, pipelines)
    assert len(found) == len(catalog.services) + sum(len(pipeline.stages) for pipeline in pipelines.values())
    worker = catalog.services["spark-worker"]
    assert worker.jobs and found["spark-worker"] == worker.resident("small") + worker.jobs.small
    assert found["berny-idfm-producer"] == pipelines["idfm"].stages["producer"].memory.small


def test_what_has_a_quarter_more_than_its_budget_exceeds_it() -> None:
    """The greatest share first; what has no budget or does not run is left out."""

    def health(service: str, mib: int) -> dict[str, object]:
        return {"service": service, "memory_bytes": (mib << 20) + 99}

    asked = {
        "master": [health("kafka", 125), health("berny-firewall", 3), {"service": "yarn", "memory_bytes": None}],
        "worker_2": [health("kafka", 126), health("grafana", 10)],
        "worker_0": [],
    }
    found = compare(asked, {"kafka": 100, "grafana": 100, "yarn": 1})
    shown = [(use.node, use.unit, use.exceeds) for use in found]
    assert shown == [("worker_2", "kafka", True), ("master", "kafka", False), ("worker_2", "grafana", False)]
