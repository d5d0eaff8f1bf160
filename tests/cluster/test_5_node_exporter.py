"""A component of packages on the cluster: its metrics, Debian's own unit masked, and no change in a second play."""

from __future__ import annotations

import json
import re

import pytest

from berny.model.catalog import load_catalog
from support import Cluster, play

UNIT = "node-exporter"
COMPONENT = load_catalog().components["exporter"]
PORT = COMPONENT.services[UNIT].ports["http"]
ASK = "/usr/bin/python3 -c 'import sys, urllib.request as u; print(u.urlopen(sys.argv[1], timeout=5).read().decode())'"


def metrics(cluster: Cluster, node: str, asked_from: str) -> str:
    """Return what a node's exporter serves, asked from another node by the machine's name."""
    return cluster.sh(asked_from, f"{ASK} http://{cluster.lab.plan.nodes[node].machine}:{PORT}/metrics")


def state(cluster: Cluster, node: str, unit: str) -> dict[str, str]:
    """Return what systemd knows of a unit."""
    names = "LoadState,ActiveState,UnitFileState,ActiveEnterTimestampMonotonic"
    said = cluster.sh(node, f"systemctl show --property={names} {unit}")
    return dict(line.split("=", 1) for line in said.splitlines())


def test_every_node_serves_its_metrics_to_the_others(cluster: Cluster) -> None:
    """Every collector works below the unit's hardening, and the figures are the node's own."""
    nodes = cluster.groups["node_exporter"]
    assert set(nodes) == set(cluster.groups["all"])
    for node, other in zip(nodes, [*nodes[1:], nodes[0]], strict=True):
        text = metrics(cluster, node, other)
        assert f'version="{COMPONENT.version}"' in text, node
        failed = re.findall(r'^node_scrape_collector_success\{collector="(\w+)"\} 0$', text, re.M)
        assert not failed, (node, failed)
        assert f'nodename="{cluster.lab.plan.nodes[node].machine}"' in text, node
        disks = set(re.findall(r'^node_filesystem_size_bytes\{.*mountpoint="(/data/[^"]+)"', text, re.M))
        assert disks == {f"/data/{disk.service}" for disk in cluster.lab.plan.disks if disk.node == node}, node


def test_it_listens_on_the_nodes_address_alone(cluster: Cluster) -> None:
    for node, said in cluster.each(f"ss -Hltn sport = :{PORT}").items():
        assert [line.split()[3] for line in said.splitlines()] == [f"{cluster.lab.plan.nodes[node].address}:{PORT}"]


def test_debians_own_unit_is_masked_and_never_ran(cluster: Cluster) -> None:
    assert COMPONENT.packages
    for own in COMPONENT.packages.masks:
        for node in cluster.groups["node_exporter"]:
            found = state(cluster, node, own)
            assert (found["LoadState"], found["ActiveEnterTimestampMonotonic"]) == ("masked", "0"), (node, own)
        for node, said in cluster.each(f"cat /var/lib/berny/installed/{UNIT}.json").items():
            assert json.loads(said)["masks"].keys() == {own}, node


def test_what_there_is_to_scrape_is_on_every_node(cluster: Cluster) -> None:
    for said in cluster.each("cat /etc/berny/cluster.json").values():
        facts = json.loads(said)["metrics"]
        assert facts[UNIT] == {"nodes": sorted(cluster.groups["node_exporter"]), "port": PORT, "path": "/metrics"}
        assert all(unit in cluster.units() for unit in facts)


def test_a_second_play_changes_nothing(cluster: Cluster) -> None:
    before = cluster.processes()
    again = play("site.yml", "--tags", "node,exporter")
    assert again.recap("changed") == 0, again.tail
    assert cluster.processes() == before


@pytest.mark.second_tier
def test_another_build_of_the_package_is_another_start(cluster: Cluster) -> None:
    """dpkg's digests of one node's package differ: that node's exporter is restarted, no other."""
    node, file = "worker_0", "/var/lib/dpkg/info/prometheus-node-exporter.md5sums"
    cluster.sh(node, f"sudo cp -p {file} /root/md5sums && echo x | sudo tee -a {file}")
    before = cluster.processes()
    try:
        play("site.yml", "--tags", "exporter")
        after = cluster.processes()
        assert {key for key in before if before[key] != after[key]} == {(node, UNIT)}
    finally:
        cluster.sh(node, f"sudo mv /root/md5sums {file}")
        play("site.yml", "--tags", "exporter")


@pytest.mark.second_tier
def test_a_reset_unmasks_it_and_a_play_masks_it_again(cluster: Cluster) -> None:
    """On one node: nothing of ours stays but the package, and Debian's unit is off, as it was."""
    node, own = "worker_0", "prometheus-node-exporter.service"
    before = cluster.processes()
    play("playbooks/reset.yml", "-e", "component=exporter", "--limit", node)
    try:
        assert set(before) - set(cluster.processes()) == {(node, UNIT)}
        found = state(cluster, node, own)
        assert [found[key] for key in ("LoadState", "UnitFileState", "ActiveState")] == [
            "loaded",
            "disabled",
            "inactive",
        ]
        paths = f"/etc/berny/{UNIT} /etc/systemd/system/{UNIT}.service /var/lib/berny/installed/{UNIT}.json"
        assert cluster.sh(node, f"ls -d {paths}", ok=False) == ""
        # A person's own: it is told before it is in the way.
        cluster.sh(node, f"sudo systemctl start {own}")
        told = play("playbooks/preflight.yml", ok=False)
        assert told.code != 0 and f"{node}: port {PORT} of {UNIT} is taken by {own}" in told.output, told.tail
    finally:
        cluster.sh(node, f"sudo systemctl stop {own}")
        play("site.yml", "--tags", "exporter")
    assert state(cluster, node, own)["LoadState"] == "masked"
    cluster.sh(node, f"sudo berny-probe {UNIT} --wait 60 --want healthy")
