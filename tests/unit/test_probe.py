"""Probes: each component's are in a file of its own, and one that is broken breaks no other."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY, start_http_server

from berny.model.catalog import load_catalog
from berny.runtime.probe import Cluster, NotReady, __main__
from berny.runtime.probe import ask as asking
from berny.runtime.probe.ask import ask, ask_component
from berny.runtime.probe.load import PACKAGE, load
from berny.runtime.stage import READY, expect, waits_for

ONE = """
def first(cluster, node):
    return True, f"first on {node}"


def second(cluster, node):
    return False, f"second on {node}"


SERVICES = {"b-first": first, "a-second": second}
"""
COMPONENT = """
from berny.runtime.probe import NotReady


def component(cluster, node):
    if node != "m":
        raise NotReady(f"{node} is away")
    return True, f"all, by {node}"


def resources(cluster, pipeline):
    return [f"the thing {name} does not exist" for name in pipeline["things"]]
"""

Write = Callable[..., None]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Return a writer of probe files, by the names of components."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / PACKAGE).mkdir()

    def write(**files: str) -> None:
        for name, text in files.items():
            (tmp_path / PACKAGE / f"{name}.py").write_text(text)
        importlib.invalidate_caches()

    yield write
    for name in [name for name in sys.modules if name.startswith(f"{PACKAGE}.")]:
        del sys.modules[name]


def cluster(*components: str, here: str = "n", stage: dict[str, Any] | None = None) -> Cluster:
    """Return a cluster of two nodes, each component with one service on either; facts are sorted, as on nodes."""
    services = {
        service: {"component": component, "version": "1", "nodes": nodes, "ports": {}}
        for component in components
        for service, nodes in (("a-second", ["m"]), ("b-first", ["n"]))
    }
    pipeline = {"name": "p", "things": ["x"], "stages": {"s": stage} if stage else {}}
    nodes = {"n": {"machine": "127.0.0.1"}, "m": {"machine": "127.0.0.2"}}
    return Cluster({"services": services, "nodes": nodes, "pipelines": {"p": pipeline}}, here)


def test_instance_and_component(write: Write) -> None:
    """A service is asked where it runs, a component by its own probe, on the first node that says that it serves."""
    write(tool=ONE + COMPONENT)
    asked = ask(cluster("tool"), "b-first")
    assert (asked.ready, asked.healthy, asked.detail, asked.instance) == (True, True, "first on n", True)
    asked = ask(cluster("tool"), "a-second")
    assert (asked.node, asked.healthy, asked.detail, asked.instance) == ("m", False, "second on m", False)
    for health in (ask(cluster("tool"), "tool"), ask_component(cluster("tool", here="m"), "tool")):
        assert (health.ready, health.healthy, health.detail, health.node) == (True, True, "all, by m", "m")


def test_component_without_a_probe_of_its_own_is_its_first_service(write: Write) -> None:
    """The first of the file, where that one runs: not the first by the alphabet."""
    write(tool=ONE)
    for health in (ask(cluster("tool", here="m"), "tool"), ask_component(cluster("tool", here="m"), "tool")):
        assert (health.ready, health.healthy, health.detail, health.node) == (True, True, "first on n", "n")


@pytest.mark.parametrize("name", ["a-third", "tool2"])
def test_what_nobody_knows(write: Write, name: str) -> None:
    """A misspelt name is no service that is down."""
    write(tool=ONE)
    for question in (ask, ask_component):
        with pytest.raises(KeyError):
            question(cluster("tool"), name)
    with pytest.raises(KeyError):
        ask_component(cluster("tool"), "b-first")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("def first(:\n", "SyntaxError"),
        ("import nothing_of_that_name\n", "No module named 'nothing_of_that_name'"),
        ("1 / 0\n", "ZeroDivisionError: division by zero"),
        ("PROBES = {}\n", "AttributeError"),
        ("SERVICES = {}\n", "SERVICES is empty"),
        (None, f"other has no probe: the module {PACKAGE}.other is missing"),
        ("SERVICES = {'b-frist': print}\n", "the probe file of other has no service b-first"),
        ("SERVICES = {'b-first': lambda cluster, node: {}['x']}\n", "KeyError: 'x'"),
    ],
)
def test_broken_file_is_the_health_of_its_component_alone(write: Write, text: str | None, told: str) -> None:
    """Whatever is wrong in it; what is asked beside it is answered."""
    write(tool=ONE, **({"other": text} if text is not None else {}))
    there = cluster("tool")
    there.facts["services"]["b-first"] = there.facts["services"]["b-first"] | {"component": "other"}
    broken, other = ask(there, "b-first"), ask(there, "a-second")
    assert (broken.ready, broken.healthy) == (False, False) and told in broken.detail
    assert other.ready and other.detail == "second on m"
    if "b-first" not in told:
        assert not ask_component(there, "other").ready


def test_only_what_is_asked_for_is_imported(write: Write) -> None:
    """A node that runs two services does not read the files of all."""
    write(tool=ONE, unasked=ONE)
    ask(cluster("tool"), "b-first")
    assert f"{PACKAGE}.tool" in sys.modules and f"{PACKAGE}.unasked" not in sys.modules


def test_missing_resources_of_a_stage(write: Write) -> None:
    """Of each component that it needs, those are asked that keep something of pipelines; a broken one hides no other."""
    write(tool=ONE + COMPONENT, plain=ONE, other="1 / 0\n", wrong=ONE + "def resources(*words):\n    return {}['x']\n")
    server, thread = start_http_server(0, addr="127.0.0.1")
    needs = ["other", "wrong", "plain", "tool"]
    stage = {"nodes": ["n"], "unit": "berny-p-s", "kind": "stream", "metrics_port": server.server_port, "needs": needs}
    before = REGISTRY.get_sample_value("berny_ready")
    try:
        READY.set(1)
        health = ask(cluster("tool", here="m", stage=stage), "berny-p-s")
    finally:
        READY.set(before or 0)
        server.shutdown()
        thread.join()
        server.server_close()
    assert (health.ready, health.healthy) == (True, False)
    assert "the thing x does not exist; site.yml creates it" in health.detail
    assert "the probe of other can't be loaded: ZeroDivisionError" in health.detail
    assert "wrong: KeyError: 'x'" in health.detail
    assert "plain" not in health.detail


def test_stage_that_waits() -> None:
    """What it waits for is said where it is not ready."""
    server, thread = start_http_server(0, addr="127.0.0.1")
    stage = {"nodes": ["n"], "unit": "berny-p-s", "kind": "stream", "metrics_port": server.server_port, "needs": []}
    before = REGISTRY.get_sample_value("berny_ready")
    try:
        READY.set(0)
        # Work that an earlier test has announced is not overdue here.
        expect(3600)
        waits_for("task slots: 2 of 3")
        health = ask(cluster("tool", here="m", stage=stage), "berny-p-s")
    finally:
        READY.set(before or 0)
        waits_for("")
        server.shutdown()
        thread.join()
        server.server_close()
    assert (health.ready, health.detail) == (False, "not ready yet; waits for task slots: 2 of 3")


def test_stage_that_a_person_has_stopped(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is shown with the command that starts it, and fails the check only if it is named."""
    stage = {"nodes": ["n"], "unit": "berny-p-s", "kind": "stream", "metrics_port": 9, "needs": []}
    monkeypatch.setattr(asking, "CONFIGURATION", tmp_path)
    monkeypatch.setattr(Cluster, "load", classmethod(lambda _: cluster(stage=stage)))
    monkeypatch.setattr(__main__, "names_here", lambda _: ["berny-p-s"])
    codes = []
    for words in (["--all"], ["berny-p-s"]):
        for file in (None, tmp_path / "berny-p-s" / "stopped"):
            if file:
                file.parent.mkdir(exist_ok=True)
                file.touch()
            monkeypatch.setattr(sys, "argv", ["berny-probe", *words])
            codes.append(__main__.main())
            told = capsys.readouterr().out
            assert ("STOPPED" in told and "-e pipeline=p -e do=start" in told) is bool(file), told
        (tmp_path / "berny-p-s" / "stopped").unlink()
    assert codes == [1, 0, 1, 1]


def test_probe_of_a_component_that_is_away(probe_files: None) -> None:
    """Each real probe, asked where nobody listens: host and port are named, and nothing else goes wrong."""
    for name, component in load_catalog().components.items():
        services = {
            service: {"component": name, "version": "1", "nodes": ["n"], "ports": dict.fromkeys(facts.ports, 9)}
            for service, facts in component.services.items()
        }
        there = Cluster({"services": services, "nodes": {"n": {"machine": "127.0.0.1"}}, "pipelines": {}}, "n")
        for probe in (*load(name).services.values(), load(name).component):
            if probe:
                with pytest.raises(NotReady, match=r"127\.0\.0\.1:9"):
                    probe(there, "n")


def test_the_core_names_no_component(checkout: Path) -> None:
    """What asks, and what starts and stops, finds components in the cluster's facts."""
    catalog = load_catalog()
    names = {*catalog.components, *catalog.services, *(kind for c in catalog.components.values() for kind in c.control)}
    for folder in ("probe", "control"):
        for file in (checkout / "src" / "berny" / "runtime" / folder).glob("*.py"):
            assert not names & set(re.findall(r"[a-z][a-z0-9-]+", file.read_text().lower())), file


def test_probe_files_import_what_nodes_have(checkout: Path) -> None:
    """A node has neither the controller's code nor another component's file."""
    for file in checkout.glob("roles/*/probe.py"):
        found = re.findall(r"^ *(?:from|import) (berny[\w.]*)", file.read_text(), re.M)
        assert set(found) <= {"berny.runtime.probe"}, file
