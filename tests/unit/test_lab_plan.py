"""The lab as data: names that fit the kernel's limits, a network that is free, disks as the mapping has them."""

from __future__ import annotations

import ipaddress
import json
import os
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from berny.lab import box, network, plan, summary
from berny.lab.lab import Lab
from berny.lab.plan import Disk, LabError, Plan, choose_network, disks, load_plan, state_folder
from berny.lab.simulation import load_simulations, select
from berny.lab.simulator import Process, Simulator, started
from berny.model.catalog import load_catalog
from berny.model.manifest import load_pipelines
from berny.model.topology import read_mapping

LAB = Plan("lab", ipaddress.IPv4Network("10.180.7.0/24"))
LONGEST = "a123456789"
INTERFACE_NAME_MAX = 15
"""IFNAMSIZ is 16, with the closing zero."""


# -- names -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["lab", "a", "t-1", LONGEST])
def test_legal_names_have_no_plan_yet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    """A lab that was never brought up is none."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert load_plan(name) is None


@pytest.mark.parametrize(
    "name", ["", "Lab", "1lab", "-lab", "a_b", "a.b", "../lab", "a/b", f"{LONGEST}x", "läb", "a b", "lab\n"]
)
def test_illegal_names_are_refused_with_the_rule(name: str) -> None:
    """A name becomes a folder, a bridge and a table: it is refused before it is any of them."""
    with pytest.raises(LabError) as error:
        load_plan(name)
    assert repr(name) in str(error.value)
    assert "use up to 10 of a to z, 0 to 9 and '-', a letter first" in str(error.value)


@pytest.mark.parametrize("name", ["lab", LONGEST])
def test_interfaces_have_names_that_the_kernel_takes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    """The bridge and the simulator's link of any lab whose name is legal."""
    asked: list[list[str]] = []

    def note(command: list[str], **_: object) -> str:
        asked.append(command)
        return '{"nftables": []}' if command[0] == "nft" else "[]"

    monkeypatch.setattr(network, "run", note)
    monkeypatch.setattr(network, "succeeds", lambda command: False)
    network.up(Plan(name, LAB.network))
    names = {command[3] for command in asked if command[:3] == ["ip", "link", "add"]}
    assert len(names) == 2
    assert all(len(interface) <= INTERFACE_NAME_MAX for interface in names), names


def test_names_of_a_lab_are_a_block_of_the_hosts_file(tmp_path: Path) -> None:
    """All other lines stay as they are, in their order; the lab's go with it, and another lab's stay."""
    file = tmp_path / "hosts"
    own = "127.0.0.1 localhost\n# begin of berny-lab\n10.0.0.1 mine"
    file.write_text(own)
    box.resolve("berny-one", {"10.180.7.11": ["worker-1", "worker_1"], "10.180.7.10": ["master"]}, file)
    block = "# begin of berny-one\n10.180.7.11 worker-1 worker_1\n10.180.7.10 master\n# end of berny-one\n"
    assert file.read_text() == f"{own}\n{block}"
    box.resolve("berny-lab", {"10.180.8.10": ["master"]}, file)
    box.resolve("berny-one", {"10.180.9.10": ["master"]}, file)
    other = "# begin of berny-lab\n10.180.8.10 master\n# end of berny-lab\n"
    assert file.read_text() == f"{own}\n{other}# begin of berny-one\n10.180.9.10 master\n# end of berny-one\n"
    for owner in ("berny-one", "berny-lab"):
        box.resolve(owner, {}, file)
    assert file.read_text() == f"{own}\n"


def test_parts_of_two_labs_differ() -> None:
    """Labs stand beside each other on one box."""
    other = Plan("other", ipaddress.IPv4Network("10.180.8.0/24"))
    for part in ("folder", "bridge", "namespace", "table", "gateway", "simulator"):
        assert getattr(LAB, part) != getattr(other, part)


def test_machines_have_names_and_addresses() -> None:
    """An underscore is no part of a machine's name; each has an address of its own, and it stays."""
    assert {name: node.machine for name, node in LAB.nodes.items()} == {
        "master": "master", "worker_0": "worker-0", "worker_1": "worker-1", "worker_2": "worker-2",
    }  # fmt: skip
    addresses = [node.address for node in LAB.nodes.values()]
    taken = [*addresses, LAB.gateway, LAB.simulator, str(LAB.network[0]), str(LAB.network[-1])]
    assert len(set(taken)) == len(taken)
    assert all(ipaddress.ip_address(address) in LAB.network for address in addresses)
    assert LAB.nodes == Plan("lab", LAB.network).nodes


def test_simulator_has_a_port_of_no_service() -> None:
    """It is in a namespace of its own, but nobody should have to know that."""
    ports = [port for service in load_catalog().services.values() for port in service.ports.values()]
    assert load_simulations() and not [one.port for one in load_simulations().values() if one.port in ports]


# -- pipelines and their simulators ------------------------------------------------------------------------------------

SIMULATION = """
port: 8200
harness: influxdb
secret: key
settings: {SOURCE: "{url}/v1", PACE: "1"}
faults: {gone: {about: the source is gone, quiet: true}}
"""


def simulations(folder: Path, **texts: str) -> Path:
    """Write simulations of pipelines by name."""
    for name, text in texts.items():
        file = folder / name / "controller" / "simulation.yml"
        file.parent.mkdir(parents=True)
        file.write_text(text)
    return folder


def test_simulation_is_read_and_described_for_the_inventory(tmp_path: Path) -> None:
    """The simulator's address stands in the settings; whoever has the secret gets none of it."""
    one = load_simulations(simulations(tmp_path, one=SIMULATION))["one"]
    assert one.faults["gone"].quiet and not one.faults["gone"].refused and not one.default
    assert one.describe("10.0.0.5") == {
        "url": "http://10.0.0.5:8200",
        "secret": "key",
        "secrets": {"key": "simulated"},
        "settings": {"SOURCE": "http://10.0.0.5:8200/v1", "PACE": "1"},
        "calendars": {},
    }


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [("port: 8200", "port: 80", "port"), ("secret:", "secrets:", "secrets"), ("about:", "abuot:", "faults.gone.a"),
     ("PACE: ", "PACE: [", "simulation.yml")],
)  # fmt: skip
def test_wrong_simulation_names_file_and_key(tmp_path: Path, old: str, new: str, told: str) -> None:
    folder = simulations(tmp_path, one=SIMULATION.replace(old, new))
    with pytest.raises(LabError) as error:
        load_simulations(folder)
    assert str(folder / "one" / "controller" / "simulation.yml") in str(error.value) and told in str(error.value)


def test_two_simulators_have_two_ports(tmp_path: Path) -> None:
    """Their address is the same."""
    with pytest.raises(LabError, match=r"two/controller/simulation.yml: port: 8200 is that of one"):
        load_simulations(simulations(tmp_path, one=SIMULATION, two=SIMULATION))


def test_pipelines_are_chosen_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    two = SIMULATION.replace("8200", "8201") + "default: true\n"
    folder = simulations(tmp_path, one=SIMULATION, two=two)
    known = load_simulations(folder)
    monkeypatch.setattr("berny.lab.simulation.load_simulations", lambda: known)
    assert select("") == ("two",)
    assert select("all") == select("two one") == select("two,one") == ("one", "two")
    assert select(" one ") == ("one",)
    with pytest.raises(LabError, match="there is no simulated pipeline three: there are one, two; or all"):
        select("one three")


def test_each_simulator_has_its_own_files_and_address(tmp_path: Path) -> None:
    """So each pipeline has a ground truth of its own."""
    known = load_simulations(simulations(tmp_path, one=SIMULATION, two=SIMULATION.replace("8200", "8201")))
    one, two = (Simulator(LAB, name, simulation) for name, simulation in known.items())
    for part in ("truth", "log", "pid_file", "url"):
        assert getattr(one, part) != getattr(two, part)


def test_status_of_a_pipeline_is_names_and_values() -> None:
    """Whatever a harness reports, read in a terminal."""
    found = {
        "stored": 7,
        "oldest_unprocessed_seconds": 0.52,
        "delay_seconds_by_direction": {"Aller": 12, "Retour": -3.14},
    }
    told = "stored: 7; oldest unprocessed: 0.5 s; delay by direction: Aller 12.0 s, Retour -3.1 s"
    assert summary.pairs(found) == told
    assert summary.pairs({"freshness_seconds": None, "delays_seconds": {}}) == "freshness: none yet; delays: none yet"


def test_process_of_another_simulator_is_none_of_ours(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Numbers of processes are used again."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    known = load_simulations(simulations(tmp_path / "pipelines", one=SIMULATION))
    command = [sys.executable, "-c", "import time; print(1, flush=True); time.sleep(60)", "simulate", "two"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout and process.stdout.readline(), "before it runs, it has the words of this process"
            for name, own in (("one", None), ("two", process.pid)):
                simulator = Simulator(LAB, name, known["one"])
                simulator.pid_file.parent.mkdir(parents=True, exist_ok=True)
                simulator.pid_file.write_text(str(process.pid))
                assert simulator.pid() == own
        finally:
            process.kill()


def test_simulators_that_another_checkout_has_started_are_ended(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Those of pipelines that this checkout does not have, too; what a lab is to run goes on."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    lab = Lab(LAB)
    (kept,) = lab.simulators
    command = [sys.executable, "-c", "import time; print(1, flush=True); time.sleep(60)", "simulate"]
    processes = {}
    try:
        for name in ("nobodys", kept):
            processes[name] = subprocess.Popen([*command, name], stdout=subprocess.PIPE)
            assert processes[name].stdout.readline(), "before it runs, it has the words of this process"
            file = Process(LAB, name).pid_file
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(str(processes[name].pid))
        assert started(LAB) == sorted(["nobodys", kept])
        lab._end_simulators(keep=lab.simulators)
        assert started(LAB) == [kept] and processes[kept].poll() is None
        assert processes["nobodys"].wait(5) is not None
        lab._end_simulators()
        assert started(LAB) == []
    finally:
        for process in processes.values():
            process.kill()
            process.wait()


# -- state -------------------------------------------------------------------------------------------------------------


def test_plan_is_read_as_it_was_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A lab keeps its network, whatever routes come later."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert state_folder() == tmp_path / "berny" / "labs"
    LAB.folder.mkdir(parents=True)
    (LAB.folder / "lab.yml").write_text(yaml.safe_dump(LAB.describe()))
    made = replace(LAB, made={name: node.address for name, node in LAB.nodes.items()})
    assert load_plan("lab") == made
    other = replace(made, pipelines=("gone",))
    (LAB.folder / "lab.yml").write_text(yaml.safe_dump(other.describe()))
    assert load_plan("lab") == other, "later commands know what it runs"
    assert other.simulations == {}, "what this checkout does not have can't be run"


@pytest.mark.parametrize("text", ["", "- 1\n", "name: lab\n", "network: [\n", "{network: x, nodes: {}}\n"])
def test_a_damaged_state_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str) -> None:
    """No traceback: which file, and what a person can do."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    file = state_folder() / "lab" / "lab.yml"
    file.parent.mkdir(parents=True)
    file.write_text(text)
    with pytest.raises(LabError, match=rf"{re.escape(str(file))} is damaged .*machinectl"):
        load_plan("lab")


def test_machines_keep_their_addresses_as_the_inventory_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new one gets a free address, whatever its name; one that left is known until it is gone."""
    made = {name: node.address for name, node in LAB.nodes.items()}
    names = ["edge_1", *(name for name in LAB.nodes if name != "worker_0"), "worker_9"]
    monkeypatch.setattr(plan, "read_mapping", lambda: {"all": names})
    now = replace(LAB, made=made)
    assert {name: node.address for name, node in now.nodes.items()} == {
        **{name: address for name, address in made.items() if name != "worker_0"},
        "edge_1": "10.180.7.14",
        "worker_9": "10.180.7.15",
    }
    assert now.left == {"worker_0": LAB.nodes["worker_0"]}
    assert "worker_0" not in now.describe()["nodes"]


def inventory_of(checkout: Path, state: Path, name: str = "lab") -> tuple[dict[str, Any], str]:
    """Return the variables of each host of the inventory ``lab``, and what Ansible warns of."""
    command = [str(Path(sys.executable).with_name("ansible-inventory")), "-i", "inventory/lab", "--list"]
    own = os.environ | {"XDG_STATE_HOME": str(state), "BERNY_LAB": name}
    done = subprocess.run(command, cwd=checkout, env=own, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["_meta"]["hostvars"], done.stderr


def plain(value: Any) -> Any:
    """Return a value without what the listing wraps around text that is no template."""
    if isinstance(value, dict):
        return plain(value["__ansible_unsafe"]) if "__ansible_unsafe" in value else {k: plain(value[k]) for k in value}
    return [plain(one) for one in value] if isinstance(value, list) else value


def test_inventory_has_what_the_plan_describes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, checkout: Path) -> None:
    """As plain data: no task renders the address that it connects to."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    LAB.folder.mkdir(parents=True)
    (LAB.folder / "lab.yml").write_text(yaml.safe_dump(LAB.describe()))
    found, warned = inventory_of(checkout, tmp_path)
    assert not warned
    assert {name: plain(host["ansible_host"]) for name, host in found.items()} == {
        name: node.address for name, node in LAB.nodes.items()
    }
    assert plain(found["master"]["lab"]) == LAB.describe()
    assert plain(found["master"]["lab_folder"]) == str(LAB.folder)


@pytest.mark.parametrize("content", [None, "", "nodes: {}", "nodes: {worker_1: {address: 10.180.7.12}}"])
def test_inventory_names_the_command_that_makes_a_machine(checkout: Path, tmp_path: Path, content: str | None) -> None:
    """Where there is no lab, or the mapping has a node more than when it was brought up; the listing itself needs none."""
    folder = tmp_path / "berny" / "labs" / "lab"
    folder.mkdir(parents=True)
    if content is not None:
        (folder / "lab.yml").write_text(content)
    found, _ = inventory_of(checkout, tmp_path)
    assert "`berny lab up --name lab` makes it" in found["worker_0"]["ansible_host"]
    assert (plain(found["worker_1"]["ansible_host"]) == "10.180.7.12") == ("worker_1" in (content or ""))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [("../lab", "", "not a valid name"), ("lab", "nodes: [", "can't be read"), ("lab", "other: {}", "can't be read")],
)
def test_inventory_refuses_what_is_no_lab(checkout: Path, tmp_path: Path, name: str, content: str, words: str) -> None:
    folder = tmp_path / "berny" / "labs" / "lab"
    folder.mkdir(parents=True)
    (folder / "lab.yml").write_text(content)
    found, warned = inventory_of(checkout, tmp_path, name)
    assert words in " ".join(warned.split()), warned
    assert "ansible_host" not in found["master"]


INVENTORY = """
import json, sys
from pathlib import Path
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

def trusted(value):
    return trust_as_template(value) if isinstance(value, str) else value

loader = DataLoader()
values = {name: trusted(value) for name, value in yaml.safe_load(Path(sys.argv[1]).read_text()).items()}
values |= json.loads(sys.argv[2])
templar = Templar(loader=loader, variables=values)
names = ("pipeline_environment", "pipeline_calendars", "pipeline_secrets_given")
print(json.dumps({name: templar.template(values[name]) for name in names}))
"""


def pipelines_are_given(checkout: Path, lab: Plan, secrets: dict[str, str]) -> dict[str, Any]:
    """Return what the inventory ``lab`` gives pipelines."""
    file = checkout / "inventory/lab/group_vars/all.yml"
    words = json.dumps({"lab": lab.describe(), "secrets": secrets})
    done = subprocess.run([sys.executable, "-c", INVENTORY, file, words], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_pipeline_watches_its_simulator_until_its_secret_is_given(checkout: Path) -> None:
    """Each for itself; what generates secrets has given others."""
    secret = load_simulations()["idfm"].secret
    simulated = pipelines_are_given(checkout, LAB, {"admin_token": "x", secret: ""})
    assert simulated["pipeline_environment"]["idfm"]["PRIM_BASE_URL"] == f"http://{LAB.simulator}:8099"
    assert simulated["pipeline_calendars"] == {name: one.calendars for name, one in LAB.simulations.items()}
    assert simulated["pipeline_secrets_given"] == {secret: "simulated"}
    real = pipelines_are_given(checkout, LAB, {"admin_token": "x", secret: "a key"})
    assert real == {"pipeline_environment": {}, "pipeline_calendars": {}, "pipeline_secrets_given": {}}


# -- network -----------------------------------------------------------------------------------------------------------


@given(st.from_regex(r"[a-z][a-z0-9-]{0,9}", fullmatch=True))
def test_network_is_the_names(name: str) -> None:
    """The same name has the same network wherever nothing is in the way."""
    chosen = choose_network(name, [])
    assert chosen == choose_network(name, ["192.168.0.0/16", "10.0.0.0/16", "172.17.0.1", "fe80::/64"])
    assert chosen.prefixlen == 24
    assert chosen.subnet_of(ipaddress.IPv4Network("10.180.0.0/16"))


@given(st.sets(st.integers(0, 255), max_size=255), st.from_regex(r"[a-z][a-z0-9-]{0,9}", fullmatch=True))
def test_network_avoids_what_is_taken(taken: set[int], name: str) -> None:
    """Routes of containers, of a VPN or of another lab."""
    routes = [f"10.180.{number}.0/24" for number in taken]
    chosen = choose_network(name, routes)
    assert not any(chosen.overlaps(ipaddress.ip_network(route)) for route in routes)


@pytest.mark.parametrize(
    ("route", "taken"),
    [("10.180.{}.128/25", True), ("10.180.{}.77", True), ("10.180.{}.1/24", True), ("10.181.{}.0/24", False)],
)
def test_part_of_a_network_is_enough(route: str, taken: bool) -> None:
    """A single address of another one is in the way; host bits of a route are nothing to stumble over."""
    first = choose_network("lab", [])
    chosen = choose_network("lab", [route.format(str(first).split(".")[2])])
    assert (chosen != first) == taken


def test_no_free_network_says_the_remedy() -> None:
    """The route that is in the way is for the operator to remove."""
    with pytest.raises(LabError, match=r"no free network in 10\.180\.0\.0/16: .*ip route"):
        choose_network("lab", ["10.180.0.0/15"])


ROUTES = """
import sys
from berny.lab.box import routes, run
from berny.lab.plan import choose_network

run(["ip", "link", "set", "lo", "up"])
for words in sys.argv[1:]:
    run(["ip", "route", "add", *words.split()])
print(*routes())
print(choose_network("lab", routes()))
"""


@pytest.mark.parametrize("kind", ["", "blackhole ", "unreachable ", "prohibit ", "throw "])
def test_routes_of_the_box_are_read(kind: str) -> None:
    """Real routes of a namespace, of every kind: container networks and VPNs leave such ones."""
    first = str(choose_network("lab", []))
    device = "" if kind else " dev lo"
    command = ["unshare", "--map-root-user", "--net", sys.executable, "-c", ROUTES, f"{kind}{first}{device}"]
    done = subprocess.run([*command, f"{kind}default{device}"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    told, chosen = done.stdout.splitlines()
    assert "default" not in told
    if not kind:
        assert told == first
        assert chosen != first


# -- disks -------------------------------------------------------------------------------------------------------------


def test_each_service_has_a_disk_on_each_of_its_nodes() -> None:
    """One full or broken disk is one service's."""
    mapping = read_mapping()
    assert len(set(LAB.disks)) == len(LAB.disks)
    assert max(Counter((disk.node, disk.service) for disk in LAB.disks).values()) == 1
    for service in load_catalog().services.values():
        nodes = sorted(disk.node for disk in LAB.disks if disk.service == service.name)
        assert nodes == (mapping[service.group] if service.disk else [])
    assert Disk("master", "berny-idfm", 1) in LAB.disks, "the producer's spool"
    assert [disk.node for disk in LAB.disks if disk.service == "berny-idfm"] == ["master"]


def test_disks_follow_the_mapping() -> None:
    """A service that moves takes its disk along; one that is nowhere has none."""
    catalog = load_catalog()
    found = disks({"kafka": ["worker_0"], "namenode": []}, catalog, load_pipelines())
    assert found == [Disk("worker_0", "kafka", 4)]


def test_sizes_are_the_small_ones() -> None:
    """Together they fit what the lab asks the box to have free, as images that are filled by and by."""
    sizes = {name: service.disk.small for name, service in load_catalog().services.items() if service.disk}
    assert all(disk.gib == sizes[disk.service] for disk in LAB.disks if disk.service in sizes)


# -- the box -----------------------------------------------------------------------------------------------------------


def test_box_without_root_is_told_the_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing else can be asked then."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert box.problems(tmp_path) == ["machines need root: run it with sudo"]


@pytest.fixture
def root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked as root would, whoever runs the tests: nothing is changed by asking."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)


@pytest.mark.usefixtures("root")
def test_small_box_is_told_what_to_free(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each lack in one line, with numbers and remedy."""
    usual = box.problems(tmp_path)
    monkeypatch.setattr(box, "FREE_GIB", 10**6)
    monkeypatch.setattr(box, "MEMORY_GIB", 10**6)
    found = [problem for problem in box.problems(tmp_path) if problem not in usual]
    assert len(found) == 2
    assert re.fullmatch(r"[\d.]+ GiB of memory are free, .*: free 1000000", found[0])
    assert re.fullmatch(
        rf"\d+ GiB are free at {re.escape(str(tmp_path))}, .*: free some or set XDG_STATE_HOME", found[1]
    )


@pytest.mark.usefixtures("root")
def test_disk_is_asked_where_the_state_will_be(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The folder need not be there yet, and asking does not make it."""
    monkeypatch.setattr(box, "FREE_GIB", 10**6)
    assert f" at {tmp_path}," in box.problems(tmp_path / "berny" / "labs" / "lab")[-1]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("root")
def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where there is no apt-get, a person has to install them: all at once."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert set(box.missing_packages()) == {package for package, _ in box.PACKAGES.values()}
    [problem] = [problem for problem in box.problems(tmp_path) if problem.startswith("install ")]
    assert all(package in problem for package, _ in box.PACKAGES.values())
    for tool in ("apt-get", "nft"):
        (tmp_path / tool).touch(0o755)
    assert not [problem for problem in box.problems(tmp_path) if problem.startswith("install ")]
    assert "nftables" not in box.missing_packages()


def test_failed_command_is_told_with_its_words() -> None:
    """Which command, and what it said."""
    with pytest.raises(LabError, match=r"^sh -c echo no >&2; exit 3: no$"):
        box.run(["sh", "-c", "echo no >&2; exit 3"])
    assert box.run(["cat"], stdin="words") == "words"
    assert (box.succeeds(["true"]), box.succeeds(["false"])) == (True, False)
