"""A copy of the checkout with a toy component and a toy pipeline, no file of the core changed: what needs no machine."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from scratch import FOLDERS, INVENTORY, LINES, NODE, Scratch

import support

pytestmark = pytest.mark.quick

LAB = "toys"


@pytest.fixture(scope="module")
def state(scratch: Scratch, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment variables of a state folder with a lab that runs both pipelines, and is not up."""
    folder = tmp_path_factory.mktemp("state")
    variables = {"XDG_STATE_HOME": str(folder), "XDG_CACHE_HOME": str(folder / "cache"), "BERNY_LAB": LAB}
    code = """
import ipaddress, json, sys, yaml
from berny.lab.plan import Plan
plan = Plan(sys.argv[1], ipaddress.IPv4Network("10.180.9.0/24"), ("idfm", "toy"))
plan.folder.mkdir(parents=True)
(plan.folder / "lab.yml").write_text(yaml.safe_dump(plan.describe()))
print(json.dumps(plan.describe()))
"""
    described = scratch.python(code, LAB, **variables)
    assert described["pipelines"] == ["idfm", "toy"]
    assert described["simulations"]["toy"]["url"] == "http://10.180.9.5:8098"
    return variables


def test_no_file_of_the_core_is_changed(scratch: Scratch) -> None:
    """But for the lines in the inventory, there are the toys' folders and nothing else."""
    changed = scratch.git("status", "--porcelain", "-uall").splitlines()
    assert f" M {INVENTORY}" in changed
    others = [line for line in changed if line != f" M {INVENTORY}"]
    assert others and not [line for line in others if not re.match(rf"\?\? ({'|'.join(FOLDERS.values())})/", line)]
    diff = scratch.git("diff", "-U0", INVENTORY).splitlines()[5:]
    assert diff == [f"+{line}" for line in LINES.splitlines()]


def test_the_catalog_and_the_manifests_are_valid(scratch: Scratch) -> None:
    code = """
import json
from berny.controller.mapping import mapping_table
from berny.controller.placement import clashes, need
from berny.controller.settings import load_settings
from berny.model.catalog import ROLES, load_catalog
from berny.model.manifest import load_pipelines
from berny.model.topology import read_mapping, selection_problems
catalog, pipelines, groups = load_catalog(), load_pipelines(), read_mapping()
toy = pipelines["toy"]
settings = load_settings(ROLES, ROLES.parent / "ansible" / "settings.yml")
without = {name: nodes for name, nodes in groups.items() if name != "shelf"}
print(json.dumps({
    "roles": str(ROLES),
    "problems": [*selection_problems(catalog, groups, list(pipelines)), *clashes(catalog, pipelines, groups)],
    "unselected": list(selection_problems(catalog, without, list(pipelines))),
    "needs": {name: stage.needs for name, stage in toy.stages.items()},
    "resources": {kind: list(named) for kind, named in toy.resources.items()},
    "settings": sorted(name for name in settings if name.startswith("shelf_")),
    "disks": need(catalog, pipelines, groups, "worker_0", "small", {}).disks,
    "table": mapping_table(),
}))
"""
    found = scratch.python(code)
    assert found["roles"] == str(scratch.path / "roles")
    assert found["problems"] == []
    assert found["unselected"] == [
        "the pipeline toy requires shelf, which no node runs: put nodes into its groups (shelf)"
    ]
    assert found["needs"]["keeper"] == ["kafka", "shelf"]
    assert {*found["needs"]["collector"]} == {"hdfs", "kafka"}
    assert found["resources"] == {
        "topics": ["toy-items", "toy-items.dlq"],
        "hdfs": ["/data/toy/raw"],
        "shelves": ["toy_latest"],
    }
    assert found["settings"] == ["shelf_busy_seconds", "shelf_log_level"]
    assert found["disks"].items() >= {"/data/shelf": 1, "/data/berny-toy": 1}.items()
    row = next(line for line in found["table"].splitlines() if line.startswith(f"| {NODE} |"))
    assert "Shelf (`shelf`)" in row and "Items of a toy (`berny-toy-collector`)" in row


@pytest.mark.parametrize(
    ("file", "old", "new", "told"),
    [
        ("roles/shelf/component.yml", "port: http", "port: https", "there is no port https of shelf"),
        ("roles/shelf/component.yml", "http: 7600", "http: 0", "services.shelf.ports.http"),
        ("src/berny/pipelines/toy/pipeline.yml", "colour: blue", "color: blue", "toy_latest.color: unknown"),
        ("src/berny/pipelines/toy/pipeline.yml", "writes: toy_latest", "writes: toy", "'toy' is no resource"),
    ],
)
def test_a_mistake_is_reported_with_file_and_key(scratch: Scratch, file: str, old: str, new: str, told: str) -> None:
    path = scratch.path / file
    text = path.read_text()
    path.write_text(text.replace(old, new, 1))
    code = """
import json
from berny.model.catalog import CatalogError
from berny.model.manifest import load_pipelines
try:
    load_pipelines()
except CatalogError as error:
    print(json.dumps(str(error)))
"""
    try:
        said = scratch.python(code)
    finally:
        path.write_text(text)
    assert said.startswith(str(path)) and told in said, said


def test_plays_get_the_facts(scratch: Scratch, state: dict[str, str]) -> None:
    facts = str(Path(__file__).with_name("facts.yml"))
    command = support.ansible(facts, "-e", f"playbook_roles={scratch.path / 'roles'}")
    done = support.on_controller(command, checkout=scratch.path, **state)
    assert done.returncode == 0, done.stdout


def test_archives_follow_from_the_folders(scratch: Scratch, state: dict[str, str]) -> None:
    """An archive for each pipeline: a change to one leaves the others as they are."""
    code = """
import json
from berny.controller.artifacts import Store, ways
from berny.controller.artifacts.recipes import PIPELINES, load_recipes
own = ("berny", "berny-idfm", "berny-toy")
def keys():
    return {name: ways.key(load_recipes()[name]) for name in own}
before = keys()
keeper = PIPELINES / "toy" / "keeper.py"
text = keeper.read_text()
try:
    keeper.write_text(text + "# Another.\\n")
    after = keys()
finally:
    keeper.write_text(text)
archive = Store().resolve("berny-toy")
print(json.dumps({
    "changed": [name for name in own if before[name] != after[name]],
    "archive": [archive.name, archive.path.exists()],
    "toy": sorted(ways.own_code("toy")),
    "berny": [name for name in ways.own_code() if "shelf" in name or "toy" in name],
}))
"""
    found = scratch.python(code, **state)
    assert found["changed"] == ["berny-toy"]
    assert found["archive"] == ["berny-toy", True]
    files = ("__init__.py", "collector.py", "harness.py", "keeper.py", "pipeline.yml", "source.py")
    assert found["toy"] == [f"python/berny/pipelines/toy/{name}" for name in files]
    assert found["berny"] == ["python/berny_probes/shelf.py"]


def test_a_lab_has_disks_and_a_simulator(scratch: Scratch, state: dict[str, str]) -> None:
    code = """
import json, sys
from berny.controller.placement import spools
from berny.lab import harness
from berny.lab.lab import Lab
from berny.model.manifest import load_pipelines
from berny.model.topology import read_mapping
lab = Lab.existing(sys.argv[1])
print(json.dumps({
    "disks": sorted(disk.service for disk in lab.machines["worker_0"].disks),
    "simulators": {name: one.url for name, one in lab.simulators.items()},
    "asked": harness.node(lab, "toy"),
    "spools": sum(spools(load_pipelines()["toy"], read_mapping()).values(), []),
}))
"""
    found = scratch.python(code, LAB, **state)
    assert {"shelf", "berny-toy"} <= {*found["disks"]}
    assert found["simulators"] == {"idfm": "http://10.180.9.5:8099", "toy": "http://10.180.9.5:8098"}
    assert (found["asked"], found["spools"]) == (NODE, [NODE])


def test_fault_cases_follow(scratch: Scratch, state: dict[str, str]) -> None:
    listed = {line.split(":")[0] for line in scratch.berny("faults", "list", "--name", LAB, **state).splitlines()}
    expected = {
        f"{does}-{unit}" for does in ("kill", "freeze") for unit in (f"shelf-{NODE}", "berny-toy-keeper-worker_2")
    }
    expected |= {f"kill-berny-toy-collector-{NODE}", f"full-berny-toy-{NODE}"}
    # Of its faults.py, and of its simulation.
    expected |= {"rolling-shelf", f"full-shelf-{NODE}", "source-500", "source-bad_parts"}
    assert expected <= listed, expected - listed
    assert not [name for name in support.berny("faults", "list", **state).split() if "toy" in name or "shelf" in name]


def test_a_lab_without_its_pipeline_does_not_run_the_component(scratch: Scratch, state: dict[str, str]) -> None:
    """It is on demand: neither plays nor the lab nor the fault bench know it there; its disk is there for later."""
    code = """
import json, sys, yaml
from dataclasses import replace
from berny.faults.cases import fault_cases
from berny.faults.targets import targets_of
from berny.lab.plan import load_plan
plan = replace(load_plan(sys.argv[1]), pipelines=("idfm",))
folder = plan.folder.parents[2] / "without" / "berny" / "labs" / plan.name
folder.mkdir(parents=True)
(folder / "lab.yml").write_text(yaml.safe_dump(plan.describe()))
print(json.dumps({
    "state": str(folder.parents[2]),
    "groups": [plan.groups["shelf"], plan.groups["all"]],
    "disk": "shelf" in {disk.service for disk in plan.disks},
    "cases": [name for name in fault_cases(targets_of(plan)) if "shelf" in name],
    "everything": replace(plan, everything=True).groups["shelf"],
}))
"""
    found = scratch.python(code, LAB, **state)
    assert found["groups"] == [[], ["master", "worker_0", "worker_1", "worker_2"]]
    assert found["disk"] and found["cases"] == [] and found["everything"] == [NODE]
    listing = [str(Path(sys.executable).with_name("ansible-inventory")), "-i", "inventory/lab", "--list"]
    for folder, nodes in ((found["state"], []), (state["XDG_STATE_HOME"], [NODE])):
        done = support.on_controller(listing, checkout=scratch.path, **state | {"XDG_STATE_HOME": folder})
        assert done.returncode == 0, done.stdout
        listed = json.loads(done.stdout)
        assert listed.get("shelf", {}).get("hosts", []) == nodes
        assert ("shelf" in listed["_meta"]["hostvars"][NODE]["catalog"]["components"]) is bool(nodes)


def test_its_simulator_is_a_command(scratch: Scratch) -> None:
    assert "Items with a number." in scratch.berny("simulate", "toy", "--help")


@pytest.mark.parametrize("check", ["imports", pytest.param("mypy", marks=pytest.mark.second_tier)])
def test_checks_of_imports_and_types_take_the_toys_in(scratch: Scratch, check: str) -> None:
    (scratch.path / ".venv").symlink_to(Path(sys.prefix))
    try:
        done = support.on_controller(["tests/lint", check], checkout=scratch.path)
    finally:
        (scratch.path / ".venv").unlink()
    assert done.returncode == 0, done.stdout


# -- the toys themselves, on this host ---------------------------------------------------------------------------------


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def ask(url: str, method: str = "GET", body: Any = None, token: str = "") -> Any:
    """Return the JSON that a server responds with."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Authorization": f"Bearer {token}"}, method=method)
    with urllib.request.urlopen(request, timeout=10) as response:
        return json.loads(response.read())


@pytest.fixture
def served(scratch: Scratch, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], str, str]]:
    """The component's server and the pipeline's simulator, as processes: the first, and the addresses of both."""
    template = (scratch.path / "roles/shelf/templates/shelf.py.j2").read_text()
    (tmp_path / "shelf.py").write_text(template.replace("{{ ansible_managed }}", ""))
    (tmp_path / "admin.token").write_text("admin\n")
    shelf, source = free_port(), free_port()
    server = [sys.executable, "shelf.py", "--listen", "127.0.0.1", "--port", str(shelf), "--data", "."]
    simulator = [sys.executable, "-m", "berny.cli", "simulate", "toy", "--port", str(source), "--rate", "50"]
    commands = ([*server, "--admin", "admin.token"], [*simulator, "--truth", "truth.jsonl", "--run", "here"])
    environment = support.environment(scratch.path)
    processes = [subprocess.Popen(command, cwd=tmp_path, env=environment) for command in commands]
    urls = [f"http://127.0.0.1:{port}" for port in (shelf, source)]
    try:
        for url, path in zip(urls, ("/health", "/_simulator/stats"), strict=True):
            support.wait_until(lambda url=url, path=path: _responds(url + path), 30, f"{url} does not respond")
        yield processes[0], urls[0], urls[1]
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _responds(url: str) -> bool:
    with suppress(OSError):
        ask(url)
        return True
    return False


FLOW = """
import json, sys, time
from pathlib import Path
from types import SimpleNamespace
from berny.pipelines.toy import harness, keeper, source
from berny.runtime import check, response
from berny.runtime.probe import Cluster
from berny.runtime.spool import Answer
sys.path.append(sys.argv[4])
from berny.runtime.probe.load import load
shelf, items, token = sys.argv[1:4]
settings = SimpleNamespace(shelf_url=shelf, shelf_name="toy_latest", shelf_token=token, shelf_id="id")
sink, client, bodies, letters = keeper.ShelfSink(settings), source.Items(items, "key"), [], 0
for number in range(4):
    time.sleep(0.3)
    bodies.append(client.poll())
    records = response.records(Answer(number, time.time(), bodies[-1]), "toy-items", "toy", "simulated", source.observations)
    letters += sum(1 for identity, _ in records if not identity)
    sink.write([keeper.item(json.loads(record.value)) for identity, record in records if identity])
sink.check()
host, port = shelf.removeprefix("http://").split(":")
service = {"component": "shelf", "version": "1", "nodes": ["here"], "ports": {"http": int(port)}}
cluster = Cluster({"nodes": {"here": {"machine": host}}, "services": {"shelf": service}}, "here")
truth = check.read_truth(Path(sys.argv[5]).open(), harness.expected, ["here"])
report = check.check_sink("shelf", harness.shelved(cluster, 0), truth.expected, truth.served)
probes = load("shelf")
print(json.dumps({
    "expected": len(truth.expected), "clean": report.clean, "report": str(report), "letters": letters,
    "kept": truth.expected.keys() <= {one for body in bodies for one in harness.identities(body)},
    "newest": harness.newest(cluster, time.time() - 60), "none": harness.newest(cluster, time.time() + 60),
    "health": probes.services["shelf"](cluster, "here"),
    "lacking": probes.resources(cluster, {"resources": {"shelves": {"toy_latest": {}, "other": {}}}}),
}))
"""


def test_the_toys_work(scratch: Scratch, tmp_path: Path, served: tuple[subprocess.Popen[bytes], str, str]) -> None:
    """Role's server and module, probe, source, sink, harness and simulator against each other, without a cluster."""
    _, shelf, items = served
    module = {
        "url": shelf,
        "token": "admin",
        "shelves": {"toy_latest": {"keep": "1d", "colour": "blue", "pipeline": "toy"}},
    }
    first, again = run_module(scratch, module), run_module(scratch, module)
    assert first["changed"] and not again["changed"] and first["granted"] == again["granted"]
    token = first["granted"]["toy"]["SHELF_TOKEN"]
    ask(f"{items}/_simulator/faults", "POST", {"kind": "bad_parts", "count": 1})
    (tmp_path / "probes" / "berny_probes").mkdir(parents=True)
    (tmp_path / "probes" / "berny_probes" / "shelf.py").symlink_to(scratch.path / "roles/shelf/probe.py")
    found = scratch.python(FLOW, shelf, items, token, str(tmp_path / "probes"), str(tmp_path / "truth.jsonl"))
    assert found["clean"] and found["kept"] and found["expected"] > 20 and found["letters"] == 2, found
    assert time.time() - found["newest"] < 60 and found["none"] is None
    assert found["health"][0] and "1 shelves" in found["health"][1]
    assert found["lacking"] == ["the shelf other does not exist"]
    with pytest.raises(urllib.error.HTTPError, match="403"):
        ask(f"{shelf}/shelves/toy_latest/key", "PUT", 1, "another")
    assert run_module(scratch, module | {"state": "absent"})["changed"]
    assert not run_module(scratch, module | {"state": "absent"})["changed"]
    assert ask(f"{shelf}/shelves") == {}


def test_an_item_outlives_the_server(tmp_path: Path, served: tuple[subprocess.Popen[bytes], str, str]) -> None:
    process, shelf, _ = served
    ask(f"{shelf}/shelves/one", "PUT", {"keep": 60, "colour": "red"}, "admin")
    token = ask(f"{shelf}/shelves", token="admin")["one"]["token"]
    ask(f"{shelf}/shelves/one/key", "PUT", {"a": 1}, token)
    process.kill()
    process.wait()
    again = subprocess.Popen(process.args, cwd=tmp_path)
    try:
        support.wait_until(lambda: _responds(f"{shelf}/health"), 30, "it does not respond")
        assert ask(f"{shelf}/shelves/one/key") == {"a": 1}
    finally:
        again.kill()
        again.wait()


def run_module(scratch: Scratch, words: dict[str, Any]) -> dict[str, Any]:
    """Run the role's module as Ansible does, with its arguments on standard input; return its result."""
    module = scratch.path / "roles/shelf/library/shelf_shelves.py"
    done = subprocess.run(
        [sys.executable, str(module)],
        input=json.dumps({"ANSIBLE_MODULE_ARGS": words}),
        env=support.environment(scratch.path),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return dict(json.loads(done.stdout))
