"""The inventory for virtual machines, with a lab's machines in it: the README's "Four VMs in five lines"."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import yaml

from berny.model.topology import CHECKOUT
from support import Cluster, play


def edit(file: Path, **values: str) -> None:
    """Set values where the file has them, as a person does with an editor."""
    text = file.read_text()
    for name, value in values.items():
        text, count = re.subn(rf"(?m)(\b{name}:) [^ }}\n]+", rf"\1 {value}", text)
        assert count == 1, f"{file.name} has {count} times {name}"
    file.write_text(text)


@pytest.fixture
def production(cluster: Cluster, tmp_path: Path) -> Path:
    """A copy of the inventory for the lab's machines, known by names: they have to say by which address others reach them."""
    plan, inventory = cluster.lab.plan, tmp_path / "production"
    shutil.copytree(CHECKOUT / "inventory" / "azure", inventory)
    shutil.copy(plan.folder / "secrets.yml", inventory)
    hosts = inventory / "hosts.yml"
    for node in plan.nodes.values():
        line = re.compile(rf"(?m)^(    {node.name}: {{ansible_host:) [^}}]+")
        assert len(line.findall(hosts.read_text())) == 1
        hosts.write_text(line.sub(rf"\1 {node.machine}", hosts.read_text()))
    settings = inventory / "group_vars" / "all.yml"
    edit(settings, ansible_user="berny", node_size="small", cluster_name=plan.name)
    own = {
        "ansible_ssh_common_args": f"-F {plan.folder / 'ssh_config'}",
        "pipeline_environment": {name: one["settings"] for name, one in plan.describe()["simulations"].items()},
    }
    settings.write_text(settings.read_text() + yaml.safe_dump(own))
    return inventory


@pytest.mark.second_tier
def test_four_vms_in_five_lines(cluster: Cluster, production: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the same cluster: what was down is started, and nothing that runs has to be restarted.

    The machines are asked for their addresses, and what they say is kept for plays that leave some of them out.
    """
    # What tests before this one have given brokers by -e is taken back.
    play("site.yml", "--tags", "kafka")
    before = cluster.processes()
    cluster.sh("worker_1", "sudo systemctl stop hdfs-secondarynamenode")
    # A play on the lab's own inventory would keep the key for good, and the lab would watch the real API from then on.
    for simulation in cluster.lab.plan.describe()["simulations"].values():
        for name, value in simulation["secrets"].items():
            monkeypatch.setenv(name.upper(), value)
    play("site.yml", "--skip-tags", "vm_only", inventory=str(production))
    after = cluster.processes()
    assert after.keys() == before.keys()
    assert {unit for unit in after if after[unit] != before[unit]} == {("worker_1", "hdfs-secondarynamenode")}
    kept = yaml.safe_load((production / "addresses.yml").read_text())
    assert {node: facts["address"] for node, facts in kept.items()} == {
        node.name: node.address for node in cluster.lab.plan.nodes.values()
    }
    alone = ["playbooks/cluster.yml", "--tags", "node", "--skip-tags", "vm_only", "--limit", "worker_0"]
    assert play(*alone, inventory=str(production)).recap("changed") == 0
    (production / "addresses.yml").unlink()
    refused = play(*alone, ok=False, inventory=str(production))
    assert "prim_api_key" not in yaml.safe_load((cluster.lab.plan.folder / "secrets.yml").read_text())
    assert refused.code and "master, worker_1, worker_2 is not known" in refused.output, refused.tail
