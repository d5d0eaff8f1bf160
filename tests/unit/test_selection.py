"""What an inventory selects: components by their groups, pipelines by name; what they require, and what others learn."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from berny.controller.placement import need, placed
from berny.model import names
from berny.model.catalog import Catalog, CatalogError, load_catalog
from berny.model.component import Endpoint
from berny.model.manifest import load_pipelines
from berny.model.topology import (
    address,
    asked,
    chosen,
    endpoints,
    read_mapping,
    selected_components,
    selected_pipelines,
    selection_problems,
    stage_environment,
)

CATALOG, PIPELINES = load_catalog(), load_pipelines()
Groups = dict[str, list[str]]


@pytest.fixture(scope="module")
def facts(plugin: Callable[[str], ModuleType]) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """What the vars plugin gives every play of an inventory."""
    found: Callable[[Mapping[str, Any]], dict[str, Any]] = plugin("ansible/plugins/vars/berny_catalog.py").facts
    return found


@pytest.fixture(scope="module")
def filters(plugin: Callable[[str], ModuleType]) -> ModuleType:
    return plugin("ansible/plugins/filter/berny.py")


def groups(*gone: str, empty: bool = False) -> Groups:
    """Return the lab's groups without those of some components: missing, or there without a node."""
    out = {group for name in gone for group in CATALOG.components[name].groups}
    kept = {name: nodes for name, nodes in read_mapping().items() if name not in out}
    return kept | ({group: [] for group in out} if empty else {})


def problems(selected: Groups, *pipelines: str) -> list[str]:
    return list(selection_problems(CATALOG, selected, pipelines))


def missing(name: str, by: str) -> str:
    """Return the sentence for a requirement that no node runs."""
    its = ", ".join(CATALOG.components[name].groups)
    return f"{by} requires {name}, which no node runs: put nodes into its groups ({its})"


# -- what may be left out ----------------------------------------------------------------------------------------------

VALID: list[tuple[tuple[str, ...], tuple[str, ...]]] = [
    ((), ("idfm",)),
    ((), ()),
    (("grafana",), ("idfm",)),
    (("yarn",), ("idfm",)),
    (("grafana", "yarn"), ("idfm",)),
    (("spark",), ()),
    (("grafana", "influxdb"), ()),
    (("hbase",), ("idfm",)),
    (("spark", "yarn", "hbase", "hdfs", "grafana", "influxdb"), ()),
    (tuple(CATALOG.components), ()),
]


@pytest.mark.parametrize("empty", [False, True])
@pytest.mark.parametrize(("gone", "pipelines"), VALID)
def test_components_can_be_left_out(gone: tuple[str, ...], pipelines: tuple[str, ...], empty: bool) -> None:
    """A group that is missing and one without a node are the same."""
    there = groups(*gone, empty=empty)
    assert problems(there, *pipelines) == []
    assert list(selected_components(CATALOG, there).components) == [n for n in CATALOG.components if n not in gone]


@pytest.mark.parametrize(("gone", "pipelines"), VALID)
def test_plays_see_what_is_selected_alone(
    facts: Callable[..., dict[str, Any]], gone: tuple[str, ...], pipelines: tuple[str, ...]
) -> None:
    """Catalog, addresses by name, and nothing of a component that is not there."""
    there = groups(*gone)
    found = facts(there)
    selected = {name: component for name, component in CATALOG.components.items() if name not in gone}
    assert list(found["catalog"]["components"]) == list(selected)
    assert set(found["catalog"]["services"]) == {s for component in selected.values() for s in component.services}
    addresses = {name for c in selected.values() for name, one in c.endpoints.items() if one.service}
    assert set(found["endpoints"]) == addresses
    everybodys = {name.lower() for component in CATALOG.components.values() for name in component.endpoints}
    assert everybodys & set(found) == {name.lower() for name in addresses}
    assert all(found[name.lower()] == value for name, value in found["endpoints"].items())
    json.dumps(found)


@pytest.mark.parametrize(("gone", "pipelines"), VALID)
def test_filters_do_with_what_is_selected(
    facts: Callable[..., dict[str, Any]], filters: ModuleType, gone: tuple[str, ...], pipelines: tuple[str, ...]
) -> None:
    """What probes read, what the firewall opens and what a node needs: nothing of what is left out."""
    there, found = groups(*gone), facts(groups(*gone))
    catalog, manifests = found["catalog"], filters.manifests(list(pipelines))
    addresses = dict.fromkeys(there["all"], "192.0.2.1")
    told = filters.describe_cluster(catalog, manifests, there, found["machine_names"], addresses, "lab")
    assert set(told["services"]) == set(catalog["services"])
    assert set(told["pipelines"]) == set(pipelines)
    assert all(stage["nodes"] for pipeline in told["pipelines"].values() for stage in pipeline["stages"].values())
    drives = {name for n, c in CATALOG.components.items() if n not in gone for name in c.control}
    assert set(told["control"]) == set(filters.control_drivers(catalog, there)) == drives
    selected, wanted = selected_components(CATALOG, there), selected_pipelines(pipelines)
    out = {str(port) for name in gone for s in CATALOG.components[name].services.values() for port in s.ports.values()}
    for node in there["all"]:
        opened = filters.open_ports(catalog, manifests, there, node)
        assert not out & {*opened["nodes"], *opened["operators"]}
        needed = need(selected, wanted, there, node, "small", {})
        assert not out & set(map(str, needed.ports))
        assert not set(gone) & placed(selected, wanted, there, node)
        assert (needed.memory > 0) is bool(placed(selected, wanted, there, node))
    assert not {*filters.restored(catalog["components"])} & {*gone}


def test_what_runs_nowhere_opens_nothing(facts: Callable[..., dict[str, Any]], filters: ModuleType) -> None:
    """A range of a component that is not selected is not open either."""
    there = groups(*CATALOG.components)
    assert filters.open_ports(facts(there)["catalog"], {}, there, "master") == {"nodes": [], "operators": []}


# -- what may not ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(PIPELINES["idfm"].requires))
def test_what_a_pipeline_requires_is_named_with_its_groups(name: str) -> None:
    """Each of its components; nobody asks for it where the pipeline is not chosen."""
    assert missing(name, "the pipeline idfm") in problems(groups(name), "idfm")
    assert not [problem for problem in problems(groups(name)) if "pipeline" in problem]


def test_spark_is_missed_by_its_pipeline_alone() -> None:
    [problem] = problems(groups("spark"), "idfm")
    assert problem == (
        "the pipeline idfm requires spark, which no node runs: put nodes into its groups (spark_master, spark_worker)"
    )


def test_what_a_component_requires_is_named_with_its_groups() -> None:
    assert problems(groups("influxdb")) == [], "Grafana takes what there is"
    assert sorted(problems(groups("zookeeper"))) == [missing("zookeeper", "hbase"), missing("zookeeper", "kafka")]
    assert sorted(problems(groups("hdfs"))) == [missing("hdfs", name) for name in ("hbase", "spark", "yarn")]


@pytest.mark.parametrize(
    "name", [n for n, s in CATALOG.services.items() if len(CATALOG.components[s.component].services) > 1]
)
def test_a_component_with_one_of_its_services_needs_all(name: str) -> None:
    """Half of a component is none."""
    group = CATALOG.services[name].group
    sentence = f"no node runs {name}: put one into the group {group}"
    assert problems({n: nodes for n, nodes in groups().items() if n != group}) == [sentence]
    assert problems(groups() | {group: []}) == [sentence]


@pytest.mark.parametrize("name", [name for name, service in CATALOG.services.items() if service.instances == "one"])
def test_what_there_can_be_one_of_is_on_one_node(name: str) -> None:
    group = CATALOG.services[name].group
    [problem] = problems(groups() | {group: ["worker_0", "master"]})
    assert problem.startswith(f"2 nodes are to run {name} (master, worker_0), which there can be one of")
    assert problem.endswith(f"keep one in the group {group}")


@pytest.mark.parametrize(
    ("name", "meant"),
    [("idmf", "did you mean idfm?"), ("qqqq", "there are "), ("IDFM", "there are ")],
)
def test_an_unknown_pipeline_is_told_with_the_nearest(name: str, meant: str) -> None:
    known = ", ".join(sorted(PIPELINES)) if meant.endswith(" ") else ""
    assert problems(groups(), "idfm", name) == [f"there is no pipeline {name}; {meant}{known}"]


def test_everything_is_told_at_once() -> None:
    there = groups("spark") | {"namenode": ["master", "worker_0"], "nodemanager": []}
    assert len(problems(there, "idfm", "idmf")) == 4


# -- pipelines ---------------------------------------------------------------------------------------------------------


def test_pipelines_are_a_list_or_a_text() -> None:
    """``-e pipelines=a,b`` is a text."""
    assert chosen(["a", "b"]) == chosen("a,b") == chosen("a b") == chosen(" a, b ") == ["a", "b"]
    assert chosen("") == chosen([]) == []


def test_pipelines_are_in_the_inventorys_order_each_once(filters: ModuleType) -> None:
    """One that there is not is left to who checks the inventory."""
    assert list(selected_pipelines(["none", "idfm", "idfm"])) == ["idfm"]
    assert list(filters.manifests("idfm,none")) == ["idfm"]


def test_resources_have_who_asks() -> None:
    """Components' own have no pipeline."""
    found = asked(CATALOG, PIPELINES, "hdfs")
    assert found["/data/idfm/raw_landing.json"]["pipeline"] == found["/data/idfm/raw_landing.json"]["user"] == "idfm"
    assert (found["/spark"]["pipeline"], found["/spark"]["user"]) == ("", "spark")
    assert found["/spark"]["mode"] == "755", "defaults are completed"
    assert set(asked(CATALOG, {}, "topics")) == set()
    topics = [topic for pipeline in PIPELINES.values() for topic in pipeline.resources.get("topics", {})]
    assert list(asked(CATALOG, PIPELINES, "topics")) == topics and "idfm-realtime" in topics


# -- addresses ---------------------------------------------------------------------------------------------------------


def test_addresses_are_the_machines() -> None:
    """Of all nodes where a client may ask any, else of the one; with a scheme where clients want one."""
    machines = {node: node.replace("_", "-") for node in read_mapping()["all"]}
    assert endpoints(CATALOG, groups(), machines) == {
        "KAFKA_BOOTSTRAP_SERVERS": "master:9092,worker-2:9092",
        "HDFS_URL": "hdfs://master:8020",
        "HDFS_WEB_URL": "http://master:9870",
        "HBASE_HOST": "worker-1",
        "HBASE_PORT": "9090",
        "SPARK_MASTER_URL": "spark://master:7077",
        "INFLUX_URL": "http://worker-2:8086",
        "PG_ADDRESS": "worker-1:5432",
    }


def test_host_and_port_are_given_apart() -> None:
    """For clients that take no HOST:PORT; of several nodes the first."""
    machines = {node: node.replace("_", "-") for node in read_mapping()["all"]}
    parts = {part: Endpoint(service="kafka", port="broker", part=part) for part in ("host", "port")}
    found = {part: address(endpoint, CATALOG, groups(), machines) for part, endpoint in parts.items()}
    assert found == {"host": "master", "port": "9092"}
    with pytest.raises(ValueError, match="part: of one address"):
        Endpoint(service="kafka", port="broker", part="host", every=True)


def environment(stage: str, catalog: Catalog = CATALOG) -> dict[str, str]:
    """Return what a stage of idfm is told, with credentials of everything."""
    machines = {node: node for node in read_mapping()["all"]}
    granted = {name: {f"{name.upper()}_TOKEN": "t"} for name in CATALOG.components} | {
        "influxdb": {"INFLUX_TOKEN": "t"}
    }
    return stage_environment(PIPELINES["idfm"], stage, catalog, endpoints(catalog, groups(), machines), granted)


def test_a_stage_learns_of_what_it_needs_and_of_nothing_else() -> None:
    """A credential is for what writes there; a checkpoint for what an engine runs; a kind's text for its resource."""
    producer, analytics, consumer = map(environment, ("producer", "analytics", "influx-consumer"))
    assert producer == {
        "KAFKA_BOOTSTRAP_SERVERS": "master:9092,worker_2:9092",
        "KAFKA_TOKEN": "t",
        "HDFS_URL": "hdfs://master:8020",
        "HDFS_WEB_URL": "http://master:9870",
        "HDFS_USER": "idfm",
        "HDFS_TOKEN": "t",
        "BERNY_RAW_PATH": "/data/idfm/raw_landing.json",
        "BERNY_RAW_KEEP": "90d",
        "BERNY_DIRECTORIES": "/data/idfm/raw_landing.json=90d",
    }
    assert analytics == {
        "KAFKA_BOOTSTRAP_SERVERS": "master:9092,worker_2:9092",
        "KAFKA_TOKEN": "t",
        "HDFS_URL": "hdfs://master:8020",
        "HDFS_WEB_URL": "http://master:9870",
        "HDFS_USER": "idfm",
        "SPARK_MASTER_URL": "spark://master:7077",
        "BERNY_CHECKPOINT": f"hdfs://master:8020{names.checkpoint('idfm', 'analytics')}",
    }
    assert consumer == {
        "KAFKA_BOOTSTRAP_SERVERS": "master:9092,worker_2:9092",
        "INFLUX_URL": "http://worker_2:8086",
        "INFLUX_TOKEN": "t",
        "INFLUX_BUCKET": "idfm_metrics",
    }


def test_a_grant_by_resource_is_that_of_what_the_stage_writes(tmp_path: Path) -> None:
    """Two buckets of one pipeline: each stage gets the id of its own, and the token that both share."""
    folder = tmp_path / "two"
    folder.mkdir()
    bucket = "{keep: 1d, measurement: m, tags: [], fields: [f]}"
    stages = [f"s{n}: {{kind: stream, on: influxdb, run: only.py, writes: b{n}, metrics_port: 939{n}}}" for n in (1, 2)]
    (folder / "only.py").touch()
    (folder / "pipeline.yml").write_text(
        f"{{title: Two, user: {{name: two, uid: 6900}}, resources: {{influxdb: {{b1: {bucket}, b2: {bucket}}}}}, "
        f"stages: {{{', '.join(stages)}}}}}"
    )
    pipeline = load_pipelines(tmp_path)["two"]
    granted = {"influxdb": {"INFLUX_TOKEN": "t", "INFLUX_BUCKET_ID": {"b1": "id 1", "b2": "id 2"}}}
    for stage, bucket, name in (("s1", "b1", "id 1"), ("s2", "b2", "id 2")):
        found = stage_environment(pipeline, stage, CATALOG, {"INFLUX_URL": "http://a:1"}, granted)
        assert (found["INFLUX_BUCKET"], found["INFLUX_BUCKET_ID"], found["INFLUX_TOKEN"]) == (bucket, name, "t")


def test_a_directory_that_keeps_all_has_no_span(tmp_path: Path) -> None:
    """What a resource does not say is empty for the stage."""
    folder = tmp_path / "all"
    folder.mkdir()
    (folder / "only.py").touch()
    (folder / "pipeline.yml").write_text(
        "{title: A, user: {name: all, uid: 6900}, resources: {hdfs: {/data/all/raw: {}}}, "
        "stages: {only: {kind: stream, on: kafka, run: only.py, writes: /data/all/raw, metrics_port: 9399}}}"
    )
    pipeline = load_pipelines(tmp_path)["all"]
    addresses = {"HDFS_URL": "hdfs://a:1", "HDFS_WEB_URL": "http://a:2"}
    told = stage_environment(pipeline, "only", CATALOG, addresses, {})
    assert (told["BERNY_RAW_PATH"], told["BERNY_RAW_KEEP"]) == ("/data/all/raw", "")


def test_a_stage_that_writes_two_directories_knows_both_and_its_checkpoint(tmp_path: Path) -> None:
    """Each with its retention; a checkpoint has the name that the manifest gives it."""
    folder = tmp_path / "pair"
    folder.mkdir()
    (folder / "only.py").touch()
    (folder / "pipeline.yml").write_text(
        "{title: P, user: {name: pair, uid: 6900}, resources: {hdfs: {/data/pair/a: {keep: 1d}, /data/pair/b: {}}}, "
        "stages: {only: {kind: stream, on: spark_master, engine: spark, run: only.py, writes: [/data/pair/b, /data/pair/a], "
        "checkpoint: checkpoint_pair, metrics_port: 9399}}}"
    )
    pipeline = load_pipelines(tmp_path)["pair"]
    addresses = {"HDFS_URL": "hdfs://a:1", "HDFS_WEB_URL": "http://a:2", "SPARK_MASTER_URL": "spark://a:3"}
    told = stage_environment(pipeline, "only", CATALOG, addresses, {})
    assert told["BERNY_DIRECTORIES"] == "/data/pair/b=,/data/pair/a=1d"
    assert told["BERNY_CHECKPOINT"] == "hdfs://a:1/data/pair/checkpoints/checkpoint_pair"


# -- filters -----------------------------------------------------------------------------------------------------------


def test_stages_carry_what_follows_from_their_names(filters: ModuleType) -> None:
    found = {stage["name"]: stage for stage in filters.stages(filters.manifests(["idfm"]))}
    producer, analytics = found["producer"], found["analytics"]
    assert producer["unit"] == "berny-idfm-producer" and producer["target"] == "berny-idfm.target"
    assert producer["group"] == "idfm-producer" and producer["archive"] == "berny-idfm" and producer["user"] == "idfm"
    assert producer["state"] == "/var/lib/berny-idfm-producer" and producer["data_directory"] == "/data/berny-idfm"
    assert producer["checkpoint"] == "" and analytics["checkpoint"] == "/data/idfm/checkpoints/analytics"
    assert analytics["data_directory"] == "", "it has no data disk"


def test_environment_of_a_stage_as_the_role_asks_for_it(
    facts: Callable[..., dict[str, Any]], filters: ModuleType
) -> None:
    there = groups("grafana", "yarn")
    [consumer] = [one for one in filters.stages(filters.manifests("idfm")) if one["name"] == "influx-consumer"]
    told = filters.environment_of(consumer, there, facts(there)["endpoints"], {"influxdb": {"INFLUX_TOKEN": "t"}})
    assert told["INFLUX_TOKEN"] == "t" and told["INFLUX_URL"] == "http://worker-2:8086"


def test_grants_are_a_pipelines_own(filters: ModuleType) -> None:
    """Out of what each component's ``provide`` registered; one that registered nothing granted nothing."""
    variables = {
        "_influxdb_provided": {"granted": {"idfm": {"INFLUX_TOKEN": "t"}, "other": {"INFLUX_TOKEN": "o"}}},
        "_kafka_provided": {"changed": False},
        "_hdfs_provided": None,
    }
    found = filters.grants(variables, ["influxdb", "kafka", "hdfs", "spark"], "idfm")
    assert found == {"influxdb": {"INFLUX_TOKEN": "t"}, "kafka": {}, "hdfs": {}, "spark": {}}


def test_what_is_granted_to_a_stage_alone(filters: ModuleType) -> None:
    """Of the components that it needs; other stages, and other pipelines', get nothing of it."""
    granted = {"idfm": {"producer": {"TOKEN": "p"}, "other": {"TOKEN": "o"}}, "air": {"producer": {"TOKEN": "a"}}}
    variables = {"_kafka_provided": {"granted_stages": granted}, "_hdfs_provided": None}
    stage = {"pipeline": "idfm", "name": "producer", "needs": ["kafka", "hdfs", "spark"]}
    assert filters.stage_grants(variables, stage) == {"TOKEN": "p"}
    assert filters.stage_grants(variables, stage | {"name": "reader"}) == {}
    assert filters.stage_grants(variables, stage | {"needs": ["hdfs"]}) == {}


def test_secrets_that_nobody_gave(filters: ModuleType) -> None:
    """By unit; an empty one is none."""
    found = filters.stages(filters.manifests("idfm"))
    assert filters.without(found, {}) == filters.without(found, {"prim_api_key": ""})
    assert filters.without(found, {}) == {"berny-idfm-producer": ["prim_api_key"]}
    assert filters.without(found, {"prim_api_key": "k"}) == {}


def component(*verbs: str, after: tuple[str, ...] = ()) -> dict[str, Any]:
    return {"verbs": list(verbs), "restored_after": list(after)}


def test_components_are_restored_after_what_they_are_restored_from(filters: ModuleType) -> None:
    """Those that can be restored; one that is not selected is waited for by nobody."""
    components = {
        "points": component("lost", "restore", after=("log", "absent")),
        "log": component("restore", after=("files",)),
        "files": component("main", after=("disks",)),
        "disks": component("restore"),
    }
    assert filters.restored(components) == ["disks", "log", "points"]
    assert filters.restored({}) == []


def test_the_catalogs_order_of_restoration(filters: ModuleType) -> None:
    components = {name: one.model_dump(mode="json") for name, one in CATALOG.components.items()}
    order = filters.restored(components)
    assert set(order) == {name for name, one in CATALOG.components.items() if "restore" in one.verbs}
    for name in order:
        before = [other for other in CATALOG.components[name].restored_after if other in order]
        assert all(order.index(other) < order.index(name) for other in before)
    assert order.index("kafka") < order.index("influxdb")


@pytest.mark.parametrize("name", CATALOG.components)
def test_verbs_come_in_pairs(name: str) -> None:
    """What is provided can be withdrawn, what can be lost can be restored; who has kinds provides them."""
    verbs, kinds = set(CATALOG.components[name].verbs), CATALOG.components[name].kinds
    assert "main" in verbs
    assert ("provide" in verbs) == ("withdraw" in verbs) == bool(kinds)
    assert ("lost" in verbs) == ("restore" in verbs)


def test_what_is_lost_is_told_in_the_order_of_restoration(filters: ModuleType) -> None:
    """Out of what ``lost`` set; nothing is not lost."""
    variables = {"_b_lost": "the points of b", "_a_lost": "", "_c_lost": "the topics of c"}
    assert filters.lost(["c", "a", "b", "d"], variables) == {"c": "the topics of c", "b": "the points of b"}


# -- as Ansible reads it -----------------------------------------------------------------------------------------------


def test_a_wrong_file_of_the_catalog_is_the_plugins_error(
    plugin: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sentence of Ansible's, with the file, not a stack."""
    from ansible.errors import AnsibleParserError
    from ansible.inventory.group import Group
    from ansible.parsing.dataloader import DataLoader

    module = plugin("ansible/plugins/vars/berny_catalog.py")

    def broken() -> None:
        raise CatalogError("roles/tool/component.yml: title: Field required")

    monkeypatch.setattr(module, "load_catalog", broken)
    with pytest.raises(AnsibleParserError, match=r"roles/tool/component\.yml: title"):
        module.VarsModule().get_vars(DataLoader(), "inventory", [Group("all")])
    assert module.VarsModule().get_vars(DataLoader(), "inventory", [Group("other")]) == {}
