"""What a lab runs: components that are on demand only for pipelines that need them, everything else always."""

from __future__ import annotations

import ipaddress
import subprocess
from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from berny.controller.artifacts.recipes import load_recipes
from berny.faults.cases import fault_cases
from berny.faults.targets import targets_of
from berny.lab import summary
from berny.lab.lab import Lab
from berny.lab.make import archives
from berny.lab.plan import Plan, described_groups, load_plan
from berny.lab.simulation import load_simulations, select
from berny.model.catalog import Catalog, load_catalog
from berny.model.manifest import Pipeline, load_pipelines
from berny.model.topology import Groups, demanded_groups, read_mapping, selection_problems

LAB = Plan("lab", ipaddress.IPv4Network("10.180.7.0/24"), ("idfm",))

# -- a catalog of its own ----------------------------------------------------------------------------------------------

COMPONENT = """
title: {name}
version: "1"
install: packages
packages: {{names: [{name}]}}
user: {{name: {name}, uid: {uid}}}
services: {{{name}: {{group: {name}, ports: {{}}, memory: {{small: 1, large: 1}}, keeps: nothing}}}}
{more}
"""
KIND = 'kinds: {{{}: {{pattern: "[a-z]+", says: letters}}}}'
COMPONENTS = {
    "always": "requires: [base]",
    "base": "on_demand: true",
    "queue": KIND.format("queues"),
    "store": "on_demand: true\nrequires: [disk]\n" + KIND.format("tables"),
    "disk": "on_demand: true\nrequires: [below]",
    "below": "on_demand: true",
    "motor": "on_demand: true\nengine: {command: run}",
    "place": "on_demand: true",
    "nobodys": "on_demand: true",
}
STAGE = "{{kind: stream, run: only.py, metrics_port: 93{}, {}}}"
PIPELINES = {
    "plain": ("queues: {q: {}}", "on: queue, writes: q"),
    "tables": ("tables: {t: {}}", "on: queue, reads: t"),
    "owns": ("tables: {u: {}}", "on: queue"),
    "driven": ("{}", "on: queue, engine: motor"),
    "placed": ("{}", "on: place"),
}
NEEDED = {
    "plain": set(),
    "tables": {"store", "disk", "below"},
    "owns": {"store", "disk", "below"},
    "driven": {"motor"},
    "placed": {"place"},
}
GROUPS = {"all": ["a", "b"], "others": ["a"]} | {name: ["a", "b"] for name in COMPONENTS}


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """Components that are there always, on demand, and required by either."""
    roles = tmp_path_factory.mktemp("roles")
    for number, (name, more) in enumerate(COMPONENTS.items()):
        (roles / name).mkdir()
        text = COMPONENT.format(name=name, uid=6900 + number, more=more)
        (roles / name / "component.yml").write_text(text)
    return load_catalog(roles)


@pytest.fixture
def pipelines(catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Pipeline]:
    """A pipeline for each way to need a component."""
    for number, (name, (resources, stage)) in enumerate(PIPELINES.items(), 10):
        (tmp_path / name).mkdir()
        (tmp_path / name / "only.py").touch()
        text = f"title: P\nuser: {{name: {name}p, uid: 69{number}}}\nresources: {resources_of(resources)}\n"
        (tmp_path / name / "pipeline.yml").write_text(text + f"stages: {{only: {STAGE.format(number, stage)}}}")
    monkeypatch.setattr("berny.model.manifest.load_catalog", lambda: catalog)
    return load_pipelines(tmp_path)


def resources_of(text: str) -> str:
    """Return the mapping that a text is the inside of."""
    return text if text == "{}" else f"{{{text}}}"


def run_in(groups: Groups) -> set[str]:
    """Return the components of the catalog above that have nodes."""
    return {name for name in COMPONENTS if groups[name]}


def test_a_component_says_that_it_is_on_demand(catalog: Catalog) -> None:
    assert catalog.components["store"].on_demand and not catalog.components["queue"].on_demand


@pytest.mark.parametrize("name", PIPELINES)
def test_what_a_pipeline_needs_is_run_with_what_that_requires(
    catalog: Catalog, pipelines: dict[str, Pipeline], name: str
) -> None:
    """By what it reads and writes, resources that no stage names, what runs it, and where; other components always are."""
    groups = demanded_groups(catalog, GROUPS, [pipelines[name]])
    assert run_in(groups) == {"always", "base", "queue"} | NEEDED[name]
    assert groups.keys() == GROUPS.keys()
    assert (groups["all"], groups["others"]) == (["a", "b"], ["a"])


def test_what_several_pipelines_need_is_run(catalog: Catalog, pipelines: dict[str, Pipeline]) -> None:
    """What nobody needs is not, and what an inventory does not place is not either."""
    assert run_in(demanded_groups(catalog, GROUPS, pipelines.values())) == COMPONENTS.keys() - {"nobodys"}
    assert run_in(demanded_groups(catalog, GROUPS, [])) == {"always", "base", "queue"}
    placed = GROUPS | {"always": [], "store": []}
    assert run_in(demanded_groups(catalog, placed, [pipelines["tables"]])) == {"queue", "disk", "below"}


# -- labs --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", load_simulations())
def test_each_pipeline_alone_finds_what_it_requires(name: str) -> None:
    """And the node on which its harness runs."""
    groups = replace(LAB, pipelines=(name,)).groups
    assert list(selection_problems(load_catalog(), groups, [name])) == []
    assert groups[load_simulations()[name].harness]


@pytest.fixture
def on_demand(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes components of the catalog on demand."""

    def change(*names: str) -> None:
        known = load_catalog().components.items()
        found = {name: one.model_copy(update={"on_demand": name in names}) for name, one in known}
        for module in ("lab.plan", "lab.summary", "lab.make", "faults.targets"):
            monkeypatch.setattr(f"berny.{module}.load_catalog", lambda: Catalog(components=found))

    return change


def test_a_lab_runs_what_its_pipelines_need(on_demand: Callable[..., None]) -> None:
    """Its machines have the disks of the rest, for when it does: they get them only as they boot."""
    on_demand("yarn", "hdfs")
    lab, full = replace(LAB), replace(LAB, everything=True)
    assert full.groups == read_mapping() and full.disks == lab.disks
    idle = {"resourcemanager", "nodemanager", "historyserver"}
    assert lab.groups == read_mapping() | {group: [] for group in idle}
    assert "yarn-nodemanager" in units(full) and not [unit for unit in units(lab) if "yarn" in unit]
    assert not [name for name in fault_cases(targets_of(lab)) if "yarn" in name]


def units(plan: Plan) -> set[str]:
    """Return the units that the fault bench knows in a lab."""
    return {unit for unit, nodes in targets_of(plan).units.items() if nodes}


def test_a_lab_without_a_file_has_what_labs_run_by_default(on_demand: Callable[..., None]) -> None:
    on_demand("yarn")
    assert described_groups(read_mapping(), {}) == replace(LAB, pipelines=select("")).groups
    assert described_groups(read_mapping(), {"everything": True})["nodemanager"]
    assert described_groups(read_mapping(), {"pipelines": ["of-another-checkout"]})["nodemanager"] == []


def test_a_lab_keeps_what_it_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Unless it is told otherwise."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    full = replace(LAB, everything=True, made={name: node.address for name, node in LAB.nodes.items()})
    full.folder.mkdir(parents=True)
    (full.folder / "lab.yml").write_text(yaml.safe_dump(full.describe()))
    assert load_plan("lab") == full == Lab.named("lab").plan
    assert Lab.named("lab", ("other",)).plan == replace(full, pipelines=("other",))
    assert Lab.named("lab", (), False).plan == replace(full, everything=False)


def test_the_status_names_what_is_selected_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, on_demand: Callable[..., None]
) -> None:
    """Neither web UIs nor a missing archive of anything else."""
    on_demand("yarn", "grafana")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    shown = {}
    for everything in (True, False):
        lab = Lab(replace(LAB, pipelines=("idfm",), everything=everything))
        lab.simulators.clear()
        monkeypatch.setattr(lab, "run", lambda *words: subprocess.CompletedProcess(words, 1, "", ""))
        out = StringIO()
        summary.show(lab, Console(file=out, width=300))
        shown[everything] = out.getvalue()
    assert "web UI of yarn-resourcemanager" in shown[True] and "NOT RUN: grafana" in shown[True]
    assert "web UI of hdfs-namenode" in shown[False]
    assert "yarn" not in shown[False] and "grafana" not in shown[False]


def test_archives_of_what_a_lab_does_not_run_are_not_fetched(on_demand: Callable[..., None]) -> None:
    """Unless something that it runs is from the same one."""
    on_demand("influxdb", "hdfs")
    groups = read_mapping()
    assert archives(groups) == list(load_recipes())
    for group in ("influxdb", "namenode", "datanode", "secondarynamenode"):
        groups[group] = []
    catalog = load_catalog().components
    assert catalog["influxdb"].archive not in archives(groups)
    assert {catalog["yarn"].archive, "berny-idfm"} <= {*archives(groups)}
