"""The preflight's logic on readings: what is told of which node, how surely, and what only warns."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from berny.controller.placement import Need, clashes, need, placed, units
from berny.controller.preflight import Finding, Node, find, report
from berny.controller.preflight.cluster import clocks, memory, offset
from berny.controller.preflight.node import Clock, disks, limits, orphans
from berny.model.catalog import load_catalog
from berny.model.manifest import load_pipelines
from berny.model.topology import read_mapping

GIB = 1 << 30
NOW = 1_800_000_000.0


@pytest.fixture(scope="module")
def reader(plugin: Callable[[str], ModuleType]) -> ModuleType:
    """What reads a node."""
    return plugin("ansible/plugins/modules/berny_preflight.py")


@pytest.fixture(scope="module")
def action(plugin: Callable[[str], ModuleType]) -> ModuleType:
    """The controller's part of reading."""
    return plugin("ansible/plugins/action/berny_preflight.py")


def account(name: str, number: int, **changes: Any) -> dict[str, Any]:
    """Return what a node says of a user of the catalog that is there as it should be, with changes."""
    there = {"number": number, "name": name}
    return {"name": name, "wanted": number, "user": there, "group": there, "primary": number} | changes


def login(**rules: list[str]) -> dict[str, Any]:
    """Return what a node's sshd says of the scripts' user."""
    address = {"machine": "master", "address": "10.0.0.4"}
    return {"user": "berny-control", **address, "rules": {"pubkeyauthentication": ["yes"]} | rules}


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
        "processes": "pid:[1]",
        "memory": {"total": 16000, "available": 15000, "ours": 500},
        "disks": {"/data/kafka": room, "/opt/berny": room | {"device": 2}},
        "scratch": room | {"path": "/home/me/.ansible/tmp"},
        "listeners": [],
        "limits": {"nr_open": 1 << 20, "file_max": 1 << 40, "hard": 1 << 20, "may_raise": True},
        "owners": {"kafka": {"units": {"kafka.service": ""}}, "node": {"units": {}}},
        "unrecorded": [],
        "foreign": [],
        "accounts": [account("kafka", 6002)],
        "kept": {},
        "logins": [login()],
        "reach": {},
        "admitted": None,
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
        "b: can't be read: Connection refused",
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
    assert short.fatal and "4000 MiB of memory, the services placed there need 4512" in str(short)
    [offered] = memory({"a": node(memory={"total": 5000, "available": 4900, "ours": 0})})
    assert not offered.fatal and "need 4512, and 1000 more for applications" in str(offered)
    [taken] = memory({"a": node(memory={"total": 16000, "available": 3000, "ours": 1000})})
    assert not taken.fatal and "leave 4000 MiB" in str(taken)
    assert memory({"a": node(memory={"total": 16000, "available": 1000, "ours": 4000})}) == []


def test_machines_with_one_kernel_share_its_memory() -> None:
    """A lab's machines each see the whole box: needs add up, and what is ours as well; virtual machines have their own."""
    seen = {"total": 8000, "available": 8000, "ours": 0}
    [lab] = memory({"a": node(memory=seen), "b": node(memory=seen)})
    assert str(lab).startswith("a (with b: one kernel): 8000 MiB of memory, the services placed there need 8512")
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
        (40, 39, False, "39.0 GiB of space, the catalog requires 50"),
        (60, 20, False, "20.0 GiB of space"),  # others have what is missing
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
    assert "/data/hdfs-datanode, /data/kafka: 110.0 GiB of space, the catalog requires 150" in str(finding)


def test_archives_need_room_the_first_time() -> None:
    """Unpacking fails half way otherwise; where they are, the next version replaces the last."""
    [finding] = disks("a", node(disks=facts()["disks"] | {"/opt/berny": room(10, 1, False, 2)}))
    assert finding.fatal and "/opt: 1.0 GiB are free" in str(finding)
    assert disks("a", node(disks=facts()["disks"] | {"/opt/berny": room(10, 1, True, 2)})) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"nr_open": 1024}, "fs.nr_open is 1024, units need 65536"),
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

    def reach(said: dict[str, dict[str, str]]) -> list[str]:
        return told(*(node(boot=name, reach=said[name]) for name in sorted(said)))

    [both] = reach({"a": {"b": why, "c": ""}, "b": {"a": why, "c": ""}, "c": {"a": "", "b": ""}})
    assert both.startswith(f"a: and b do not reach each other: {why}; allow it in")
    [one] = reach({"a": {"b": why}, "b": {"a": ""}})
    assert one.startswith(f"a: does not reach b (which reaches a): {why}")


def test_a_node_that_firewalls_do_not_have_yet_is_let_in_by_the_play() -> None:
    """Else no cluster with a firewall grows. What keeps those out that they do have is something else."""
    known, new = "192.0.2.1", "192.0.2.9"

    def pair(admitted: list[str] | None, back: str = "") -> list[str]:
        there = node(boot="a", reach={"b": back}, admitted=admitted)
        return told(replace(there, address=known), replace(node(boot="b", reach={"a": "timed out"}), address=new))

    assert pair([known]) == []
    for admitted in ([known, new], None):
        [finding] = pair(admitted)
        assert finding.startswith("b: does not reach a (which reaches b): timed out")
    [finding] = pair([known], back="no route to host")
    assert finding.startswith("a: does not reach b: no route to host; allow it in")


def test_a_new_node_alone_is_told_what_it_needs() -> None:
    """With --limit nobody lets it in. A node that is down meanwhile is not to stop the play."""
    found = find({"b": node(reach={"a": "timed out", "c": ""})})
    assert report(found, ()) == (
        [],
        [
            "b: does not reach a, which this play leaves out: if that is because their firewalls do not have b yet, run "
            "site.yml without --limit"
        ],
    )


def test_a_dead_node_is_told_once() -> None:
    """The controller does not reach it either: nobody else has to say so."""
    dead = Node(need=Need(0, 0, {}, {}), placed=set(), groups={}, nofile=1, failure="timed out")
    assert told(node(reach={"b": "timed out"}), dead) == ["b: can't be read: timed out"]


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


def test_units_without_a_record_are_told() -> None:
    """What is placed here is recorded again by the play; what is not can be removed only after that."""
    [here] = orphans("a", node(unrecorded=["kafka"]), set())
    assert not here.fatal and "has kafka, for which there is no record (/var/lib/berny)" in str(here)
    [orphan] = orphans("a", node(unrecorded=["spark-worker"]), set())
    assert orphan.fatal and "put a into the group spark_worker" in str(orphan)


# -- one machine under two names ---------------------------------------------------------------------------------------


def test_one_machine_under_two_names_is_told_and_its_services_are_no_orphans() -> None:
    """The advice to remove them would take what the other name has running."""
    both = owners(spark_worker={"spark-worker.service": "active"})
    found = find({"a": node(owners=both), "b": node(owners=both), "c": node(processes="pid:[2]")})
    assert [str(finding) for finding in found if finding.kind != "memory"] == [
        "b: is the same machine as a: give each its own ansible_host, or remove one of the two from hosts.yml"
    ]
    assert all(finding.fatal for finding in found if finding.kind == "inventory")


# -- what is somebody else's -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("there", "words"),
    [
        (
            account("yarn", 6006, user={"number": None, "name": "alice"}, group={"number": None, "name": "alice"}),
            [
                "the uid 6006 of Berny's user yarn is that of the user alice",
                "the gid 6006 of Berny's group yarn is that of",
            ],
        ),
        (
            account("yarn", 6006, user={"number": 1001, "name": ""}, group={"number": 1001, "name": ""}, primary=1001),
            ["there is a user yarn with the uid 1001, Berny's has 6006", "there is a group yarn with the gid 1001"],
        ),
        (
            account("yarn", 6006, primary=100),
            ["the user yarn has the group 100, Berny's has 6006: usermod -g 6006 yarn"],
        ),
        (account("yarn", 6006, user={"number": None, "name": ""}, group={"number": None, "name": ""}), []),
        (account("yarn", 6006), []),
    ],
)
def test_users_of_others(there: dict[str, Any], words: list[str]) -> None:
    """Name or number taken: the service would get another number, and somebody else its data."""
    found = find({"a": node(accounts=[there])})
    assert all(finding.fatal and finding.kind == "user" for finding in found)
    assert len(found) == len(words) and all(text in str(one) for one, text in zip(found, words, strict=True))


def test_users_are_read_off_the_machine(reader: ModuleType) -> None:
    """root has both numbers 0; a name that is nobody's and a number that is root's are told apart."""
    [root, other] = reader.accounts({"root": 0, "berny-nobody-at-all": 0})
    assert root == account("root", 0)
    assert other["user"] == other["group"] == {"number": None, "name": "root"} and "primary" not in other


def test_a_unit_of_our_name_that_is_not_ours(
    reader: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On record, or with what records a start, it is ours; also one that a package brought is somebody else's."""
    etc, packages, records = tmp_path / "etc", tmp_path / "usr", tmp_path / "records"
    for folder in (etc, packages, records):
        folder.mkdir()
    for name, value in (("UNITS", etc), ("UNIT_FOLDERS", (etc, packages)), ("RECORDS", records)):
        monkeypatch.setattr(reader, name, value)
    (etc / "kafka.service").write_text("[Service]\nExecStart=python3 -m http.server 9092\n")
    (packages / "zookeeper.service").write_text("[Service]\nType=forking\n")
    for folder in (etc, packages):
        (folder / "influxdb.service").write_text("[Service]\nExecStart=influxd\n")
    (records / "influxdb.json").write_text(json.dumps({"files": [str(etc / "influxdb.service")]}))
    ours = "[Service]\nExecStartPre=+/usr/local/lib/berny/record-start spark-master 1\nExecStart=java\n"
    (etc / "spark-master.service").write_text(ours)
    found = reader.foreign(["kafka", "zookeeper", "influxdb", "spark-master", "yarn-nodemanager"])
    assert [(one["unit"], one["runs"]) for one in found] == [
        ("kafka", "python3 -m http.server 9092"),
        ("zookeeper", ""),
    ]
    assert reader.unrecorded() == ["spark-master"]
    told_of, other = find({"a": node(foreign=found)})
    assert told_of.fatal and told_of.kind == other.kind == "unit"
    assert str(told_of) == (
        f"a: there is a kafka.service that is not Berny's ({etc}/kafka.service, runs python3 -m http.server 9092): "
        "remove it, or give it another name"
    )


def test_what_records_a_start_is_what_units_have(reader: ModuleType, checkout: Path) -> None:
    """The template and what looks for it."""
    template = (checkout / "roles" / "service" / "templates" / "unit.service.j2").read_text()
    assert reader.RECORD_START.search(template)


def test_a_number_that_the_disk_knows_better(reader: ModuleType, tmp_path: Path) -> None:
    """A broker's number is for life, whatever the inventory says."""
    file = tmp_path / "meta.properties"
    file.write_text("#\nversion=0\nbroker.id=2\n")
    wanted = {"kafka_broker_id": {"key": "broker.id", "files": [str(file), str(tmp_path / "none")]}}
    held = reader.kept(wanted)
    assert held == {"kafka_broker_id": {str(file): "2"}}
    there = node(kept=held)
    there.settings = {"kafka_broker_id": "3"}
    [finding] = find({"a": there})
    assert finding.fatal
    assert (
        str(finding)
        == f"a: kafka_broker_id is 3, but the data here was created with 2 ({file}), which can't change: set it to 2"
    )
    there.settings = {"kafka_broker_id": "2"}
    assert find({"a": there}) == []


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ({"allowusers": ["azureuser"]}, "AllowUsers is azureuser"),
        ({"allowusers": ["azureuser", "berny-*"]}, ""),
        ({"allowusers": ["berny-control@10.0.0.0/24"]}, ""),
        ({"allowusers": ["berny-control@10.0.1.*"]}, "AllowUsers is berny-control@10.0.1.*"),
        ({"denyusers": ["berny-control"]}, "DenyUsers is berny-control"),
        ({"allowgroups": ["ssh-users"]}, "AllowGroups is ssh-users"),
        ({"denygroups": ["berny*"]}, "DenyGroups is berny*"),
        ({"pubkeyauthentication": ["no"]}, "PubkeyAuthentication is no"),
        ({}, ""),
    ],
)
def test_who_is_let_in_by_sshd(rules: dict[str, list[str]], words: str) -> None:
    """Start and stop scripts log in; nothing else would be harmed, so it warns."""
    found = find({"a": node(logins=[login(**rules)])})
    assert [finding.fatal for finding in found] == ([False] if words else [])
    assert not words or f"does not let berny-control in from master ({words})" in str(found[0])


def test_rules_are_read_off_sshds_words(reader: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As ``sshd -T`` writes them: a line for each pattern, keys in lower case. One that says nothing judges nobody."""
    monkeypatch.setattr(reader, "SSHD", tmp_path)
    one = {"user": "berny-control", "machine": "master", "address": "10.0.0.4"}
    said = "port 22\npubkeyauthentication yes\nallowusers root\nallowusers azureuser\n"
    asked: list[list[str]] = []
    module = SimpleNamespace(params={"logins": [one]}, run_command=lambda words: asked.append(words) or (0, said, ""))
    assert reader.logins(module) == [
        one | {"rules": {"pubkeyauthentication": ["yes"], "allowusers": ["root", "azureuser"]}}
    ]
    assert asked == [[str(tmp_path), "-T", "-C", "user=berny-control,host=master,addr=10.0.0.4"]]
    module.run_command = lambda words: (255, "", "no host keys")
    assert reader.logins(module) == [one | {"rules": {}}]


def test_a_small_home_is_told_before_an_archive_fills_it() -> None:
    """What is installed already may need none any more."""
    small = facts()["scratch"] | {"free": 100 << 20}
    [finding] = disks("a", node(scratch=small))
    assert not finding.fatal
    assert "/home/me/.ansible/tmp: 100 MiB are free, uploading an archive takes 512" in str(finding)
    there = facts()["disks"]
    new = there | {"/opt/berny": there["/opt/berny"] | {"used": False}}
    [finding] = disks("a", node(scratch=small, disks=new))
    assert finding.fatal


def test_the_home_is_that_of_who_logged_in(reader: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """The module is root by sudo."""
    monkeypatch.setenv("SUDO_USER", "root")
    assert reader.home("~/.ansible/tmp") == Path("~root/.ansible/tmp").expanduser()
    assert reader.home("/var/tmp/ansible") == Path("/var/tmp/ansible")


def test_drivers_are_the_nodes_of_scripts(action: ModuleType) -> None:
    """From there the scripts log in."""
    assert action.drivers(load_catalog(), read_mapping()) == ["master"]


def test_a_preflight_for_real(checkout: Path, tmp_path: Path) -> None:
    """Two names of this machine, and one that does not answer under a templated address; nothing is shown as a template."""
    hosts: dict[str, Any] = {name: {"ansible_host": f"10.0.0.{n}"} for n, name in enumerate(read_mapping()["all"], 4)}
    for name in ("master", "worker_1", "worker_2"):
        hosts[name] |= {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    hosts["worker_0"] |= {
        "gone": "127.0.0.1",
        "ansible_host": "{{ gone }}",
        "ansible_port": 1,
        "private_address": "10.0.0.5",
    }
    groups: dict[str, Any] = {n: {"hosts": dict.fromkeys(there)} for n, there in read_mapping().items() if n != "all"}
    groups["kafka"]["hosts"] = {"master": {"kafka_broker_id": 1}, "worker_2": {"kafka_broker_id": 2}}
    inventory = tmp_path / "inventory"
    inventory.mkdir()
    (inventory / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": hosts, "children": groups}}))
    command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", str(inventory), "playbooks/preflight.yml"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "BERNY_"))}
    environment |= {"ANSIBLE_NOCOLOR": "1", "ANSIBLE_LOCAL_TEMP": str(tmp_path / "tmp")}
    done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, timeout=120)
    said = " ".join((done.stdout + done.stderr).split())
    assert done.returncode != 0
    assert "worker_2: is the same machine as master: give each its own ansible_host" in said, said
    assert "worker_0: can't be read: " in said
    assert "worker_1: is the same machine as master" in said
    assert "does 127.0.0.1 answer SSH" in said
    assert "{{" not in said, said
    assert "Traceback" not in said, said


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
    expected = sum(s.heap.small + s.overhead if s.heap else s.memory.small for s in services)
    stages = [stage for pipeline in pipelines.values() for stage in pipeline.stages.values()]
    expected += sum(stage.memory.small for stage in stages if "worker_1" in groups[stage.on])
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
