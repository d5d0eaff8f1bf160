"""The inventory against the catalog: every mistake is told at once, with its remedy, before a node is touched."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from berny.controller.settings import load_settings
from berny.model.catalog import load_catalog
from berny.model.manifest import load_pipelines
from berny.model.topology import read_mapping, selection_problems

CATALOG, PIPELINES = load_catalog(), list(load_pipelines())
SERVICES = {name: service.model_dump() for name, service in CATALOG.services.items()}


@pytest.fixture(scope="module")
def preflight(plugin: Callable[[str], ModuleType]) -> ModuleType:
    """The action plugin that checks inventories."""
    return plugin("ansible/plugins/action/berny_inventory.py")


@pytest.fixture(scope="module")
def filters(plugin: Callable[[str], ModuleType]) -> ModuleType:
    """The filters that turn catalog and inventory into what a node is told."""
    return plugin("ansible/plugins/filter/berny.py")


@pytest.fixture(scope="module")
def hdfs(plugin: Callable[[str], ModuleType]) -> ModuleType:
    """The filters of the role ``hdfs``."""
    return plugin("roles/hdfs/filter_plugins/hdfs_wanted.py")


@pytest.fixture(scope="module")
def known(preflight: ModuleType, checkout: Path) -> dict[str, set[str]]:
    """The variables that each role knows."""
    everybodys = {*yaml.safe_load((checkout / "ansible" / "cluster.yml").read_text())}
    everybodys |= {name.lower() for component in CATALOG.components.values() for name in component.endpoints}
    settings = load_settings(checkout / "roles", checkout / "ansible" / "settings.yml")
    found: dict[str, set[str]] = preflight.known_variables(settings, SERVICES, everybodys)
    return found


def mapping(**changes: list[str]) -> dict[str, list[str]]:
    """Return the lab's groups with changes."""
    return read_mapping() | {"ungrouped": []} | changes


def problems(preflight: ModuleType, groups: dict[str, list[str]]) -> list[str]:
    """Return what is wrong with an inventory's groups, with all pipelines."""
    return [*selection_problems(CATALOG, groups, PIPELINES), *preflight.check_groups(CATALOG, groups)]


# -- groups ------------------------------------------------------------------------------------------------------------


def test_the_labs_mapping_is_right(preflight: ModuleType) -> None:
    """What the checkout ships passes its own check."""
    assert problems(preflight, mapping()) == []


def test_two_namenodes_are_one_too_many(preflight: ModuleType) -> None:
    """Both nodes are named, and what to do."""
    [problem] = problems(preflight, mapping(namenode=["worker_0", "master"]))
    assert "2 nodes are to run hdfs-namenode (master, worker_0)" in problem
    assert "keep one in the group namenode" in problem


@pytest.mark.parametrize("change", [{"kafka": []}, {}])
def test_no_broker_is_one_too_few(preflight: ModuleType, change: dict[str, list[str]]) -> None:
    """An empty group and a missing one are the same mistake."""
    groups = {name: nodes for name, nodes in mapping().items() if name != "kafka"} | change
    needing = [name for name, pipeline in load_pipelines().items() if "kafka" in pipeline.requires]
    assert "idfm" in needing and problems(preflight, groups) == [
        f"the pipeline {name} requires kafka, which no node runs: put nodes into its groups (kafka)" for name in needing
    ]


def test_unknown_group_names_the_nearest(preflight: ModuleType) -> None:
    """A misspelt group would be a service that silently is nowhere."""
    groups = {name: nodes for name, nodes in mapping(datanodes=["worker_0"]).items() if name != "datanode"}
    found = problems(preflight, groups)
    assert "no node runs hdfs-datanode: put one into the group datanode" in found
    assert "group datanodes is no service of the catalog; did you mean datanode?" in found
    assert len(found) == 2


def test_group_like_nothing_has_no_nearest(preflight: ModuleType) -> None:
    """A guess that is none would mislead."""
    [problem] = problems(preflight, mapping(xyz=["master"]))
    assert problem == "group xyz is no service of the catalog"


# -- machines ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["master", "worker-2", "0", "a" * 63, "a-1-b"])
def test_legal_machine_names(preflight: ModuleType, name: str) -> None:
    """As RFC 1123 has them, in lower case."""
    assert preflight.check_machines({"node": name}) == []


@pytest.mark.parametrize("name", ["worker_2", "Worker", "-a", "a-", "", "a" * 64, "a.b", "wörker", "a b", "worker-2\n"])
def test_illegal_machine_names(preflight: ModuleType, name: str) -> None:
    """Node and name are told: Hadoop and Spark only say that a host is missing."""
    [problem] = preflight.check_machines({"worker_0": "worker-0", "worker_2": name})
    assert problem.startswith(f"worker_2: the machine name {name!r} is not legal: use a to z")


# -- variables ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("kafka_log_levle", "kafka_log_level"),
        ("kafka_message_max_byte", "kafka_message_max_bytes"),
        ("hdfs_replicaton", "hdfs_replication"),
        ("spark_worker_core", "spark_worker_cores"),
        ("hdfs_datanode_heep", "hdfs_datanode_heap"),
        ("kafka_heaap", "kafka_heap"),
        ("node_is_a_vm", "node_is_vm"),
        ("pipeline_enviroment", "pipeline_environment"),
    ],
)
def test_misspelt_variable_names_the_nearest(
    preflight: ModuleType, known: dict[str, set[str]], name: str, meant: str
) -> None:
    """A setting that nobody reads is the quietest of mistakes."""
    [problem] = preflight.check_variables([name], known)
    assert problem == f"the role {meant.split('_')[0]} knows no variable {name}; did you mean {meant}?"


def test_right_variables_pass(preflight: ModuleType, known: dict[str, set[str]], checkout: Path) -> None:
    """Options, heaps of services, what all inventories share, and what is no role's."""
    names = {"kafka_log_level", "kafka_broker_id", "kafka_heap", "hdfs_namenode_heap", "spark_master_heap"}
    names |= {"kafka_bootstrap_servers", "node_size", "node_address", "ansible_host", "inventory_hostname", "pipelines"}
    for file in (checkout / "ansible" / "cluster.yml", checkout / "inventory" / "lab" / "group_vars" / "all.yml"):
        names |= set(yaml.safe_load(file.read_text()))
    assert preflight.check_variables(names, known) == []


def test_every_role_with_options_is_known(known: dict[str, set[str]]) -> None:
    """A role that was left out would let every misspelling pass."""
    assert {"node", "pipeline", *load_catalog().components} <= set(known)


# -- what nodes are told -----------------------------------------------------------------------------------------------


def test_cluster_as_probes_read_it(filters: ModuleType) -> None:
    """Services with version, nodes and ports; stages with unit, nodes and port."""
    catalog = {
        "components": {name: c.model_dump(mode="json") for name, c in load_catalog().components.items()},
        "services": SERVICES,
    }
    pipelines = {name: pipeline.model_dump(mode="json") for name, pipeline in load_pipelines().items()}
    groups = mapping()
    machines = {node: node.replace("_", "-") for node in groups["all"]}
    addresses = {node: f"192.0.2.{number}" for number, node in enumerate(groups["all"])}
    told = filters.describe_cluster(catalog, pipelines, groups, machines, addresses, "lab")
    assert told["nodes"]["worker_2"] == {"machine": "worker-2", "address": "192.0.2.3"}
    assert told["services"]["kafka"] == {
        "component": "kafka", "version": "3.9.2", "nodes": ["master", "worker_2"], "ports": {"broker": 9092},
    }  # fmt: skip
    assert set(told["services"]) == set(SERVICES)
    stage = told["pipelines"]["idfm"]["stages"]["influx-consumer"]
    assert stage == {
        "nodes": ["worker_2"], "unit": "berny-idfm-influx-consumer", "metrics_port": 9302, "kind": "stream",
        "needs": ["influxdb", "kafka"], "reads": ["idfm-processed"], "writes": ["idfm_metrics"], "data": "",
        "state": "/var/lib/berny-idfm-influx-consumer",
    }  # fmt: skip
    assert told["pipelines"]["idfm"]["stages"]["producer"]["data"] == "/data/berny-idfm"
    assert told["pipelines"]["idfm"]["user"] == "idfm"
    resources = told["pipelines"]["idfm"]["resources"]
    assert list(resources["hdfs"]) == ["/data/idfm/raw_landing.json"]
    assert list(resources["influxdb"]) == ["idfm_metrics"]
    assert "idfm-processed" in resources["topics"]
    assert told["control"] == {name: order for c in CATALOG.components.values() for name, order in c.control.items()}
    json.dumps(told)


def test_who_logs_in_has_a_home(hdfs: ModuleType) -> None:
    """Whom Ansible logs in as on any node, and whom the setting names; each once, and their own."""
    hosts = {"master": {"ansible_user": "azureuser"}, "worker_0": {"ansible_user": "debian"}, "worker_1": {}}
    assert hdfs.hdfs_homes(hosts, ["alice", "debian"]) == {
        "/user/alice": {"owner": "alice"}, "/user/azureuser": {"owner": "azureuser"}, "/user/debian": {"owner": "debian"},
    }  # fmt: skip
    assert hdfs.hdfs_homes({"master": {}}, []) == {}


def test_stages_keep_the_manifests_order(filters: ModuleType) -> None:
    """Units are deployed and started in this order."""
    pipelines = {name: pipeline.model_dump(mode="json") for name, pipeline in load_pipelines().items()}
    found = filters.stages(pipelines)
    assert [(one["pipeline"], one["name"]) for one in found] == [
        (name, stage) for name, pipeline in load_pipelines().items() for stage in pipeline.stages
    ]


def test_pipelines_own_their_directories(filters: ModuleType, hdfs: ModuleType) -> None:
    """A pipeline writes below its own folders, as its own user; where it lands files is there before the first one."""
    manifest: dict[str, Any] = {"user": {"name": "someone"}, "stages": {"only": {"needs": ["kafka", "hdfs"]}}}
    own = {"owner": "someone", "mode": "755"}
    assert hdfs.hdfs_of_pipelines({"one": manifest}) == {"/data/one": own, "/user/one": own}
    manifest["stages"] = {"only": {"needs": ["kafka"]}}
    assert hdfs.hdfs_of_pipelines({"one": manifest}) == {}
    asked = filters.asked_of(PIPELINES, "hdfs", mapping())
    landing = hdfs.hdfs_wanted(asked)["/data/idfm/raw_landing.json"]
    assert landing == {"owner": "idfm", "mode": "755"}
    order = list(hdfs.outer_first({"/user/one": own, "/data/one/raw": own, "/data/one": own, "/data-one": own}))
    assert order.index("/data/one") < order.index("/data/one/raw") and len(order) == 4


def test_a_pipeline_that_goes_takes_its_directories_along(hdfs: ModuleType) -> None:
    manifest = load_pipelines()["idfm"].model_dump(mode="json")
    assert set(hdfs.hdfs_withdrawn(manifest)) == {"/data/idfm", "/data/idfm/raw_landing.json", "/user/idfm"}
    assert all(set(keys) >= {"owner"} for keys in hdfs.hdfs_withdrawn(manifest).values())


def test_components_own_their_directories(filters: ModuleType, hdfs: ModuleType) -> None:
    """An owner that is given counts, not who asks; a component that is not selected asks for nothing."""
    found = hdfs.hdfs_wanted(filters.asked_of([], "hdfs", mapping()))
    assert found["/app-logs"] == {"owner": "yarn", "mode": "1777"}
    assert found["/mr-history/done"] == {"owner": "yarn", "mode": "750"}
    assert found["/spark"] == {"owner": "spark", "mode": "755"}
    assert found["/hbase"] == {"owner": "hbase", "mode": "751"}
    gone = {service.group for name in ("hbase", "yarn") for service in CATALOG.components[name].services.values()}
    without = {name: nodes for name, nodes in mapping().items() if name not in gone}
    assert set(hdfs.hdfs_wanted(filters.asked_of([], "hdfs", without))) == {"/spark", "/spark/events"}


# -- the whole, as an operator meets it --------------------------------------------------------------------------------


@pytest.fixture
def node() -> Iterator[tuple[int, list[str]]]:
    """A port that a node's SSH would be at, and who knocked there."""
    knocks: list[str] = []
    with closing(socket.create_server(("127.0.0.1", 0))) as listening:

        def answer() -> None:
            with suppress(OSError):
                while True:
                    connection, peer = listening.accept()
                    knocks.append(str(peer))
                    connection.close()

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        yield listening.getsockname()[1], knocks
        listening.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def ansible(checkout: Path, folder: Path, everything: dict[str, Any], *words: str) -> tuple[int, str]:
    """Run a program of Ansible as an operator does; return how it ended and all that it said, on one line."""
    inventory = folder / "inventory"
    (inventory / "group_vars").mkdir(parents=True)
    (inventory / "group_vars" / "all.yml").write_text(yaml.safe_dump(everything.pop("group_vars", {})))
    (inventory / "hosts.yml").write_text(yaml.safe_dump({"all": everything}))
    command = [str(Path(sys.executable).with_name(words[0])), "-i", str(inventory), *words[1:]]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "BERNY_"))}
    environment |= {"ANSIBLE_NOCOLOR": "1", "ANSIBLE_LOCAL_TEMP": str(folder / "tmp")}
    done = subprocess.run(
        command, cwd=checkout, env=environment, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL
    )
    assert not (inventory / "secrets.yml").exists(), "secrets are made for an inventory that is right"
    return done.returncode, " ".join((done.stdout + done.stderr).replace("''", "'").split())


def test_broken_inventory_is_told_at_once_and_touches_nothing(
    checkout: Path, tmp_path: Path, node: tuple[int, list[str]]
) -> None:
    """Seven mistakes, one message, no connection, no secrets made."""
    port, knocks = node
    hosts: dict[str, Any] = {
        name: {"ansible_host": "127.0.0.1", "ansible_port": port}
        for name in ("master", "worker_0", "worker_1", "worker_2")
    }
    hosts["worker_0"]["machine_name_note"] = "no role's business"
    groups = {name: nodes for name, nodes in read_mapping().items() if name not in ("all", "kafka")}
    groups |= {"namenode": ["master", "worker_1"], "datanode": ["worker_0", "worker_3"], "kakfa": ["master"]}
    machines = {"master": "master", "worker_0": "worker_0", "worker_1": "w1", "worker_2": "w2", "worker_3": "w3"}
    everything = {
        "hosts": hosts,
        "children": {name: {"hosts": dict.fromkeys(nodes)} for name, nodes in groups.items()},
        "vars": {"kafka_log_levle": "INFO", "zookeeper_heap": 100},
        "group_vars": {"machine_names": machines, "pipelines": PIPELINES},
    }
    code, said = ansible(checkout, tmp_path, everything, "ansible-playbook", "playbooks/cluster.yml")
    assert code != 0
    for words in (
        "Nothing was touched. Correct the inventory:",
        "2 nodes are to run hdfs-namenode (master, worker_1)",
        "the pipeline idfm requires kafka, which no node runs: put nodes into its groups (kafka)",
        "group kakfa is no service of the catalog; did you mean kafka?",
        "worker_0: the machine name 'worker_0' is not legal",
        "the role kafka knows no variable kafka_log_levle; did you mean kafka_log_level?",
        "worker_3: has no address; set its ansible_host",
    ):
        assert words in said, words
    assert "zookeeper_heap" not in said
    assert "machine_name_note" not in said
    assert knocks == []


def test_brokers_have_numbers_of_their_own(checkout: Path, tmp_path: Path, node: tuple[int, list[str]]) -> None:
    """A broker's number is for life: a missing one and one that is taken are told by the node."""
    port, knocks = node
    hosts = {name: {"ansible_host": "127.0.0.1", "ansible_port": port} for name in read_mapping()["all"]}
    groups: dict[str, Any] = {
        name: {"hosts": dict.fromkeys(nodes)} for name, nodes in read_mapping().items() if name != "all"
    }
    groups["kafka"] = {
        "hosts": {"master": {"kafka_broker_id": 1}, "worker_1": {"kafka_broker_id": 1}, "worker_2": None}
    }
    everything = {"hosts": hosts, "children": groups}
    code, said = ansible(checkout, tmp_path, everything, "ansible-playbook", "playbooks/cluster.yml")
    assert code != 0
    assert "worker_1: needs a kafka_broker_id of its own (found 1, which is that of master)" in said
    assert "worker_2: needs a kafka_broker_id of its own (found None)" in said
    assert "master: needs" not in said
    assert knocks == []


def inventory(**hosts: dict[str, Any]) -> dict[str, Any]:
    """Return the lab's mapping with addresses that nobody has, and changes of single hosts."""
    found: dict[str, Any] = {
        name: {"ansible_host": f"192.0.2.{number}"} | hosts.get(name, {})
        for number, name in enumerate(read_mapping()["all"], 10)
    }
    groups: dict[str, Any] = {
        name: {"hosts": dict.fromkeys(nodes)} for name, nodes in read_mapping().items() if name != "all"
    }
    for number, broker in enumerate(groups["kafka"]["hosts"], 1):
        found[broker] = {"kafka_broker_id": number} | found[broker]
    return {"hosts": found, "children": groups}


def test_values_that_cannot_be_are_told_with_what_is_allowed(checkout: Path, tmp_path: Path) -> None:
    """Those of hosts, of groups and of the command line; templates are told as what they are, all at once."""
    everything = inventory(worker_2={"kafka_broker_id": "1"}, worker_1={"spark_cores_max": 0})
    everything["vars"] = {"network": "203.0.113.7/8"}
    everything["group_vars"] = {
        "firewall_operators": ["{{ network }}"],
        "kafka_heap": -5,
        "hdfs_namenode_heap": "10g",
        "preflight_allow": ["orphn"],
        "cluster_name": "my cluster",
        "kafka_flush_messages": None,
        "pipeline_secrets_given": "a secret",
        # Computed only when the secrets are known, by who uses it.
        "pipeline_environment": "{{ secrets.of_nobody }}",
    }
    words = ("playbooks/cluster.yml", "-e", "hdfs_replication=9")
    code, said = ansible(checkout, tmp_path, everything, "ansible-playbook", *words)
    assert code != 0
    for line in (
        "firewall_operators is ['203.0.113.7/8']: allowed is a list of addresses and networks such as 203.0.113.7",
        "kafka_heap is -5: allowed is an integer from 32 to 1048576",
        "hdfs_namenode_heap is 10g: allowed is an integer from 32",
        "hdfs_replication is 9: allowed is an integer from 1 to 3 (nodes in the group datanode)",
        "worker_1: spark_cores_max is 0: allowed is an integer, at least 1",
        "preflight_allow is ['orphn']: allowed is a list of any of clock, disk,",
        "cluster_name is my cluster: allowed is up to 40 letters",
        "kafka_flush_messages is empty: allowed is an integer, at least 1",
        "pipeline_secrets_given is no mapping: allowed is a mapping",
        "worker_2: needs a kafka_broker_id of its own (found 1, which is that of master)",
    ):
        assert line in said, line
    told = said[said.index("Nothing was touched") :].partition("PLAY RECAP")[0]
    assert "{{" not in told and "a secret" not in said


def test_one_machine_under_two_names_is_refused_however_it_is_spelt(checkout: Path, tmp_path: Path) -> None:
    everything = inventory(
        worker_0={"ansible_host": "::ffff:192.0.2.10"},
        worker_1={"private_address": "10.0.0.1"},
        worker_2={"private_address": "10.0.0.1"},
    )
    code, said = ansible(checkout, tmp_path, everything, "ansible-playbook", "playbooks/cluster.yml")
    assert code != 0
    assert "worker_0: has the address of master (::ffff:192.0.2.10), so it is that machine" in said
    assert "worker_2: others reach it by 10.0.0.1, which is the address of worker_1" in said


def test_a_checkout_that_everybody_may_write_to_is_told_before_ansible_ignores_it(
    checkout: Path, tmp_path: Path
) -> None:
    """By the first command of both ways; where only the owner may, nothing is said."""
    shutil.copy(checkout / "Makefile", tmp_path)
    said = {}
    for mode in (0o755, 0o777):
        tmp_path.chmod(mode)
        done = subprocess.run(["make", "help"], cwd=tmp_path, capture_output=True, text=True)
        said[mode] = done.returncode, done.stderr
    tmp_path.chmod(0o755)
    assert said[0o755] == (0, "")
    assert said[0o777][0] != 0 and f"would ignore its ansible.cfg: chmod o-w {tmp_path}" in said[0o777][1]


def test_inventories_override_what_they_share(checkout: Path, tmp_path: Path) -> None:
    """``ansible/cluster.yml`` holds defaults: an inventory's own words count, wherever Ansible lets one write them."""
    everything = {
        "hosts": {"master": {"ansible_host": "192.0.2.1", "java_home": "of the host"}},
        "vars": {"node_size": "of hosts.yml"},
        "group_vars": {"cluster_name": "of group_vars"},
    }
    code, said = ansible(checkout, tmp_path, everything, "ansible-inventory", "--host", "master")
    assert code == 0, said
    assert '"java_home": "of the host"' in said
    assert '"cluster_name": "of group_vars"' in said
    assert '"node_size": "of hosts.yml"' in said
