"""The preflight's logic on readings: what is told of which node, how surely, and what only warns."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berny.catalog import load_catalog, load_pipelines
from berny.lab.plan import read_mapping
from berny.placement import Need, clashes, need, placed, units
from berny.preflight import Clock, Finding, Node, clocks, disks, find, limits, memory, offset, orphans, reach, report

GIB = 1 << 30
NOW = 1_800_000_000.0


@pytest.fixture(scope="module")
def reader(plugin: Callable[[str], ModuleType]) -> ModuleType:
    """What reads a node."""
    return plugin("modules/berny_preflight.py")


@pytest.fixture(scope="module")
def action(plugin: Callable[[str], ModuleType]) -> ModuleType:
    """The controller's part of reading."""
    return plugin("action/berny_preflight.py")


def facts(**changes: Any) -> dict[str, Any]:
    """Return readings of a node that fits, with changes."""
    room = {"device": 1, "total": 100 * GIB, "free": 90 * GIB, "used": True}
    return {
        "id": "debian",
        "version": "12",
        "machine": "x86_64",
        "python": "3.11",
        "root": True,
        "systemd": True,
        "boot": "one",
        "memory": {"total": 16000, "available": 15000, "ours": 500},
        "disks": {"/data/kafka": room, "/opt/berny": room | {"device": 2}},
        "listeners": [],
        "limits": {"nr_open": 1 << 20, "file_max": 1 << 40, "hard": 1 << 20, "may_raise": True},
        "owners": {"kafka": {"units": {"kafka.service": ""}}, "node": {"units": {}}},
        "reach": {},
    } | changes


def node(**changes: Any) -> Node:
    """Return a node with Kafka on it that fits, with changes of its facts."""
    wanted = Need(memory=4000, jobs=1000, disks={"/data/kafka": 50}, ports={9092: "kafka"})
    groups = {"kafka": "kafka", "spark-worker": "spark_worker", "berny-idfm-producer": "namenode"}
    return Node(
        need=wanted, placed={"kafka"}, groups=groups, nofile=65536, facts=facts(**changes), clock=(0, 0.01, 0.02)
    )


def told(*nodes: Node, **words: Any) -> list[str]:
    """Return what is found about nodes named a, b, …."""
    return [str(finding) for finding in find(dict(zip("abcd", nodes, strict=False)), **words)]


def test_nodes_that_fit_are_told_nothing() -> None:
    """No finding, not even a lesser one."""
    assert told(node(), node(boot="two")) == []


def test_everything_is_told_at_once_over_all_nodes() -> None:
    """Inventory, a node that can't be looked at, and each node's own, one line per problem."""
    dead = Node(need=Need(0, 0, {}, {}), placed=set(), groups={}, nofile=1, failure="Connection refused")
    wrong = node(id="ubuntu", version="24.04", root=False)
    found = told(wrong, dead, inventory=["no node runs kafka: put one in", "worker_2: has no address; set it"])
    assert found == [
        "inventory: no node runs kafka: put one in",
        "worker_2: has no address; set it",
        "a: its system is ubuntu, Berny needs debian: install Debian 12 for x86-64",
        "a: its system's version is 24.04, Berny needs 12: install Debian 12 for x86-64",
        "a: its user does not become root: let it use sudo, and set ansible_become: true",
        "b: can't be looked at: Connection refused",
    ]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"machine": "aarch64"}, "its processor is aarch64"),
        ({"python": "3.9"}, "its Python is 3.9, Berny needs 3.11"),
        ({"id": ""}, "its system is unknown"),
        ({"systemd": False}, "its first process is not systemd"),
    ],
)
def test_system(change: dict[str, Any], words: str) -> None:
    """Archives are made for one system; the message says which."""
    [finding] = told(node(**change))
    assert finding.startswith("a: ") and words in finding


# -- ports -------------------------------------------------------------------------------------------------------------


def listener(unit: str, port: int = 9092) -> dict[str, Any]:
    """Return who listens on a port."""
    return {"port": port, "pid": 4711, "process": "python3", "unit": unit}


def test_a_port_is_ours_or_told() -> None:
    """Port, service, program and process are named; our own unit is no finding."""
    assert told(node(listeners=[listener("kafka.service")])) == []
    [finding] = told(node(listeners=[listener("")]))
    assert finding.startswith("a: port 9092 of kafka is taken by python3 (process 4711): end that program, or")
    [finding] = told(node(listeners=[listener("taker.service")]))
    assert "taken by python3 (process 4711, taker.service)" in finding
    # Ours, but another's port: a service that was moved, its successor on the same port.
    assert told(node(listeners=[listener("spark-master.service")])) != []
    assert told(node(listeners=[listener("", port=22)])) == []


def test_listeners_are_read_off_the_kernels_tables(reader: ModuleType) -> None:
    """Local address and port in hex, state 0A, the socket's number."""
    table = (
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
        "   0: 0F6FB40A:2384 00000000:0000 0A 00000000:00000000 00:00000000 00000000  6002        0 123456 1\n"
        "   1: 0F6FB40A:2384 0A6FB40A:8D62 01 00000000:00000000 00:00000000 00000000  6002        0 123457 1\n"
        "   2: 00000000000000000000000000000000:1F90 00000000:0000 0A 0:0 00:0 0  6004 0 99 1\n"
    )
    assert reader.listening(table) == {9092: {"123456"}, 8080: {"99"}}


@pytest.mark.parametrize(
    ("group", "unit"),
    [
        ("0::/system.slice/kafka.service\n", "kafka.service"),
        ("12:pids:/x\n1:name=systemd:/berny-lab-master/system.slice/kafka.service\n0::/\n", "kafka.service"),
        ("0::/system.slice/system-berny.slice/berny-idfm-producer.service/sub\n", "berny-idfm-producer.service"),
        ("0::/user.slice/session-1.scope\n", ""),
    ],
)
def test_units_are_read_off_control_groups(reader: ModuleType, group: str, unit: str) -> None:
    """Either version of control groups, a lab's machine or a virtual one."""
    assert reader.unit_of(group) == unit


def test_a_real_listener_is_found(reader: ModuleType) -> None:
    """This process, by port and number."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port = server.getsockname()[1]
        [found] = reader.listeners([port])
    assert (found["port"], found["pid"]) == (port, os.getpid())
    assert reader.listeners([port]) == []


# -- memory, disks, limits ---------------------------------------------------------------------------------------------


def test_memory_against_the_budget() -> None:
    """Less than needed stops; what other programs take only warns, and names no one."""
    [short] = memory({"a": node(memory={"total": 4000, "available": 3900, "ours": 0})})
    assert short.fatal and "4000 MiB of memory, what is put there needs 4512" in str(short)
    [offered] = memory({"a": node(memory={"total": 5000, "available": 4900, "ours": 0})})
    assert not offered.fatal and "needs 4512 and offers 1000 to applications" in str(offered)
    [taken] = memory({"a": node(memory={"total": 16000, "available": 3000, "ours": 1000})})
    assert not taken.fatal and "leave 4000 MiB" in str(taken)
    assert memory({"a": node(memory={"total": 16000, "available": 1000, "ours": 4000})}) == []


def test_machines_with_one_kernel_share_its_memory() -> None:
    """A lab's machines each see the whole box: needs add up, and what is ours as well; virtual machines have their own."""
    seen = {"total": 8000, "available": 8000, "ours": 0}
    [lab] = memory({"a": node(memory=seen), "b": node(memory=seen)})
    assert str(lab).startswith("a (with b: one kernel): 8000 MiB of memory, what is put there needs 8512")
    assert [finding.fatal for finding in memory({"a": node(memory=seen), "b": node(memory=seen, boot="two")})] == []
    seen = {"total": 11000, "available": 3000, "ours": 3000}
    assert memory({"a": node(memory=seen), "b": node(memory=seen)}) == []


def room(total: float, free: float, used: bool, device: int = 1) -> dict[str, Any]:
    """Return readings of a file system, sizes in GiB."""
    return {"device": device, "total": int(total * GIB), "free": int(free * GIB), "used": used}


@pytest.mark.parametrize(
    ("total", "free", "used", "words"),
    [
        (49, 48, False, ""),  # a file system on a disk of 50 GiB
        (40, 39, False, "39.0 GiB of room, the catalog says 50"),
        (60, 20, False, "20.0 GiB of room"),  # others have what is missing
        (60, 20, True, ""),  # we do
        (60, 1, True, "1024 MiB are left"),
    ],
)
def test_disks_against_the_catalog(total: float, free: float, used: bool, words: str) -> None:
    """Too small or nearly full warns: neither is made worse by a converge, and a full disk's repair may be one."""
    there = node(disks={"/data/kafka": room(total, free, used), "/opt/berny": room(9, 9, True, 2)})
    found = disks("a", there)
    assert all(not finding.fatal for finding in found)
    assert [str(finding) for finding in found] == [] if not words else words in str(found[0])


def test_directories_of_one_file_system_share_its_room() -> None:
    """Without data disks everything is on the root's."""
    there = node(disks={path: room(120, 110, False) for path in ("/data/kafka", "/data/hdfs-datanode", "/opt/berny")})
    there.need.disks["/data/hdfs-datanode"] = 100
    [finding] = disks("a", there)
    assert "/data/hdfs-datanode, /data/kafka: 110.0 GiB of room, the catalog says 150" in str(finding)


def test_archives_need_room_the_first_time() -> None:
    """Unpacking fails half way otherwise; where they are, the next version replaces the last."""
    [finding] = disks("a", node(disks=facts()["disks"] | {"/opt/berny": room(10, 1, False, 2)}))
    assert finding.fatal and "/opt: 1.0 GiB are free" in str(finding)
    assert disks("a", node(disks=facts()["disks"] | {"/opt/berny": room(10, 1, True, 2)})) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"nr_open": 1024}, "fs.nr_open is 1024, units want 65536"),
        ({"hard": 4096, "may_raise": False}, "systemd may open 4096 files"),
        ({"hard": 4096, "may_raise": True}, ""),
        ({"hard": 20000, "may_raise": False}, ""),
        ({"file_max": 60000}, "fs.file-max is 60000"),
    ],
)
def test_open_files(change: dict[str, Any], words: str) -> None:
    """What systemd may give: it raises its own limit where it may."""
    found = [str(finding) for finding in limits("a", node(limits=facts()["limits"] | change))]
    assert found == [] if not words else words in found[0]


# -- clocks ------------------------------------------------------------------------------------------------------------


def clock(ahead: float, took: float = 0.02, at: float = 0.5) -> Clock:
    """Return a reading of a clock that is ``ahead``; ``at`` is when in the round trip it was read."""
    return (NOW, NOW + took * at + ahead, NOW + took)


@given(st.floats(-1e6, 1e6), st.floats(0, 30), st.floats(0, 1))
def test_the_truth_is_within_the_doubt(ahead: float, took: float, at: float) -> None:
    """However long the round trip and wherever in it the clock was read."""
    found, doubt = offset(clock(ahead, took, at))
    assert abs(found - ahead) <= doubt + 1e-5


@pytest.mark.parametrize(
    ("ahead", "fatal"),
    [(0.0, None), (0.9, None), (-0.9, None), (1.5, False), (-4.9, False), (5.5, True), (-3600, True)],
)
def test_a_clock_that_differs(ahead: float, fatal: bool | None) -> None:
    """From 1 s it is told, from 5 s it stops; the others say that it is not the controller's."""
    found = clocks({"a": clock(0), "b": clock(ahead), "c": clock(0)})
    assert [finding.fatal for finding in found] == ([] if fatal is None else [fatal])
    for finding in found:
        assert finding.host == "b" and f"{abs(ahead):.1f} s {'ahead of' if ahead > 0 else 'behind'}" in finding.text


def test_a_slow_round_trip_is_no_skew() -> None:
    """Only what is certain counts: 3 s ahead within a round trip of 6 s may be nothing."""
    assert clocks({"a": clock(0, took=6, at=1.0), "b": clock(0, took=6, at=0.0)}) == []
    [finding] = clocks({"a": clock(9, took=6), "b": clock(0)})
    assert finding.fatal


def test_the_controllers_clock_may_be_the_wrong_one() -> None:
    """Most nodes agree with each other: a converge goes on, and a node that differs from them is still told."""
    [finding] = clocks({name: clock(60) for name in "abcd"})
    assert (finding.host, finding.fatal) == ("controller", False)
    assert "60.0 s behind most nodes'" in finding.text
    own, other = clocks({"a": clock(60), "b": clock(60), "c": clock(60), "d": clock(0)})
    assert own.host == "controller"
    assert (other.host, other.fatal) == ("d", True) and "60.0 s behind most nodes'" in other.text


def test_two_nodes_that_differ_are_both_held_against_the_controller() -> None:
    """Nobody is most."""
    assert {finding.host for finding in clocks({"a": clock(60), "b": clock(-60)})} == {"a", "b"}
    assert clocks({}) == []


# -- reachability ------------------------------------------------------------------------------------------------------


def test_pairs_that_do_not_reach_each_other() -> None:
    """One message per pair, and which way."""
    why = "192.0.2.2 port 22: timed out"
    [both] = reach({"a": {"b": why, "c": ""}, "b": {"a": why, "c": ""}, "c": {"a": "", "b": ""}})
    assert str(both).startswith(f"a: and b do not reach each other: {why}; open the way in")
    [one] = reach({"a": {"b": why}, "b": {"a": ""}})
    assert str(one).startswith(f"a: does not reach b (which reaches a): {why}")


def test_a_dead_node_is_told_once() -> None:
    """The controller does not reach it either: nobody else has to say so."""
    dead = Node(need=Need(0, 0, {}, {}), placed=set(), groups={}, nofile=1, failure="timed out")
    assert told(node(reach={"b": "timed out"}), dead) == ["b: can't be looked at: timed out"]


def test_who_refuses_was_reached(reader: ModuleType) -> None:
    """An answer of any kind; where SSH is kept to operators, a port of a service answers."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port = server.getsockname()[1]
        assert reader.answers("127.0.0.1", port, 1) == ""
    assert reader.answers("127.0.0.1", port, 1) == ""
    # A queue that is full lets nobody in: no answer of any kind, as from a node behind a firewall.
    with closing(socket.create_server(("127.0.0.1", 0), backlog=0)) as server, closing(socket.socket()) as waiting:
        waiting.connect(server.getsockname())
        port = server.getsockname()[1]
        assert reader.answers("127.0.0.1", port, 0.2) == f"127.0.0.1 port {port}: timed out"


def test_where_nodes_find_each_others_ssh(action: ModuleType) -> None:
    """A port before another address belongs to whatever stands there."""
    public = {"ansible_host": "198.51.100.1", "ansible_port": 2222}
    assert action.ssh_endpoint(public | {"node_address": "198.51.100.1"}) == ("198.51.100.1", 2222)
    assert action.ssh_endpoint(public | {"node_address": "10.0.0.4"}) == ("10.0.0.4", 22)
    assert action.ssh_endpoint(public) == ("198.51.100.1", 2222)
    assert action.ssh_endpoint({}) is None


# -- orphans -----------------------------------------------------------------------------------------------------------


def owners(**units: dict[str, str]) -> dict[str, Any]:
    """Return what is installed."""
    return {name.replace("_", "-"): {"units": states} for name, states in units.items()}


def test_an_orphan_is_named_with_the_command_that_removes_it() -> None:
    """Component, node, both ways out; what runs stops a converge, what only lies there does not."""
    running = node(owners=owners(spark_worker={"spark-worker.service": "active"}))
    [finding] = orphans("worker_1", running, set())
    assert finding.fatal
    assert str(finding) == (
        "worker_1: runs spark-worker, which the inventory does not put there; remove it: ansible-playbook "
        "playbooks/reset.yml -e component=spark-worker --limit worker_1 (data stays), or put worker_1 into the group "
        "spark_worker"
    )
    lying = node(owners=owners(spark_worker={"spark-worker.service": "off"}))
    [finding] = orphans("worker_1", lying, set())
    assert not finding.fatal and "has spark-worker" in str(finding)


def test_what_is_no_orphan() -> None:
    """What belongs there, roles outside the catalog, what a component's clients need, what left only data."""
    some = owners(kafka={"kafka.service": ""}, firewall={"berny-firewall.service": "active"}, hdfs={}, zookeeper={})
    assert orphans("a", node(owners=some), {"firewall", "node"}) == []


def test_a_stage_of_a_manifest_that_is_gone_is_an_orphan() -> None:
    """There is no group to put the node into."""
    gone = node(owners=owners(berny_old_stage={"berny-old-stage.service": "active"}))
    [finding] = orphans("a", gone, {"node"})
    assert "-e component=berny-old-stage --limit a" in str(finding) and "group" not in str(finding)


# -- what stops and what is told ---------------------------------------------------------------------------------------


def test_kinds_can_be_allowed() -> None:
    """A person who knows better says so by kind; the finding is still told."""
    orphan, full = Finding("orphan", "a", "runs kafka"), Finding("disk", "a", "is full", fatal=False)
    assert report([orphan, full], []) == (["a: runs kafka"], ["a: is full"])
    assert report([orphan, full], ["orphan"]) == ([], ["a: runs kafka", "a: is full"])


# -- what a node needs -------------------------------------------------------------------------------------------------


def test_needs_of_the_labs_nodes() -> None:
    """Heaps with what comes on top, what is handed out to applications, stages; the inventory's own heaps count."""
    catalog, pipelines, groups = load_catalog(), load_pipelines(), read_mapping()
    found = need(catalog, pipelines, groups, "worker_1", "small", {})
    services = [s for s in catalog.services.values() if "worker_1" in groups[s.group]]
    expected = sum(s.heap.small + s.overhead for s in services)
    assert (found.memory, found.jobs) == (expected, sum(s.jobs.small for s in services if s.jobs))
    assert found.disks["/data/spark-worker"] == 2 and found.ports[7078] == "spark-worker"
    assert need(catalog, pipelines, groups, "worker_1", "small", {"spark-worker": 1192}).memory == expected + 1000
    master = need(catalog, pipelines, groups, "master", "large", {})
    assert master.disks["/data/berny-idfm"] == 16 and master.ports[9303] == "berny-idfm-producer"


def test_everything_is_placed_where_the_mapping_says() -> None:
    """Services, the components they are of, stages."""
    catalog, pipelines, groups = load_catalog(), load_pipelines(), read_mapping()
    assert {"kafka", "hdfs-namenode", "hdfs", "berny-idfm-producer"} <= placed(catalog, pipelines, groups, "master")
    assert "kafka" not in placed(catalog, pipelines, groups, "worker_1")
    assert units(catalog, pipelines)["berny-idfm-producer"] == "namenode"


def test_two_services_of_a_node_do_not_want_one_port() -> None:
    """The mapping that is shipped has none; one that puts two pages of 8080 together is told."""
    catalog, pipelines, groups = load_catalog(), load_pipelines(), read_mapping()
    assert clashes(catalog, pipelines, groups) == []
    service = catalog.services["influxdb"].model_copy(update={"ports": {"http": 8080}})
    component = catalog.components["influxdb"].model_copy(update={"services": {"influxdb": service}})
    changed = catalog.model_copy(update={"components": {**catalog.components, "influxdb": component}})
    [problem] = clashes(changed, pipelines, {**groups, "influxdb": ["master"]})
    assert problem.startswith("master: ") and "would both listen on port 8080" in problem


def test_reading_this_machine(reader: ModuleType, tmp_path: Path) -> None:
    """The readings that need no root, on whatever runs the tests."""
    seen = reader.memory()
    assert 0 < seen["available"] <= seen["total"]
    assert reader.disk(tmp_path / "not" / "there", {})["used"] is False
    (tmp_path / "lost+found").mkdir()
    assert reader.disk(tmp_path, {})["used"] is False
    (tmp_path / "file").touch()
    assert reader.disk(tmp_path, {})["used"] is True
    assert reader.limits()["nr_open"] > 0
