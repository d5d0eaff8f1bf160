"""What the firewall opens, and to whom: pure functions of the filter and of the module."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from pydantic import ValidationError

from berny.model.catalog import load_catalog
from berny.model.component import Service
from berny.model.manifest import load_pipelines
from berny.model.topology import read_mapping


@pytest.fixture
def filters(plugin: Callable[[str], ModuleType]) -> ModuleType:
    return plugin("ansible/plugins/filter/berny.py")


@pytest.fixture
def module(plugin: Callable[[str], ModuleType]) -> ModuleType:
    return plugin("ansible/plugins/modules/berny_firewall.py")


def opened(filters: ModuleType, node: str) -> dict[str, list[str]]:
    """Return what the role opens on a node of the lab's mapping."""
    catalog = load_catalog()
    facts = {
        "components": {name: component.model_dump(mode="json") for name, component in catalog.components.items()},
        "services": {name: service.model_dump(mode="json") for name, service in catalog.services.items()},
    }
    pipelines = {name: pipeline.model_dump(mode="json") for name, pipeline in load_pipelines().items()}
    found: dict[str, list[str]] = filters.open_ports(facts, pipelines, read_mapping(), node)
    return found


@pytest.mark.parametrize("node", read_mapping()["all"])
def test_cluster_nodes_reach_what_runs_on_the_node(filters: ModuleType, node: str) -> None:
    """Each port of each service and stage there, none of a service elsewhere, and the range of applications."""
    ports = opened(filters, node)["nodes"]
    for service in load_catalog().services.values():
        here = node in read_mapping()[service.group]
        assert all((str(port) in ports) is here for port in service.ports.values()), service.name
    for pipeline in load_pipelines().values():
        for stage in pipeline.stages.values():
            assert (str(stage.metrics_port) in ports) is (node in read_mapping()[stage.on])
    assert [port for port in ports if "-" in port] == [
        f"{c.ephemeral_ports[0]}-{c.ephemeral_ports[1]}"
        for c in load_catalog().components.values()
        if c.ephemeral_ports
    ]


@pytest.mark.parametrize("node", read_mapping()["all"])
def test_operators_reach_pages_alone(filters: ModuleType, node: str) -> None:
    """Nothing that takes data is a page: no broker, no database, no metadata."""
    found = opened(filters, node)
    services = load_catalog().services
    assert set(found["operators"]) <= set(found["nodes"])
    for service in services.values():
        closed = [str(port) for name, port in service.ports.items() if name not in service.pages]
        assert not set(closed) & set(found["operators"])
    assert not services["kafka"].pages and not services["zookeeper"].pages and not services["influxdb"].pages


def test_a_page_is_a_port() -> None:
    """A misspelt page would be closed without a word."""
    facts: dict[str, Any] = {"group": "g", "ports": {"web": 1}, "heap": {"small": 1, "large": 1}, "keeps": "nothing"}
    facts |= {"name": "s", "component": "c"}
    assert Service(**facts, pages=["web"]).pages == ["web"]
    with pytest.raises(ValidationError, match="pages: wbe: no such port"):
        Service(**facts, pages=["wbe"])


def test_cluster_nodes_are_addresses_each_once(filters: ModuleType) -> None:
    """A name that Ansible connects to is no address; nftables takes none twice."""
    given = ["10.0.0.10", "10.0.0.9", "vm.example", "10.0.0.10", "fd00::1"]
    assert filters.ipv4(given) == ["10.0.0.9", "10.0.0.10"]


@pytest.mark.parametrize(
    ("operators", "connected", "lines"),
    [
        ([], ("192.0.2.9", 22), ["ssh { 22 }", "operators { 192.0.2.9/32 }"]),
        (["192.0.2.0/24"], ("192.0.2.9", 2222), ["ssh { 2222 }", "operators { 192.0.2.0/24 }"]),
        (["192.0.2.7/24", "192.0.2.200"], None, ["ssh { 22 }", "operators { 192.0.2.0/24 }"]),
        (["198.51.100.1"], ("2001:db8::1", 22), ["ssh { 22 }", "operators { 198.51.100.1/32 }",
                                                 "operators6 { 2001:db8::1/128 }"]),
    ],
)  # fmt: skip
def test_operators(
    module: ModuleType, operators: list[str], connected: tuple[str, int] | None, lines: list[str]
) -> None:
    """Who is connected is always one; what overlaps is one."""
    assert module.elements(operators, connected).splitlines() == [f"add element inet berny {line}" for line in lines]


def test_nobody_locks_everybody_out(module: ModuleType) -> None:
    """Rules that let nobody in are not even tried."""
    with pytest.raises(ValueError, match="nobody could reach SSH"):
        module.elements([], None)
    with pytest.raises(ValueError, match=r"'192\.0\.2\.300' does not appear to be"):
        module.elements(["192.0.2.300"], ("192.0.2.9", 22))


def test_the_connection_is_found_above_sudo(checkout: Path) -> None:
    """sudo takes the variable away; a parent of its still has it."""
    program = "import importlib.util as u, sys; s = u.spec_from_file_location('m', sys.argv[1]);"
    program += " m = u.module_from_spec(s); s.loader.exec_module(m); print(m.peer())"
    file = str(checkout / "ansible" / "plugins" / "modules" / "berny_firewall.py")
    inner = f'env -u SSH_CONNECTION "{sys.executable}" -c "$1" "$2"; true'
    words = ["sh", "-c", inner, "sh", program, file]
    for told, found in (
        ("192.0.2.9 50000 10.0.0.10 2222", "('192.0.2.9', 2222)"),
        ("fe80::1%eth0 5 fe80::2 22", "fe80::1'"),
    ):
        said = subprocess.check_output(words, env={"SSH_CONNECTION": told, "PATH": "/usr/bin:/bin"}, text=True)
        assert found in said


RULES = """table inet berny
delete table inet berny
table inet berny {
    set nodes { type ipv4_addr; elements = { 10.0.0.2, 10.0.0.1 } }
    chain input { type filter hook input priority filter; policy drop; ip saddr @nodes tcp dport { 9866, 22 } accept; }
}
"""
# In a network of its own: rules are loaded, taken away in each way, and asked for at once and after the watch has looked.
WATCHING = """
nft -f rules.nft
sh watch.sh check
sh watch.sh > log 2> /dev/null &
watch=$!
for change in "flush ruleset" "flush set inet berny nodes" "insert rule inet berny input accept"; do
    kill -STOP $watch
    nft $change
    sh watch.sh check || echo wrong
    kill -CONT $watch
    for _ in $(seq 50); do
        ! sh watch.sh check > /dev/null 2>&1 || break
        sleep 0.2
    done
    sh watch.sh check
done
kill $watch
cat log
"""


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("nft"), reason="only root loads rules, by nft")
def test_rules_that_are_taken_away_are_loaded_again(checkout: Path, tmp_path: Path) -> None:
    """The watch, with the kernel's own nftables: flushed, emptied or opened by another program."""
    text = (checkout / "roles" / "firewall" / "templates" / "watch.sh.j2").read_text()
    assert "{{" not in text and "folder=/etc/berny/firewall\n" in text
    (tmp_path / "watch.sh").write_text(text.replace("folder=/etc/berny/firewall\n", f"folder={tmp_path}\n"))
    (tmp_path / "rules.nft").write_text(RULES)
    done = subprocess.run(
        ["unshare", "--net", "sh", "-c", WATCHING], cwd=tmp_path, stdout=subprocess.PIPE, text=True, timeout=60
    )
    open_, other = (
        "the table inet berny is not loaded: every port is open",
        f"the table inet berny differs from {tmp_path}",
    )
    said = done.stdout.splitlines()
    assert said[:10] == [
        "its rules are loaded",
        open_, "wrong", "its rules are loaded",
        f"{other}/rules.nft", "wrong", "its rules are loaded",
        f"{other}/rules.nft", "wrong", "its rules are loaded",
    ], done.stdout  # fmt: skip
    assert said[10:] == [f"the table inet berny differed from {tmp_path}/rules.nft: loaded it again"] * 3
