"""The catalog against itself, the roles, the plays, the inventory and the archives: one fact, one home."""

from __future__ import annotations

import re
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from berny.controller.artifacts.recipes import load_recipes
from berny.model.catalog import CatalogError, load_catalog
from berny.model.component import Service, seconds, size_in_bytes
from berny.model.manifest import load_pipelines
from berny.model.topology import read_mapping
from berny.runtime.probe.load import load

CATALOG = load_catalog()
RUNBOOK = ["hdfs", "yarn", "zookeeper", "kafka", "spark", "influxdb"]
"""HDFS, YARN, ZooKeeper and Kafka, Spark, InfluxDB: the order in which the runbook starts what pipelines stand on."""

ENTRY = """
title: A component
version: "1"
archive: a
user: {{name: {name}, uid: 6900}}
needs: [{needs}]
services:
  {name}:
    group: {name}
    ports: {{main: 1}}
    heap: {{small: 1, large: 1}}
    keeps: nothing
"""


def play_roles(checkout: Path) -> list[tuple[str, str]]:
    """Return role and hosts of every play of site.yml, in the order of the playbooks that it imports."""
    found = []
    for imported in yaml.safe_load((checkout / "site.yml").read_text()):
        for play in yaml.safe_load((checkout / imported["ansible.builtin.import_playbook"]).read_text()):
            found += [(role["role"], play["hosts"]) for role in play.get("roles", [])]
    return found


def write(folder: Path, name: str, needs: str = "") -> Path:
    """Write a component's file and return it."""
    file = folder / name / "component.yml"
    file.parent.mkdir()
    file.write_text(ENTRY.format(name=name, needs=needs))
    return file


# -- against roles and plays -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CATALOG.components)
def test_component_has_role_and_play(checkout: Path, name: str) -> None:
    """A component that no play installs would be a line of the catalog that lies."""
    assert (checkout / "roles" / name / "tasks" / "main.yml").is_file()
    hosts = [hosts for role, hosts in play_roles(checkout) if role == name]
    groups = {service.group for service in CATALOG.components[name].services.values()}
    assert [set(pattern.split(":")) for pattern in hosts] == [groups]


def test_every_role_of_a_play_exists(checkout: Path) -> None:
    """The plays install components and what all of them share, and nothing that is not there."""
    roles = [role for role, _ in play_roles(checkout)]
    assert set(roles) == {"node", "firewall", *CATALOG.components, "control", "pipeline"}
    assert all((checkout / "roles" / role).is_dir() for role in roles)


def test_plays_respect_needs(checkout: Path) -> None:
    """site.yml is a static list: nothing but this test holds its order against the catalog's needs."""
    order = [role for role, _ in play_roles(checkout)]
    assert order[:2] == ["node", "firewall"]
    assert order[-1] == "pipeline"
    for name, component in CATALOG.components.items():
        assert all(order.index(need) < order.index(name) for need in component.needs), name


def test_plays_are_in_the_runbooks_order(checkout: Path) -> None:
    """What the runbook starts first is installed first."""
    assert [role for role, _ in play_roles(checkout) if role in RUNBOOK] == RUNBOOK


def test_plays_stop_at_the_first_broken_host(checkout: Path) -> None:
    """A run that went on after one broker failed is another project's scar."""
    for file in ("playbooks/cluster.yml", "playbooks/deploy.yml", "playbooks/pipelines.yml"):
        plays = yaml.safe_load((checkout / file).read_text())
        assert all(play.get("any_errors_fatal") is True for play in plays), file


def test_playbooks_that_touch_nodes_read_the_inventory_first(checkout: Path) -> None:
    """The preflight is the first play of site.yml and runs whatever tags are given."""
    first = yaml.safe_load((checkout / "playbooks/cluster.yml").read_text())[0]
    assert first["tags"] == ["always"]
    assert first["tasks"][0]["ansible.builtin.import_tasks"] == "tasks/begin.yml"
    begin = yaml.safe_load((checkout / "playbooks/tasks/begin.yml").read_text())
    assert "berny_inventory" in begin[0]


@pytest.mark.parametrize("name", CATALOG.services)
def test_role_runs_the_service(checkout: Path, name: str) -> None:
    """Each service of the catalog is run by its component's role, under its own name."""
    tasks = (checkout / "roles" / CATALOG.services[name].component / "tasks" / "main.yml").read_text()
    assert re.search(rf"service_name: {re.escape(name)}$", tasks, re.M)


@pytest.mark.parametrize("name", CATALOG.components)
def test_role_installs_the_commands_that_the_catalog_tells(checkout: Path, name: str) -> None:
    """All of ``commands.yml``, by one expression; or one by one, where a command has a template of its own."""
    tasks = yaml.safe_load((checkout / "roles" / name / "tasks" / "main.yml").read_text())
    given = [
        commands
        for task in tasks
        for commands in (task.get("berny_files", {}).get("commands"), task.get("vars", {}).get("service_commands"))
        if commands
    ]
    names = set(CATALOG.components[name].commands.names)
    if isinstance(given[0] if given else {}, dict):
        assert {command for commands in given for command in commands} == names
    else:
        assert len(given) == 1 and f"catalog.components.{name}.commands.names" in given[0]


@pytest.mark.parametrize("name", CATALOG.components)
def test_every_service_and_component_has_a_probe(probe_files: None, name: str) -> None:
    """Health is asked by protocol: convergence waits for a probe of each name."""
    probes = load(name)
    assert set(probes.services) == set(CATALOG.components[name].services)
    assert probes.component or len(probes.services) == 1, "which service speaks for the component?"


def test_order_of_the_catalog_respects_needs() -> None:
    """Whoever walks the catalog meets what is needed first."""
    order = list(CATALOG.components)
    for name, component in CATALOG.components.items():
        assert all(order.index(need) < order.index(name) for need in component.needs)


# -- against the inventory ---------------------------------------------------------------------------------------------


def test_groups_of_the_inventory_are_services() -> None:
    """hosts.yml is the mapping table: each service is on some node, each group is a service."""
    mapping = read_mapping()
    assert set(mapping) - {"all"} == {service.group for service in CATALOG.services.values()}
    for service in CATALOG.services.values():
        nodes = mapping[service.group]
        assert nodes and set(nodes) <= set(mapping["all"])
        assert service.instances == "many" or len(nodes) == 1


def test_no_two_services_share_a_group() -> None:
    """A group is a service; two in one group could not be mapped apart."""
    groups = [service.group for service in CATALOG.services.values()]
    assert len(groups) == len(set(groups))


def listeners(node: str) -> list[tuple[str, int, int]]:
    """Return what listens on a node as (who, first port, last port)."""
    mapping = read_mapping()
    found = [
        (f"{service.name} {port}", number, number)
        for service in CATALOG.services.values()
        if node in mapping[service.group]
        for port, number in service.ports.items()
    ]
    for name, pipeline in load_pipelines().items():
        for stage_name, stage in pipeline.stages.items():
            if node in mapping[stage.on]:
                found.append((f"{name} {stage_name}", stage.metrics_port, stage.metrics_port))
    for component in CATALOG.components.values():
        if component.ephemeral_ports:
            found.append((f"{component.name} range", *component.ephemeral_ports))
    return [*found, ("ssh", 22, 22)]


@pytest.mark.parametrize("node", read_mapping()["all"])
def test_ports_do_not_collide_on_a_node(node: str) -> None:
    """Spark's page, ZooKeeper's AdminServer and Kafka UI all want 8080."""
    for one, other in combinations(listeners(node), 2):
        assert one[2] < other[1] or other[2] < one[1], f"{node}: {one} and {other}"
    assert all(1 <= first <= last < 65536 for _, first, last in listeners(node))


def test_seed_ports_are_kept() -> None:
    """Clients written for the seeds find what they look for where it was."""
    ports = {name: service.ports for name, service in CATALOG.services.items()}
    assert ports["hdfs-namenode"] == {"rpc": 8020, "web": 9870}
    assert ports["kafka"]["broker"] == 9092
    assert ports["zookeeper"]["client"] == 2181
    assert ports["yarn-resourcemanager"]["web"] == 8088
    assert ports["spark-master"] == {"master": 7077, "web": 8080}
    assert ports["influxdb"]["http"] == 8086


def test_small_heaps_fit_the_lab() -> None:
    """The lab says that it takes 5 GiB: heaps are a good part of what services take."""
    mapping = read_mapping()
    heaps = sum(s.heap.small * len(mapping[s.group]) for s in CATALOG.services.values())
    assert heaps < 5 * 1024
    assert all(service.heap.small <= service.heap.large for service in CATALOG.services.values())


# -- users and versions ------------------------------------------------------------------------------------------------


def test_uids_and_users_are_unique() -> None:
    """A data disk that moves must not become another service's."""
    users = [owner.user for owner in (*CATALOG.components.values(), *load_pipelines().values())]
    assert len({user.uid for user in users}) == len(users)
    assert len({user.name for user in users}) == len(users)


@pytest.mark.parametrize("name", CATALOG.components)
def test_version_is_that_of_the_archive(name: str) -> None:
    """The version that a probe tells is the one that was installed."""
    component = CATALOG.components[name]
    assert load_recipes()[component.archive].version == component.version


def test_roots_of_an_archive_have_its_version() -> None:
    """A bump that forgets one root would install two versions of a product."""
    for recipe in load_recipes().values():
        product = {"hadoop": "org.apache.hadoop", "kafka": "org.apache.kafka", "spark": "org.apache.spark"}
        for root in recipe.roots:
            group, _, version = root.split(":")[:3]
            if group in (product.get(recipe.name), f"org.apache.{recipe.name}"):
                assert version == recipe.version, root
        for source in recipe.extra.values():
            assert source.split(":")[2] == recipe.version


def test_secrets_are_named_once() -> None:
    """Two components that share a secret's name would share the secret."""
    secrets = [secret for component in CATALOG.components.values() for secret in component.secrets]
    assert len(secrets) == len(set(secrets))


# -- what is wrong is named --------------------------------------------------------------------------------------------


def test_components_are_ordered_by_needs(tmp_path: Path) -> None:
    """Not by the alphabet, which files are read by."""
    write(tmp_path, "anvil", "zinc")
    write(tmp_path, "mill", "anvil")
    write(tmp_path, "zinc")
    assert list(load_catalog(tmp_path).components) == ["zinc", "anvil", "mill"]


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("version:", "verison:", "verison"),
        ("    group:", "    gruop:", "services.tool.gruop"),
        ("uid: 6900", "uid: 900", "user.uid"),
        ("heap: {small: 1, large: 1}", "heap: {small: 0, large: 1}", "services.tool.heap.small"),
        ("ports: {main: 1}", "ports: {main: many}", "services.tool.ports.main"),
    ],
)
def test_misspelt_key_names_file_and_key(tmp_path: Path, old: str, new: str, told: str) -> None:
    """A typing error is a sentence, not a stack."""
    file = write(tmp_path, "tool")
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))
    with pytest.raises(CatalogError) as error:
        load_catalog(tmp_path)
    assert str(file) in str(error.value)
    assert told in str(error.value)


@pytest.mark.parametrize("text", ["", "- tool\n", "title: [\n", "user:\n\tname: 1\n"])
def test_file_that_is_no_mapping_names_the_file(tmp_path: Path, text: str) -> None:
    """An empty or unreadable file is named like any other mistake."""
    file = tmp_path / "tool" / "component.yml"
    file.parent.mkdir()
    file.write_text(text)
    with pytest.raises(CatalogError) as error:
        load_catalog(tmp_path)
    assert str(file) in str(error.value)


def test_missing_need_names_the_file(tmp_path: Path) -> None:
    """The file to correct is the one that needs."""
    write(tmp_path, "one")
    file = write(tmp_path, "two", "one, three")
    with pytest.raises(CatalogError, match="'three'") as error:
        load_catalog(tmp_path)
    assert str(file) in str(error.value)


def test_circle_names_all_who_are_in_it(tmp_path: Path) -> None:
    """A circle has no first file: all of its components are told, and where they are."""
    write(tmp_path, "bystander", "one")
    write(tmp_path, "one", "two")
    write(tmp_path, "two", "three")
    write(tmp_path, "three", "one")
    with pytest.raises(CatalogError) as error:
        load_catalog(tmp_path)
    assert str(tmp_path) in str(error.value)
    assert re.search(r"one -> two -> three -> one", str(error.value))


def test_facts_can_not_be_changed() -> None:
    """The catalog is shared by everything in a process."""
    service: Any = CATALOG.services["kafka"]
    with pytest.raises(ValueError, match="frozen"):
        service.group = "zookeeper"
    assert isinstance(service, Service)


@pytest.mark.parametrize(("span", "value"), [("45s", 45), ("30m", 1800), ("12h", 43200), ("7d", 604800), ("0s", 0)])
def test_spans(span: str, value: int) -> None:
    """Each unit counts."""
    assert seconds(span) == value


@pytest.mark.parametrize("span", ["", "7", "d", "7 d", "7w", "-7d", "7D", "7d7h", "1.5h", "7d\n"])
def test_malformed_spans(span: str) -> None:
    """A span that is guessed would be a retention that is guessed."""
    with pytest.raises(ValueError, match="is not a time span"):
        seconds(span)


@pytest.mark.parametrize(("size", "value"), [("512KiB", 524288), ("256MiB", 268435456), ("4GiB", 4294967296)])
def test_sizes(size: str, value: int) -> None:
    """Each unit counts, in powers of 1024."""
    assert size_in_bytes(size) == value


@pytest.mark.parametrize("size", ["", "256", "256MB", "256 MiB", "MiB", "-1GiB", "1.5GiB", "1TiB"])
def test_malformed_sizes(size: str) -> None:
    """MB and MiB differ by 5 per cent: only one of them is understood."""
    with pytest.raises(ValueError, match="is not a size"):
        size_in_bytes(size)


def test_pairs_of_plays_do_not_repeat(checkout: Path) -> None:
    """A role that two plays run would be converged twice."""
    roles = [role for role, _ in play_roles(checkout)]
    assert all(one != other for one, other in pairwise(sorted(roles)))
