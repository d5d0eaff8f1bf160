"""Operating system packages: who has the package manager's lock, and components that are installed from packages."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import ModuleType, SimpleNamespace
from typing import Any

import ansible.module_utils
import pytest
from ansible.errors import AnsibleActionFail

from berny.controller.artifacts.bundle import os_packages
from berny.controller.placement import Need, need, packaged
from berny.controller.preflight import Node, ports
from berny.lab import golden
from berny.model.catalog import Catalog, CatalogError, load_catalog
from berny.model.component import Component, Packages
from berny.model.manifest import load_pipelines
from berny.model.topology import CHECKOUT, read_mapping, selected_components, selection_problems
from berny.runtime.probe import Cluster, NotReady
from berny.runtime.probe.load import load

PYTHON = "/usr/bin/python3"
APT = subprocess.run([PYTHON, "-c", "import apt"], capture_output=True).returncode == 0
PLAY = """
- hosts: all
  connection: local
  gather_facts: false
  tasks:
    - name: Install
      berny_packages: {names: [berny-no-such-package], wait: 15}
"""


@pytest.mark.skipif(not APT, reason="needs python3-apt")
def test_a_lock_that_is_held_is_waited_for_and_told(tmp_path: Path) -> None:
    """The real apt, with lists and lock of its own: the error is the lock, not that a package is unknown without lists."""
    for folder in ("dpkg", "lists/partial", "cache/archives/partial"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "dpkg" / "status").touch()
    settings = tmp_path / "apt.conf"
    settings.write_text(
        f'Dir::State "{tmp_path}";\nDir::State::status "{tmp_path}/dpkg/status";\nDir::Cache "{tmp_path}/cache";\n'
        f'Dir::State::lists "{tmp_path}/lists";\n'
    )
    play = tmp_path / "play.yml"
    play.write_text(PLAY)
    command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "worker_0,", str(play)]
    environment = os.environ | {
        "APT_CONFIG": str(settings),
        "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg"),
        "ANSIBLE_PYTHON_INTERPRETER": PYTHON,
    }
    with (tmp_path / "lists" / "lock").open("w") as lists, (tmp_path / "dpkg" / "lock-frontend").open("w") as dpkg:
        for lock in (lists, dpkg):
            fcntl.lockf(lock, fcntl.LOCK_EX)
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    said = " ".join((done.stdout + done.stderr).replace("''", "'").split())
    assert done.returncode != 0
    assert "worker_0: waiting for the package manager, " in said and "of 15 s)" in said, said
    assert "held the package manager's lock for" in said and "Traceback" not in said, said
    assert "No package matching" not in said, said


def action(module: ModuleType, *answers: dict[str, Any]) -> tuple[Any, list[dict[str, Any]], list[str]]:
    """Return an action that apt gives these answers, the arguments that it is called with, and what is shown."""
    calls: list[dict[str, Any]] = []
    shown: list[str] = []
    said = iter(answers)

    class Told(module.ActionModule):  # type: ignore[misc, name-defined]
        def _execute_module(self, module_args: dict[str, Any], **_: Any) -> dict[str, Any]:
            calls.append(dict(module_args))
            return dict(next(said))

    task = SimpleNamespace(args={"names": ["chrony"]}, async_val=0, check_mode=False, diff=False)
    found = Told(task, None, None, None, None, None)
    found._display = SimpleNamespace(display=shown.append)
    found._connection = SimpleNamespace(_shell=SimpleNamespace(tmpdir=None), has_pipelining=True)
    return found, calls, shown


FRONTEND = {
    "failed": True,
    "msg": "'/usr/bin/apt-get -y install chrony' failed: E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by "
    "process 812 (unattended-upgr)",
}
UNKNOWN = {"failed": True, "msg": "No package matching 'chrony' is available"}


def test_it_goes_on_when_the_lock_is_free(plugin: Callable[[str], ModuleType]) -> None:
    """Also where the lists have to be fetched first; who has the lock is named each time."""
    told, calls, shown = action(
        plugin("ansible/plugins/action/berny_packages.py"), FRONTEND, UNKNOWN, FRONTEND, {"changed": True}
    )
    result = told.run(None, {"inventory_hostname": "worker_0"})
    assert result["changed"] and not result.get("failed")
    assert [call.get("update_cache", False) for call in calls] == [False, False, True, True]
    assert len(shown) == 2 and all("process 812 (unattended-upgr) has its lock" in words for words in shown)


def test_what_is_no_lock_is_not_waited_for(plugin: Callable[[str], ModuleType]) -> None:
    told, calls, shown = action(plugin("ansible/plugins/action/berny_packages.py"), UNKNOWN, UNKNOWN)
    result = told.run(None, {"inventory_hostname": "worker_0"})
    assert result["failed"] and result["msg"] == UNKNOWN["msg"]
    assert (len(calls), shown) == (2, [])


def test_the_lock_is_waited_for_ten_minutes(
    plugin: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = plugin("ansible/plugins/action/berny_packages.py")
    clock = iter(range(0, 10_000, module.TURN_SECONDS))
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    told, calls, shown = action(module, *[FRONTEND] * 100)
    result = told.run(None, {"inventory_hostname": "worker_0"})
    assert "process 812 (unattended-upgr) has held the package manager's lock for 600 s" in result["msg"]
    assert len(calls) == 40 and "(585 of 600 s)" in shown[-1]
    assert [call["lock_timeout"] for call in calls[:2]] == [module.FIRST_SECONDS, module.TURN_SECONDS]


# -- packages that a service is installed from --------------------------------------------------------------------------

UNIT = "tool.service"
STATUS = """Package: tool
Status: {status}
Version: 1
Architecture: all
Maintainer: Nobody <nobody@example.org>
Description: A tool

"""


class Machine:
    """What a module sees of Ansible: the real dpkg-query and systemctl, on a folder instead of the system."""

    def __init__(self, root: Path, check_mode: bool = False) -> None:
        self.root, self.check_mode = root, check_mode
        self.states: dict[str, str] = {}
        """Of the unit, as a running systemd would say; by default there is none."""
        self.stopped: list[str] = []

    def run_command(self, command: list[str], check_rc: bool = False) -> tuple[int, str, str]:
        if command[:2] == ["systemctl", "show"]:
            return 0, self.states.get(command[3], "inactive" if command[3] == "ActiveState" else "") + "\n", ""
        if command[:2] == ["systemctl", "stop"]:
            self.stopped.append(command[2])
            return 0, "", ""
        if command[1:2] == ["daemon-reload"]:
            return 0, "", ""
        words = [command[0], f"--root={self.root}", *command[1:]] if command[0] == "systemctl" else command
        environment = os.environ | {"DPKG_ADMINDIR": str(self.root / "dpkg")}
        done = subprocess.run(words, capture_output=True, text=True, env=environment)
        return done.returncode, done.stdout, done.stderr

    def fail_json(self, **words: Any) -> None:
        raise AssertionError(words["msg"])


@pytest.fixture
def packages(plugin: Callable[[str], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module's part on a node where nothing is installed."""
    # Ansible sends along what it imports.
    folder = str(CHECKOUT / "ansible" / "plugins" / "module_utils")
    monkeypatch.setattr(ansible.module_utils, "__path__", [*ansible.module_utils.__path__, folder])
    module = plugin("ansible/plugins/module_utils/berny_packages.py")
    monkeypatch.setattr(module, "UNITS", tmp_path / "etc" / "systemd" / "system")
    module.UNITS.mkdir(parents=True)
    (tmp_path / "dpkg").mkdir()
    (tmp_path / "dpkg" / "status").touch()
    return module


def have(module: ModuleType, machine: Machine, owner: str = "tool") -> dict[str, Any]:
    """Ask for the package, its unit masked."""
    words = {"names": ["tool"], "masks": [UNIT], "files": {}, "owner": owner, "state": str(machine.root / "state")}
    found: dict[str, Any] = module.have(machine, words)
    return found


def recorded(root: Path, owner: str = "tool") -> dict[str, str]:
    """Return the masks on record."""
    found: dict[str, str] = json.loads((root / "state" / "installed" / f"{owner}.json").read_text()).get("masks", {})
    return found


needs_debian = pytest.mark.skipif(not shutil.which("dpkg-query"), reason="needs dpkg")


@needs_debian
def test_a_unit_is_masked_before_its_package_is_there(packages: ModuleType, tmp_path: Path) -> None:
    """dpkg starts what is not masked. With the package installed, nothing is left to do."""
    machine = Machine(tmp_path)
    link = packages.UNITS / UNIT
    assert have(packages, Machine(tmp_path, check_mode=True)) == {
        "changed": True,
        "missing": ["tool"],
        "masked": [UNIT],
    }
    assert not link.is_symlink() and not (tmp_path / "state").exists()
    assert have(packages, machine) == {"changed": True, "missing": ["tool"], "masked": [UNIT]}
    assert link.readlink() == Path("/dev/null") and recorded(tmp_path) == {UNIT: ""}
    for status, missing in (("install ok half-configured", ["tool"]), ("install ok installed", [])):
        (tmp_path / "dpkg" / "status").write_text(STATUS.format(status=status))
        assert have(packages, machine) == {"changed": bool(missing), "missing": missing, "masked": []}
    assert machine.stopped == []


@needs_debian
def test_a_unit_that_runs_is_stopped(packages: ModuleType, tmp_path: Path) -> None:
    """Where the package was there before; that it was enabled is on record."""
    machine = Machine(tmp_path)
    machine.states = {"UnitFileState": "enabled", "ActiveState": "active"}
    have(packages, machine)
    assert machine.stopped == [UNIT] and recorded(tmp_path) == {UNIT: "enabled"}
    # A person unmasks it: the next run masks it again, and still knows how it was.
    (packages.UNITS / UNIT).unlink()
    machine.states = {"UnitFileState": "disabled"}
    assert have(packages, machine)["masked"] == [UNIT] and recorded(tmp_path) == {UNIT: "enabled"}


@needs_debian
def test_a_mask_of_a_persons_is_not_ours(packages: ModuleType, tmp_path: Path) -> None:
    """It is on nobody's record, so that a reset leaves it."""
    (packages.UNITS / UNIT).symlink_to("/dev/null")
    (tmp_path / "dpkg" / "status").write_text(STATUS.format(status="install ok installed"))
    assert have(packages, Machine(tmp_path)) == {"changed": False, "missing": [], "masked": []}
    assert not (tmp_path / "state").exists()


@needs_debian
def test_files_that_an_installation_reads_are_there_before_it(packages: ModuleType, tmp_path: Path) -> None:
    """Written and on record with the first look, apt or not; once, and again where a person changed one."""
    file = tmp_path / "etc" / "tool" / "no-cluster.conf"
    words = {"names": ["tool"], "masks": [], "owner": "tool", "state": str(tmp_path / "state")}
    words["files"] = {str(file): "create = false\n"}
    found = packages.have(Machine(tmp_path, check_mode=True), words)
    assert (found["changed"], file.exists(), found["diff"][0]["after"]) == (True, False, "create = false\n")
    found = packages.have(Machine(tmp_path), words)
    assert (found["changed"], found["missing"], file.read_text()) == (True, ["tool"], "create = false\n")
    record = json.loads((tmp_path / "state" / "installed" / "tool.json").read_text())
    assert str(file) in record["files"] and str(file.parent) in record["folders"]
    (tmp_path / "dpkg" / "status").write_text(STATUS.format(status="install ok installed"))
    assert packages.have(Machine(tmp_path), words) == {"changed": False, "missing": [], "masked": [], "diff": []}
    file.write_text("create = true\n")
    assert packages.have(Machine(tmp_path), words)["changed"] and file.read_text() == "create = false\n"


@needs_debian
@pytest.mark.parametrize(("before", "disabled"), [("", True), ("disabled", True), ("enabled", False)])
def test_a_reset_unmasks_what_was_masked(
    packages: ModuleType,
    plugin: Callable[[str], ModuleType],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    before: str,
    disabled: bool,
) -> None:
    """With the last owner; then the unit is as it was, whatever the package's installation has enabled meanwhile."""
    remove = plugin("ansible/plugins/modules/berny_remove.py")
    state = tmp_path / "state"
    places = {"UNITS": packages.UNITS, "STATE": state, "RECORDS": state / "installed", "BEFORE": state / "before"}
    places |= {
        name: tmp_path / name.lower() for name in ("TMPFILES", "CONFIGURATION", "RUNTIME", "STAMPS", "PROCESSES")
    }
    for name, path in places.items():
        monkeypatch.setattr(remove, name, path)
    machine, link = Machine(tmp_path), packages.UNITS / UNIT
    machine.states = {"UnitFileState": before}
    for owner in ("tool", "other"):
        have(packages, machine, owner)
    package = tmp_path / "usr" / "lib" / "systemd" / "system" / UNIT
    package.parent.mkdir(parents=True)
    package.write_text("[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n")
    wants = packages.UNITS / "multi-user.target.wants" / UNIT
    wants.parent.mkdir()
    wants.symlink_to(f"/lib/systemd/system/{UNIT}")
    machine.states = {"UnitFileState": "enabled"}
    remove.Remover(machine).owner("other", data=False)
    assert link.is_symlink(), "another service still needs it masked"
    remover = remove.Remover(machine)
    remover.owner("tool", data=False)
    assert f"mask of {UNIT}" in remover.removed and not link.is_symlink()
    assert wants.is_symlink() is not disabled
    assert list((state / "installed").iterdir()) == []


def converge(module: ModuleType, packages: dict[str, Any], *answers: dict[str, Any]) -> tuple[Any, list[Any]]:
    """Return an action for a service of packages that the node gives these answers, and what is done in order."""
    done: list[Any] = []
    said = iter(answers)

    class Apt:
        def install(self, names: list[str], task_vars: Any) -> dict[str, Any]:
            done.append(["apt", *names])
            return {"failed": True, "msg": "no such package"} if "unheard-of" in names else {"changed": True}

    class Told(module.ActionModule):  # type: ignore[misc, name-defined]
        def _value(self, name: str, variables: dict[str, Any]) -> Any:
            given = {
                "service_packages": packages,
                "service_name": "tool",
                "service_archive": "",
                "service_group": "tools",
            }
            return given.get(name, {})

        def _action(self, name: str) -> Any:
            tools = SimpleNamespace(module_arguments=lambda *_: {"files": []}, show=lambda *_: None)
            return Apt() if name == "berny_packages" else tools

        def _execute_module(self, module_args: dict[str, Any], **_: Any) -> dict[str, Any]:
            (call,) = module_args["services"]
            done.append([part for part in call if part != "name"])
            assert call["packages"] == {**packages, "owner": "tool"}
            return dict(next(said))

    task = SimpleNamespace(args={"phase": "configure"}, async_val=0, check_mode=False, diff=False)
    found = Told(task, None, None, None, None, None)
    found._connection = SimpleNamespace(_shell=SimpleNamespace(tmpdir=None), has_pipelining=True)
    return found, done


HERE = {"inventory_hostname": "master", "groups": {"tools": ["master"]}, "services": {"tool": {}}}
CONVERGE = "ansible/plugins/action/berny_converge.py"


def lacking(*names: str) -> dict[str, Any]:
    """Return what the module says where packages are missing."""
    missing = {"name": "tool", "part": "packages"}
    return {"changed": False, "services": {}, "missing": missing, "found": {"packages": {"missing": list(names)}}}


def test_packages_that_are_there_cost_nothing_more(plugin: Callable[[str], ModuleType]) -> None:
    """One round trip, as for an archive that is unpacked; none at all on a host that does not run it."""
    there = {"changed": False, "services": {"tool": {"changed": False, "packages": {"missing": []}}}}
    told, done = converge(plugin(CONVERGE), {"names": ["tool"], "masks": [UNIT]}, there)
    assert (told.run(None, HERE)["changed"], done) == (False, [["packages", "files"]])
    told, done = converge(plugin(CONVERGE), {"names": ["tool"]})
    assert told.run(None, HERE | {"inventory_hostname": "worker_0"})["services"] == {} and done == []


def test_packages_are_installed_before_the_service_is_configured(plugin: Callable[[str], ModuleType]) -> None:
    """The first look has masked their units; files follow once apt is through."""
    there = {"changed": True, "services": {"tool": {"changed": True, "packages": {"missing": []}}}}
    told, done = converge(plugin(CONVERGE), {"names": ["tool"], "masks": [UNIT]}, lacking("tool"), there)
    assert told.run(None, HERE)["changed"]
    assert done == [["packages", "files"], ["apt", "tool"], ["packages", "files"]]


def test_packages_that_can_not_be_had_end_it(plugin: Callable[[str], ModuleType]) -> None:
    """apt's words are the task's; a name that apt takes for another package's is told, too."""
    module = plugin(CONVERGE)
    told, done = converge(module, {"names": ["unheard-of"]}, lacking("unheard-of"))
    result = told.run(None, HERE)
    assert result["failed"] and result["msg"] == "no such package" and len(done) == 2
    again = lacking("mail-transport-agent")
    told, _ = converge(module, {"names": ["mail-transport-agent"]}, again, again)
    with pytest.raises(AnsibleActionFail, match="for mail-transport-agent: name the packages themselves"):
        told.run(None, HERE)


# -- components of packages ----------------------------------------------------------------------------------------------

PACKAGED = """
title: A tool
version: "1"
{install}
user: {{name: tool, uid: 6900}}
services:
  tool:
    group: tool
    ports: {{http: 9999}}
    {more}
    keeps: nothing
"""
OF_PACKAGES = "install: packages\npackages: {names: [tool], masks: [tool.service]}"
MEMORY = "memory: {small: 32, large: 64}"


def component(folder: Path, install: str = OF_PACKAGES, more: str = MEMORY) -> Component:
    """Return a component of its file."""
    file = folder / "tool" / "component.yml"
    file.parent.mkdir(exist_ok=True)
    file.write_text(PACKAGED.format(install=install, more=more))
    load_catalog.cache_clear()
    return load_catalog(folder).components["tool"]


def test_a_component_of_packages(tmp_path: Path) -> None:
    """It has no archive, and memory instead of a heap."""
    found = component(tmp_path, more=f"{MEMORY}\n    metrics: http")
    assert (found.archive, found.packages and found.packages.names) == ("", ["tool"])
    service = found.services["tool"]
    assert (service.resident("small"), service.resident("large"), service.heap) == (32, 64, None)


@pytest.mark.parametrize(
    ("install", "more", "words"),
    [
        ("install: docker", MEMORY, "install: Input should be 'archive', 'packages' or 'venv'"),
        ("install: packages", MEMORY, "'packages' needs packages"),
        ("install: packages\narchive: tool", MEMORY, "'packages' needs packages"),
        (f"{OF_PACKAGES}\narchive: tool", MEMORY, "and none the other"),
        (f"archive: tool\n{OF_PACKAGES.partition(chr(10))[2]}", MEMORY, "and none the other"),
        ("install: venv", MEMORY, "'venv' need archive"),
        ("install: packages\npackages: {names: []}", MEMORY, "packages.names"),
        ("install: packages\npackages: {names: ['a b']}", MEMORY, "packages.names.0"),
        ("install: packages\npackages: {names: [tool], masks: [tool]}", MEMORY, "packages.masks.0"),
        ("install: packages\npackages: {names: [tool], files: {tool.conf: ''}}", MEMORY, "packages.files.tool.conf"),
        (f"{OF_PACKAGES}\noptional: true", MEMORY, "optional: only what is installed from an archive"),
        (OF_PACKAGES, f"{MEMORY}\n    heap: {{small: 1, large: 1}}", "heap: either this or memory"),
        (OF_PACKAGES, "pages: []", "heap: either this or memory"),
        (OF_PACKAGES, f"{MEMORY}\n    metrics: web", "metrics: web: no such port"),
    ],
)
def test_what_is_wrong_with_one_is_told(tmp_path: Path, install: str, more: str, words: str) -> None:
    with pytest.raises(CatalogError, match=re.escape(words)) as error:
        component(tmp_path, install, more)
    assert "tool/component.yml" in str(error.value)


def test_memory_is_what_a_node_needs() -> None:
    """Of a process without a heap; a heap that was given for it by mistake is none."""
    catalog = Catalog(components={"exporter": load_catalog().components["exporter"]})
    for size, expected in (("small", 32), ("large", 64)):
        found = need(catalog, {}, {"node_exporter": ["a"]}, "a", size, {})  # type: ignore[arg-type]
        assert (found.memory, found.disks, found.ports) == (expected, {}, {9100: "node-exporter"})
    assert need(catalog, {}, {"node_exporter": ["a"]}, "b", "small", {}).memory == 0


def test_an_inventory_without_the_group_is_right() -> None:
    """Nothing requires the exporter, and it requires nothing."""
    groups = {name: nodes for name, nodes in read_mapping().items() if name != "node_exporter"}
    assert list(selection_problems(load_catalog(), groups, [])) == []
    assert "exporter" not in selected_components(load_catalog(), groups).components
    alone = {"all": ["a"], "node_exporter": ["a"]}
    assert list(selection_problems(load_catalog(), alone, [])) == []
    assert [*selected_components(load_catalog(), alone).components] == ["exporter"]


def test_a_unit_of_the_operating_systems_that_has_the_port_is_told() -> None:
    """By its own name and package, with the command that ends it; with our unit there it is no finding."""
    catalog = load_catalog()
    assert packaged(catalog)["prometheus-node-exporter.service"] == "prometheus-node-exporter"
    node = Node(need=Need(0, 0, {}, {9100: "node-exporter"}), placed=set(), groups={}, nofile=1)
    node.packaged = packaged(catalog)
    listener = {"port": 9100, "pid": 1, "process": "prometheus-node", "unit": "prometheus-node-exporter.service"}
    node.facts = {"listeners": [listener]}
    [finding] = ports("a", node)
    assert finding.kind == "port" and finding.fatal
    assert str(finding) == (
        "a: port 9100 of node-exporter is taken by prometheus-node-exporter.service, which the package "
        "prometheus-node-exporter starts: systemctl disable --now prometheus-node-exporter.service (the same program then "
        "runs as node-exporter)"
    )
    node.facts = {"listeners": [{**listener, "unit": "node-exporter.service"}]}
    assert ports("a", node) == []


def test_what_serves_metrics_is_told_as_data(plugin: Callable[[str], ModuleType]) -> None:
    """Services that say so, and every stage, by unit."""
    filters = plugin("ansible/plugins/filter/berny.py")
    catalog = {"services": {name: one.model_dump(mode="json") for name, one in load_catalog().services.items()}}
    groups = {**read_mapping(), "node_exporter": ["worker_0", "master"]}
    found = filters.metrics_targets(catalog, filters.manifests(["idfm"]), groups)
    assert found.pop("node-exporter") == {"nodes": ["master", "worker_0"], "port": 9100, "path": "/metrics"}
    exporter = found.pop("postgresql-exporter")
    assert exporter == {"nodes": groups["postgresql_exporter"], "port": 9187, "path": "/metrics"}
    assert found["hbase-master"] == {"nodes": ["master"], "port": 16010, "path": "/prometheus"}
    stages = load_pipelines()["idfm"].stages
    assert {unit: one for unit, one in found.items() if unit.startswith("berny-")} == {
        f"berny-idfm-{name}": {"nodes": groups[stage.on], "port": stage.metrics_port, "path": "/metrics"}
        for name, stage in stages.items()
    }


def test_the_labs_machines_have_the_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is fetched, and nothing runs of it before a play; another package, or another unit, is another root."""
    names, setup = golden.recipe()
    assert {"prometheus-node-exporter", "systemd", "nftables"} <= set(names)
    [disabled] = [line.split()[5:] for line in setup.splitlines() if "systemctl -q disable" in line]
    assert "prometheus-node-exporter.service" in disabled
    assert "prometheus-node-exporter" not in golden.packages(), "the guest installs it itself"
    roots = [golden.golden_root()]
    for changed in ([], [Packages(names=["tool"])], [Packages(names=["tool"], masks=["tool.service"])]):
        monkeypatch.setattr(golden, "of_components", lambda changed=changed: changed)
        roots.append(golden.golden_root())
    assert len(set(roots)) == 4
    monkeypatch.setattr(golden, "of_components", list)
    assert golden.recipe() == (golden.packages(), golden.CONTAINER_SETUP)


def test_files_are_in_the_golden_root_before_its_packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """By a hook of mmdebstrap, which is a line of the shell; another text is another root."""
    roots = []
    for text in ("", "a = 'b c' $HOME\n"):
        files = {"/etc/tool/tool.d/a.conf": text} if text else {}
        monkeypatch.setattr(golden, "of_components", lambda files=files: [Packages(names=["tool"], files=files)])
        roots.append(golden.golden_root())
    assert len(set(roots)) == 2
    [option] = golden.hooks()
    subprocess.run(["sh", "-c", option.removeprefix("--essential-hook="), "sh", str(tmp_path)], check=True)
    assert (tmp_path / "etc/tool/tool.d/a.conf").read_text() == text


def test_packages_of_components_are_on_the_list_of_what_nodes_fetch() -> None:
    """An operator's mirror has to offer them."""
    assert os_packages()["prometheus-node-exporter"] == "component exporter"


# -- the exporter's probe ------------------------------------------------------------------------------------------------


@pytest.fixture
def serves() -> Iterator[Callable[[str], int]]:
    """Serve a text at /metrics on 127.0.0.1 alone; return the port."""
    servers: list[ThreadingHTTPServer] = []

    def start(text: str) -> int:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200 if self.path == "/metrics" else 404)
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_: Any) -> None:
                """Nothing is logged."""

        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        Thread(target=servers[-1].serve_forever, daemon=True).start()
        return servers[-1].server_port

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


METRICS = '# HELP node_exporter_build_info A metric\nnode_exporter_build_info{version="1.5.0"} 1\nnode_load1 0.5\n'


@pytest.mark.parametrize(
    ("nodes", "text", "healthy", "words"),
    [
        (["a"], METRICS, True, "serves 2 series"),
        (["a", "b"], METRICS, True, "serves 2 series"),
        (["a", "b", "c"], METRICS, False, "serves 2 series; no response from c"),
        (["a"], METRICS.replace("node_exporter_build_info{", "other{"), None, "another program responds"),
        (["c"], METRICS, None, "does not respond"),
    ],
)
def test_the_exporter_is_asked_for_its_metrics(
    probe_files: None,
    serves: Callable[[str], int],
    nodes: list[str],
    text: str,
    healthy: bool | None,
    words: str,
) -> None:
    """It is ready where it serves its own build, healthy where all of them do."""
    facts = {
        "nodes": {"a": {"machine": "127.0.0.1"}, "b": {"machine": "localhost"}, "c": {"machine": "127.0.0.2"}},
        "services": {"node-exporter": {"component": "exporter", "nodes": nodes, "ports": {"http": serves(text)}}},
    }
    probe = load("exporter").services["node-exporter"]
    if healthy is None:
        with pytest.raises(NotReady, match=words):
            probe(Cluster(facts, nodes[0]), nodes[0])
    else:
        found, detail = probe(Cluster(facts, nodes[0]), nodes[0])
        assert found is healthy and detail.endswith(words)
