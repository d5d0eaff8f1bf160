"""Preflight and reset on the cluster: orphans told and removed, a pipeline gone and back."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from berny.model.catalog import load_catalog
from berny.model.manifest import load_pipelines
from berny.model.topology import CHECKOUT
from support import Cluster, play

PIPELINE = load_pipelines()["idfm"]
NEED_ZOOKEEPER = " and ".join(
    sorted(name for name, one in load_catalog().components.items() if "zookeeper" in one.requires)
)


@pytest.fixture
def moved(tmp_path: Path) -> Path:
    """A copy of the inventory that has the Spark worker of worker_1 no longer, and worker_0 where nobody is."""
    inventory = tmp_path / "inventory"
    shutil.copytree(CHECKOUT / "inventory" / "lab", inventory)
    hosts = yaml.safe_load((inventory / "hosts.yml").read_text())
    del hosts["all"]["children"]["spark_worker"]["hosts"]["worker_1"]
    (inventory / "hosts.yml").write_text(yaml.safe_dump(hosts))
    return inventory


@pytest.fixture(scope="module", autouse=True)
def healthy_again(cluster: Cluster) -> Iterator[None]:
    """Whatever happens here, the cluster is left as ``site.yml`` makes it."""
    yield
    if set(cluster.processes()) != {(node, unit) for unit, nodes in cluster.units().items() for node in nodes}:
        play("site.yml")


def test_preflight_finds_nothing_and_is_quick(cluster: Cluster) -> None:
    looked = play("playbooks/preflight.yml")
    assert looked.recap("changed") == 0
    assert "WARNING" not in looked.output, looked.output


def test_orphan_dead_node_and_cut_pair_are_told_at_once(cluster: Cluster, moved: Path) -> None:
    before = cluster.processes()
    hosts = yaml.safe_load((moved / "hosts.yml").read_text())
    gone = str(cluster.lab.plan.network[99])
    hosts["all"]["hosts"]["worker_0"] = {"ansible_host": gone}
    (moved / "hosts.yml").write_text(yaml.safe_dump(hosts))
    peer = cluster.lab.plan.nodes["worker_2"].address
    rules = ("add table inet cut", "add chain inet cut output { type filter hook output priority 0; }")
    for rule in (*rules, f"add rule inet cut output ip daddr {peer} drop"):
        cluster.sh("worker_1", f"sudo nft {shlex.quote(rule)}")
    try:
        told = play("site.yml", "-T", "5", ok=False, inventory=str(moved))
    finally:
        cluster.sh("worker_1", "sudo nft delete table inet cut")
    assert told.code != 0
    assert "worker_1: runs spark-worker, which the inventory does not put there" in told.output, told.tail
    assert "worker_0: can't be read: " in told.output, told.tail
    assert "worker_1: and worker_2 do not reach each other: " in told.output, told.tail
    assert "PLAY [Converge the cluster]" not in told.output
    assert cluster.processes() == before


def test_an_orphan_is_removed_by_the_command_that_is_told(cluster: Cluster, moved: Path) -> None:
    told = play("playbooks/preflight.yml", ok=False, inventory=str(moved))
    command = re.search(r"ansible-playbook (playbooks/reset\.yml [-\w= ]+?) \(data stays\)", told.output)
    assert told.code != 0 and command, told.tail
    play("playbooks/preflight.yml", "-e", "{preflight_allow: [orphan]}", inventory=str(moved))
    before = cluster.processes()
    play(*command[1].split(), inventory=str(moved))
    assert set(before) - set(cluster.processes()) == {("worker_1", "spark-worker")}
    left = cluster.sh(
        "worker_1", "ls -d /etc/berny/spark* /opt/berny/spark* /usr/local/bin/*spark* /data/spark-worker", ok=False
    )
    # Spark itself stays: jobs on YARN find it there.
    assert left.split() == ["/data/spark-worker", "/opt/berny/spark"]
    assert "work" in cluster.sh("worker_1", "sudo ls /data/spark-worker")
    play("playbooks/preflight.yml", inventory=str(moved))
    play("site.yml", "--tags", "spark")
    cluster.sh("worker_1", "sudo berny-probe spark --wait 60 --want healthy")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["component=zookeeper"], f"zookeeper is needed by {NEED_ZOOKEEPER}"),
        (["everything=true", "data=production"], "data=production is not the name of this cluster"),
        (["component=kakfa"], "did you mean kafka?"),
        ([], "specify what to remove"),
    ],
)
def test_what_is_refused_touches_nothing(cluster: Cluster, options: list[str], words: str) -> None:
    before = cluster.processes()
    refused = play("playbooks/reset.yml", *(word for option in options for word in ("-e", option)), ok=False)
    assert refused.code != 0 and words in refused.output, refused.tail
    assert cluster.processes() == before


@pytest.mark.second_tier
def test_lost_records_are_not_taken_for_an_empty_node(cluster: Cluster) -> None:
    """Refused before anything is removed; the next play records anew, and then a reset works."""
    before = cluster.processes()
    archives = cluster.sh("worker_2", "ls /opt/berny/archives")
    cluster.sh("worker_2", "sudo rm -rf /var/lib/berny")
    refused = play("playbooks/reset.yml", "-e", "component=kafka", "--limit", "worker_2", ok=False)
    assert refused.code != 0 and "worker_2: there is no record (/var/lib/berny) of " in refused.output, refused.tail
    assert (cluster.processes(), cluster.sh("worker_2", "ls /opt/berny/archives")) == (before, archives)
    told = play("playbooks/preflight.yml")
    assert "worker_2: has kafka, for which there is no record" in told.output, told.tail
    play("site.yml")
    assert cluster.processes() == before
    play("playbooks/reset.yml", "-e", "component=kafka", "--limit", "worker_2", "--check")


def kept(cluster: Cluster) -> tuple[set[str], str, str]:
    """Return what the pipeline keeps in the cluster: its topics, its folders in HDFS, its spool."""
    topics = cluster.sh("master", "kafka-topics.sh --bootstrap-server master:9092 --list").split()
    folders = cluster.sh("master", "hdfs dfs -ls -d /data/idfm /user/idfm 2> /dev/null | grep -c idfm", ok=False)
    return (
        {*topics} & {*PIPELINE.resources["topics"]},
        folders.strip(),
        cluster.sh("master", "sudo ls -A /data/berny-idfm"),
    )


@pytest.mark.second_tier
def test_a_pipeline_goes_without_its_data_and_comes_back(cluster: Cluster) -> None:
    before = cluster.processes()
    play("playbooks/reset.yml", "-e", "pipeline=idfm")
    stages = {f"berny-idfm-{stage}" for stage in PIPELINE.stages}
    assert {unit for _, unit in set(before) - set(cluster.processes())} == stages
    assert "idfm" not in cluster.sh("master", "ls /etc/systemd/system /etc/berny /etc/tmpfiles.d")
    topics, folders, spool = kept(cluster)
    assert (topics, folders) == (set(PIPELINE.resources["topics"]), "2") and "spool.sqlite" in spool
    play("site.yml", "--tags", "pipeline")
    cluster.flows()


def test_a_pipeline_goes_with_its_data_and_comes_back(cluster: Cluster) -> None:
    stages = {f"berny-idfm-{stage}" for stage in PIPELINE.stages}
    before, archives = cluster.processes(), cluster.each("ls /opt/berny /opt/berny/archives")
    play("playbooks/reset.yml", "-e", "pipeline=idfm", "-e", f"data={cluster.lab.plan.name}")
    assert {unit for _, unit in set(before) - set(cluster.processes())} == stages
    # Its own code goes with it, and nothing else.
    own = re.compile(r"^berny-idfm\S*\n", re.M)
    assert cluster.each("ls /opt/berny /opt/berny/archives") == {
        node: own.sub("", names) for node, names in archives.items()
    }
    topics, folders, spool = kept(cluster)
    assert (topics, folders) == (set(), "0") and "sqlite" not in spool
    again = play("playbooks/reset.yml", "-e", "pipeline=idfm", "-e", f"data={cluster.lab.plan.name}")
    assert again.recap("changed") == 0, again.tail
    # Topics, bucket and token are made anew: a token of the removed bucket would reach nothing.
    play("site.yml", "--tags", "pipeline")
    cluster.flows()
