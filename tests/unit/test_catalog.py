"""The catalog against itself, the roles, the plays, the inventory and the archives: one fact, one home."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from types import ModuleType
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
ENTRY = """
title: A component
version: "1"
archive: a
user: {{name: {name}, uid: {uid}}}
requires: [{requires}]
services:
  {name}:
    group: {name}
    ports: {{main: 1}}
    heap: {{small: 1, large: 1}}
    keeps: nothing
"""


def plays(checkout: Path) -> list[dict[str, Any]]:
    """Return every play of site.yml, in the order of the playbooks that it imports."""
    return [
        play
        for imported in yaml.safe_load((checkout / "site.yml").read_text())
        for play in yaml.safe_load((checkout / imported["ansible.builtin.import_playbook"]).read_text())
    ]


def play_roles(checkout: Path) -> list[str]:
    """Return the roles that plays of site.yml name, and ``components`` for the loop over those of the catalog."""
    found = []
    for task in (task for play in plays(checkout) for task in play.get("tasks", [])):
        if role := task.get("ansible.builtin.import_role"):
            found.append(role["name"])
        elif task.get("ansible.builtin.include_tasks", {}).get("file") == "tasks/component.yml":
            found.append("components")
    return found


def write(folder: Path, name: str, requires: str = "") -> Path:
    """Write a component's file and return it."""
    file = folder / name / "component.yml"
    uid = 6900 + len(list(folder.iterdir()))
    file.parent.mkdir()
    file.write_text(ENTRY.format(name=name, requires=requires, uid=uid))
    return file


# -- against roles and plays -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CATALOG.components)
def test_component_has_a_role(checkout: Path, name: str) -> None:
    """A component that no role installs would be a line of the catalog that lies."""
    assert (checkout / "roles" / name / "tasks" / "main.yml").is_file()


def test_every_role_is_converged_once(checkout: Path) -> None:
    """Plays install what all share and the catalog's components: machines first, pipelines last."""
    roles = play_roles(checkout)
    assert roles == ["node", "firewall", "components", "control", "pipeline"]
    others = {path.name for path in (checkout / "roles").iterdir()} - {*CATALOG.components}
    assert others == {*roles, "service"} - {"components"}


def test_the_loop_runs_each_component_where_it_has_a_group(checkout: Path) -> None:
    """In the catalog's order, on all nodes at once; a node that runs none of its services is left out."""
    [loop] = [
        task
        for play in plays(checkout)
        for task in play.get("tasks", [])
        if task.get("ansible.builtin.include_tasks", {}).get("file") == "tasks/component.yml"
    ]
    assert loop["loop"] == "{{ catalog.components | are_tagged(ansible_run_tags, ansible_skip_tags) }}"
    assert loop["loop_control"] == {"loop_var": "component"} and "when" not in loop
    [task] = yaml.safe_load((checkout / "playbooks/tasks/component.yml").read_text())
    assert task["ansible.builtin.include_role"]["name"] == "{{ component }}"
    assert task["when"] == "catalog.components[component].groups | intersect(group_names) | length > 0"


def test_plays_of_the_cluster_name_no_component(checkout: Path) -> None:
    """A component is a folder: no play is edited for it."""
    text = (checkout / "playbooks/cluster.yml").read_text() + (checkout / "playbooks/tasks/component.yml").read_text()
    code = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    words = {
        *CATALOG.components,
        *CATALOG.services,
        *(group for c in CATALOG.components.values() for group in c.groups),
    }
    assert not words & {*re.findall(r"[\w-]+", code)}


@pytest.mark.parametrize(
    ("run", "skip", "chosen"),
    [
        (["all"], [], ["a", "b", "c"]),
        (["tagged"], [], ["a", "b", "c"]),
        (["c", "a"], [], ["a", "c"]),
        (["all"], ["b"], ["a", "c"]),
        (["b", "c"], ["b"], ["c"]),
        (["node"], [], []),
        (["untagged"], [], []),
        (["all"], ["a", "b", "c"], []),
    ],
)
def test_tags_choose_components(
    plugin: Callable[[str], ModuleType], run: list[str], skip: list[str], chosen: list[str]
) -> None:
    """Each component's name is its tag; the catalog's order stays."""
    are_tagged = plugin("ansible/plugins/filter/berny.py").are_tagged
    assert are_tagged({"a": {}, "b": {}, "c": {}}, run, skip) == chosen


def test_plays_stop_at_the_first_broken_host(checkout: Path) -> None:
    """A run that went on after one broker failed is another project's scar."""
    for file in ("playbooks/cluster.yml", "playbooks/deploy.yml", "playbooks/pipelines.yml"):
        plays = yaml.safe_load((checkout / file).read_text())
        assert all(play.get("any_errors_fatal") is True for play in plays), file


def test_playbooks_that_touch_nodes_read_the_inventory_first(checkout: Path) -> None:
    """The preflight is the first play of site.yml and runs whatever tags are given."""
    first = yaml.safe_load((checkout / "playbooks/cluster.yml").read_text())[0]
    assert first["tags"] == ["always"]
    assert first["tasks"][0]["ansible.builtin.include_tasks"] == {
        "file": "tasks/begin.yml", "apply": {"tags": ["always"]},
    }  # fmt: skip
    begin = yaml.safe_load((checkout / "playbooks/tasks/begin.yml").read_text())
    assert "berny_inventory" in begin[0]


@pytest.mark.parametrize("name", CATALOG.services)
def test_role_runs_the_service(checkout: Path, name: str) -> None:
    """Each service of the catalog is run by its component's role, under its own name."""
    folder = checkout / "roles" / CATALOG.services[name].component / "tasks"
    tasks = "\n".join(file.read_text() for file in sorted(folder.glob("*.yml")))
    alone, of_several = (
        rf"^    service_name: {re.escape(name)}$",
        rf"^    services:\n(      .*\n)*?      {re.escape(name)}:\n",
    )
    assert re.search(alone, tasks, re.M) or re.search(of_several, tasks, re.M)


@pytest.mark.parametrize("name", CATALOG.components)
def test_role_installs_the_commands_that_the_catalog_tells(checkout: Path, name: str) -> None:
    """All of ``commands.yml``, by one expression; or one by one, where a command has a template of its own."""
    tasks = yaml.safe_load((checkout / "roles" / name / "tasks" / "main.yml").read_text())
    found = [task.get("vars", {}) for task in tasks]
    clients = [one.get("services_clients", {}) for one in found] + [task.get("berny_files", {}) for task in tasks]
    lists = [one.get("commands") for one in clients] + [one.get("service_commands") for one in found]
    given = [commands for commands in lists if commands]
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


def test_order_of_the_catalog_respects_requirements() -> None:
    """Whoever walks the catalog meets what is required first."""
    order = list(CATALOG.components)
    for name, component in CATALOG.components.items():
        assert all(order.index(other) < order.index(name) for other in component.requires), name


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
    heaps = sum(s.heap.small * len(mapping[s.group]) for s in CATALOG.services.values() if s.heap)
    assert heaps < 5 * 1024
    for service in CATALOG.services.values():
        sizes = [one for one in (service.heap, service.memory, service.jobs, service.disk) if one]
        assert all(one.small <= one.large for one in sizes), service.name


# -- users and versions ------------------------------------------------------------------------------------------------


def test_uids_and_users_are_unique() -> None:
    """A data disk that moves must not become another service's."""
    users = [user for component in CATALOG.components.values() for user in component.users]
    users += [pipeline.user for pipeline in load_pipelines().values()]
    assert len({user.uid for user in users}) == len(users)
    assert len({user.name for user in users}) == len(users)


@pytest.mark.parametrize("name", [name for name, component in CATALOG.components.items() if component.archive])
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


def test_components_are_ordered_by_what_they_require(tmp_path: Path) -> None:
    """Not by the alphabet, which files are read by."""
    write(tmp_path, "anvil", "zinc")
    write(tmp_path, "mill", "anvil")
    write(tmp_path, "zinc")
    assert list(load_catalog(tmp_path).components) == ["zinc", "anvil", "mill"]


def test_components_come_after_those_that_they_take_from(tmp_path: Path) -> None:
    """Of all that give it, and none of them is required."""
    for name, line in (("anvil", "takes: [datasource]"), ("mill", "gives: [datasource]"), ("zinc", "gives: [plans]")):
        file = write(tmp_path, name)
        file.write_text(f"{file.read_text()}{line}\n")
    assert list(load_catalog(tmp_path).components) == ["mill", "anvil", "zinc"]
    (tmp_path / "mill" / "component.yml").unlink()
    load_catalog.cache_clear()
    assert list(load_catalog(tmp_path).components) == ["anvil", "zinc"]


@pytest.mark.parametrize("name", [name for name, component in CATALOG.components.items() if component.gives])
def test_what_is_given_has_a_template(checkout: Path, name: str) -> None:
    """And somebody takes it."""
    for gift in CATALOG.components[name].gives:
        assert (checkout / "roles" / name / "templates" / f"{gift}.yml.j2").is_file()
        assert [one.name for one in CATALOG.components.values() if gift in one.takes]


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


WHOLE = """
title: A component
version: "1"
archive: a
user: {name: NAME, uid: UID}
requires: REQUIRES
services:
  SERVICE:
    group: GROUP
    ports: {main: 1, page: 2}
    pages: [page]
    heap: {small: 1, large: 1}
    keeps: nothing
endpoints:
  ENDPOINT: {service: SERVICE, port: main}
kinds:
  KIND:
    pattern: "[a-z]+"
    says: use a to z
    keys:
      keep: {type: span, required: true}
resources: {}
"""
WORDS = {
    "NAME": "tool",
    "UID": "6900",
    "REQUIRES": "[]",
    "SERVICE": "tool",
    "GROUP": "tool",
    "ENDPOINT": "TOOL",
    "KIND": "things",
}


def whole(folder: Path, component: str = "tool", *changes: tuple[str, str], **words: str) -> Path:
    """Write a component that has everything, with other words and changes of its text; return its file."""
    text = WHOLE
    for word, value in {**WORDS, **words}.items():
        text = text.replace(word, value)
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    file = folder / component / "component.yml"
    file.parent.mkdir()
    file.write_text(text)
    return file


def refused(folder: Path, file: Path, *told: str) -> None:
    """The catalog of a folder is refused, with the name of a file and words."""
    with pytest.raises(CatalogError) as error:
        load_catalog(folder)
    for words in (str(file), *told):
        assert words in str(error.value), words


@pytest.mark.parametrize("name", ["my-tool", "the_tool", "Tool"])
def test_a_component_may_not_be_called_so(tmp_path: Path, name: str) -> None:
    """Its name becomes part of variables."""
    whole(tmp_path, name)
    with pytest.raises(CatalogError, match=f"{name}: a component's name becomes part of variables"):
        load_catalog(tmp_path)


@pytest.mark.parametrize("line", ["name: other\n", "verbs: [provide]\n"])
def test_what_follows_from_the_folder_is_not_written(tmp_path: Path, line: str) -> None:
    refused(tmp_path, whole(tmp_path, "tool", ("archive: a\n", f"archive: a\n{line}")), "follows from the folder")


def test_a_component_with_everything_is_read(tmp_path: Path) -> None:
    whole(tmp_path)
    tool = load_catalog(tmp_path).components["tool"]
    assert tool.kinds["things"].component == tool.services["tool"].component == "tool"
    assert tool.endpoints["TOOL"].port == "main" and tool.groups == ["tool"]


HEAP = "    heap: {small: 1, large: 1}\n"


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("keeps: nothing", "kept: nothing", "services.tool.kept"),
        ("pages: [page]", "pages: [pgae]", "pages: pgae: no such port"),
        ("pages: [page]", "metrics: pgae", "metrics: pgae: no such port"),
        (
            HEAP,
            f"{HEAP}    memory: {{small: 1, large: 1}}\n",
            "services.tool: Value error, heap: either this or memory",
        ),
        (HEAP, "", "services.tool: Value error, heap: either this or memory"),
        ("port: main}", "port: mian}", "endpoints.TOOL: there is no port mian of tool"),
        ("service: tool, port", "service: tolo, port", "endpoints.TOOL: there is no port main of tolo"),
        ("port: main}", 'port: main, text: "{user}"}', "endpoints.TOOL: Value error, service and port, or text"),
        ("{service: tool, port: main}", "{}", "endpoints.TOOL: Value error, service and port, or text"),
        ("type: span", "type: spam", "kinds.things.keys.keep.type"),
        ("says: use a to z", "say: use a to z", "kinds.things.say"),
        ("archive: a\n", "", "install: 'archive' and 'venv' need archive"),
        ("archive: a\n", "archive: a\npackages: {names: [pkg]}\n", "install: 'archive' and 'venv' need archive"),
        ("archive: a\n", "install: packages\n", "install: 'archive' and 'venv' need archive"),
        ("name: tool,", "name: the tool,", "user.name: Value error, 'the tool' can't be a name"),
        ("uid: 6900", "uid: 7000", "user.uid"),
        ("main: 1", "main: 65536", "services.tool.ports.main"),
        ("group: tool", "group: the-tool", "services.tool.group"),
        (
            "resources: {}",
            "resources: {topics: {a: {}}}",
            "resources.topics: no component has this kind; there are things",
        ),
        ("resources: {}", "resources: {things: {a: {}}}", "resources.things.a.keep: is missing"),
        ("resources: {}", "resources: {things: {a: {keep: 7}}}", "resources.things.a.keep: 7 is no span"),
        ("resources: {}", "resources: {things: {A: {keep: 7d}}}", "resources.things.A: can't be called so: use a to z"),
    ],
)
def test_what_a_component_may_not_say(tmp_path: Path, old: str, new: str, told: str) -> None:
    """File and key of each mistake."""
    refused(tmp_path, whole(tmp_path, "tool", (old, new)), told)


def test_the_name_of_a_service_is_a_name(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    refused(other, whole(other, SERVICE="The-Tool"), "services.The-Tool.name: Value error, 'The-Tool' can't be a name")


def test_who_asks_for_a_resource_requires_its_component(tmp_path: Path) -> None:
    """Else it would be converged before there is anything to ask."""
    mine = {"NAME": "mill", "UID": "6901", "SERVICE": "mill", "GROUP": "mill", "ENDPOINT": "MILL", "KIND": "flour"}
    asks = ("resources: {}", "resources: {things: {a: {keep: 7d}}}")
    whole(tmp_path)
    file = whole(tmp_path, "mill", asks, **mine)
    refused(tmp_path, file, "resources: tool is not among requires")
    file.write_text(file.read_text().replace("requires: []", "requires: [tool]"))
    load_catalog.cache_clear()
    assert load_catalog(tmp_path).components["mill"].resources == {"things": {"a": {"keep": "7d"}}}


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("UID", "uid 6900 is that of mill"),
        ("NAME", "user tool is that of mill"),
        ("SERVICE", "service tool is that of mill"),
        ("GROUP", "group tool is that of mill"),
        ("KIND", "kind things is that of mill"),
        ("ENDPOINT", "endpoint TOOL is that of mill"),
    ],
)
def test_what_is_taken_can_not_be_taken_twice(tmp_path: Path, word: str, told: str) -> None:
    """The later one, and whose it is."""
    mine = {"NAME": "mill", "UID": "6901", "SERVICE": "mill", "GROUP": "mill", "ENDPOINT": "MILL", "KIND": "flour"}
    whole(tmp_path, "mill", **{**mine, word: WORDS[word]})
    refused(tmp_path, whole(tmp_path, "tool"), told)


@pytest.mark.parametrize(
    ("user", "told"),
    [
        ("{name: keeper, uid: 6901}", ""),
        ("{name: keeper, uid: 6900}", "two of its users have one name or uid"),
        ("{name: tool, uid: 6901}", "two of its users have one name or uid"),
        ("{name: mill, uid: 6901}", "user mill is that of mill"),
        ("{name: keeper, uid: 6902}", "uid 6902 is that of mill"),
    ],
)
def test_a_service_may_have_a_user_of_its_own(tmp_path: Path, user: str, told: str) -> None:
    """Which nobody else has: no other component, and not its own."""
    mine = {"NAME": "mill", "UID": "6902", "SERVICE": "mill", "GROUP": "mill", "ENDPOINT": "MILL", "KIND": "flour"}
    whole(tmp_path, "mill", **mine)
    file = whole(tmp_path, "tool", ("keeps: nothing", f"keeps: nothing\n    user: {user}"))
    if told:
        refused(tmp_path, file, told)
    else:
        load_catalog.cache_clear()
        assert [one.name for one in load_catalog(tmp_path).components["tool"].users] == ["tool", "keeper"]


def test_a_missing_requirement_names_the_file(tmp_path: Path) -> None:
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
