"""What the key of the start and stop scripts may ask for: exactly what the catalog tells, word for word."""

from __future__ import annotations

import re
from pathlib import Path

import jinja2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from berny.model.catalog import load_catalog
from berny.runtime.control.unit import allowed
from berny.runtime.probe import Cluster

TEMPLATES = Path(__file__).resolve().parents[2] / "roles" / "control" / "templates"
FACTS = {
    "control": {"dfs": ["hdfs-namenode", "hdfs-datanode"]},
    "nodes": {"master": {"machine": "master"}, "worker_1": {"machine": "worker-1"}},
    "services": {
        "hdfs-namenode": {"nodes": ["master"]},
        "hdfs-datanode": {"nodes": ["worker_1"]},
        "kafka": {"nodes": ["worker_1"]},
    },
}
HERE = Cluster(FACTS, "worker_1")


@pytest.mark.parametrize("verb", ["start", "stop", "status"])
def test_what_runs_here_may_be_driven(verb: str) -> None:
    assert allowed(HERE, f"{verb} hdfs-datanode") == (verb, "hdfs-datanode")


@pytest.mark.parametrize(
    "request_",
    [
        "",
        "start",
        "start kafka",
        "start hdfs-namenode",
        "restart hdfs-datanode",
        "start hdfs-datanode ",
        " start hdfs-datanode",
        "start  hdfs-datanode",
        "start hdfs-datanode\n",
        "start hdfs-datanode; id",
        "start hdfs-datanode.service",
        "start ../hdfs-datanode",
        "START hdfs-datanode",
    ],
)
def test_nothing_else_is_answered(request_: str) -> None:
    assert allowed(HERE, request_) is None


@given(st.text(max_size=60))
def test_no_text_gets_through(text: str) -> None:
    assert allowed(HERE, text) is None


def test_a_cluster_without_scripts_answers_nothing() -> None:
    """Described by an older version."""
    assert allowed(Cluster({**FACTS, "control": {}}, "worker_1"), "stop hdfs-datanode") is None


def test_scripts_drive_services_of_their_own_component() -> None:
    """Each of them, once, under names that no two components share."""
    kinds = [kind for component in load_catalog().components.values() for kind in component.control]
    assert len(kinds) == len(set(kinds)) and kinds
    for component in load_catalog().components.values():
        for order in component.control.values():
            assert len(order) == len(set(order)) and set(order) <= set(component.services)


def test_ports_of_ssh_are_those_of_the_address_that_is_connected_to() -> None:
    """A port that leads to another address belongs to whatever stands before the node."""
    inventory = {
        "own": {"ansible_host": "10.0.0.10", "ansible_port": 2200},
        "behind": {"ansible_host": "203.0.113.1", "ansible_port": 2201},
        "plain": {"ansible_host": "10.0.0.12"},
    }
    words = {
        "groups": {"all": list(inventory)}, "hostvars": inventory, "machine_names": {name: name for name in inventory},
        "node_addresses": {"own": "10.0.0.10", "behind": "10.0.0.11", "plain": "10.0.0.12"},
    }  # fmt: skip
    text = jinja2.Template((TEMPLATES / "ssh_config.j2").read_text()).render(words)
    ports = dict(re.findall(r"Host (\w+)\n.*\n +Port (\d+)", text))
    assert ports == {"own": "2200", "behind": "22", "plain": "22"}
