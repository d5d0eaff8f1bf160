"""Preflight and reset on the cluster: orphans told and removed, a pipeline gone and back, nothing left, all anew."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import yaml

from berny.catalog import load_catalog, load_pipelines
from berny.lab.plan import CHECKOUT
from support import Cluster, ansible, environment, play, wait_until

PIPELINE = load_pipelines()["idfm"]
RESET_SECONDS = 60
# What a machine has beside the golden root by being a machine: its own files, what logins and package lists leave.
OF_THE_MACHINE = re.compile(
    r"etc/(hostname|machine-id|resolv\.conf|\.pwd\.lock|(passwd|group|g?shadow|subuid|subgid)-?|fstab)$"
    r"|etc/ssh/ssh_host_ed25519_key(\.pub)?$|etc/ssl/certs/ca-certificates\.crt$|etc/systemd/network/10-host0\.network$"
    r"|home/berny/|root/|tmp/|run/|var/(tmp|cache|backups)/|var/log/(?!berny)|var/lib/(apt|dbus|dpkg|systemd|ucf|private)/"
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
def whole_again(cluster: Cluster) -> Iterator[None]:
    """Whatever happens here, the cluster is left as ``site.yml`` makes it."""
    yield
    if set(cluster.processes()) != {(node, unit) for unit, nodes in cluster.units().items() for node in nodes}:
        play("site.yml")


def points_flow(cluster: Cluster) -> None:
    """New observations reach the last sink."""
    cluster.load(f"reset-{time.time():.0f}", 5)
    wait_until(lambda: (cluster.status().get("freshness_seconds") or 99) < 20, 180, cluster.told)


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
    assert "worker_0: can't be looked at: " in told.output, told.tail
    assert "worker_1: and worker_2 do not reach each other: " in told.output, told.tail
    assert "PLAY [Machines]" not in told.output
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
    assert left.split() == ["/data/spark-worker"]
    assert "work" in cluster.sh("worker_1", "sudo ls /data/spark-worker")
    play("playbooks/preflight.yml", inventory=str(moved))
    play("site.yml", "--tags", "spark")
    cluster.sh("worker_1", "sudo berny-probe spark --wait 60 --want whole")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["component=zookeeper"], "zookeeper is needed by kafka"),
        (["everything=true", "data=production"], "data=production is not the name of this cluster"),
        (["component=kakfa"], "did you mean kafka?"),
        ([], "say what is to go"),
    ],
)
def test_what_is_refused_touches_nothing(cluster: Cluster, options: list[str], words: str) -> None:
    before = cluster.processes()
    refused = play("playbooks/reset.yml", *(word for option in options for word in ("-e", option)), ok=False)
    assert refused.code != 0 and words in refused.output, refused.tail
    assert cluster.processes() == before


def kept(cluster: Cluster) -> tuple[set[str], str, str]:
    """Return what the pipeline keeps in the cluster: its topics, its folders in HDFS, its spool."""
    topics = cluster.sh("master", "kafka-topics.sh --bootstrap-server master:9092 --list").split()
    folders = cluster.sh("master", "hdfs dfs -ls -d /data/idfm /user/idfm 2> /dev/null | grep -c idfm", ok=False)
    return {*topics} & {*PIPELINE.topics}, folders.strip(), cluster.sh("master", "sudo ls -A /data/berny-idfm")


def test_a_pipeline_goes_without_its_data_and_comes_back(cluster: Cluster) -> None:
    before = cluster.processes()
    play("playbooks/reset.yml", "-e", "pipeline=idfm")
    stages = {f"berny-idfm-{stage}" for stage in PIPELINE.stages}
    assert {unit for _, unit in set(before) - set(cluster.processes())} == stages
    assert "idfm" not in cluster.sh("master", "ls /etc/systemd/system /etc/berny /etc/tmpfiles.d")
    topics, folders, spool = kept(cluster)
    assert (topics, folders) == (set(PIPELINE.topics), "2") and "spool.sqlite" in spool
    play("site.yml", "--tags", "pipeline")
    points_flow(cluster)


def test_a_pipeline_goes_with_its_data_and_comes_back(cluster: Cluster) -> None:
    play("playbooks/reset.yml", "-e", "pipeline=idfm", "-e", f"data={cluster.lab.plan.name}")
    topics, folders, spool = kept(cluster)
    assert (topics, folders) == (set(), "0") and "sqlite" not in spool
    again = play("playbooks/reset.yml", "-e", "pipeline=idfm", "-e", f"data={cluster.lab.plan.name}")
    assert again.recap("changed") == 0, again.tail
    # Topics, bucket and token are made anew: a token of the removed bucket would reach nothing.
    play("site.yml", "--tags", "topics,influxdb,pipeline")
    points_flow(cluster)


def traces(cluster: Cluster, node: str) -> list[str]:
    """Return the files of a machine that neither the golden root has nor the machine has by itself."""
    upper = cluster.lab.machines[node].folder / "upper"
    files = (path.relative_to(upper) for path in upper.rglob("*") if path.is_symlink() or not path.is_dir())
    return sorted(str(path) for path in files if not OF_THE_MACHINE.match(str(path)))


def test_everything_goes_even_where_a_reset_is_cut_off(cluster: Cluster) -> None:
    words = ("-e", "everything=true", "-e", f"data={cluster.lab.plan.name}")
    options = {"cwd": CHECKOUT, "env": environment(), "stdin": subprocess.DEVNULL, "text": True}
    with subprocess.Popen(
        ansible("playbooks/reset.yml", *words), stdout=subprocess.PIPE, start_new_session=True, **options
    ) as cut:  # type: ignore[call-overload]
        for line in cut.stdout:
            if "TASK [service : Remove kafka]" in line:
                time.sleep(1)
                os.killpg(cut.pid, signal.SIGKILL)
                break
    assert cluster.processes(), "there was nothing left to be removed"
    wait_until(lambda: play("playbooks/reset.yml", *words, ok=False).code == 0, 60, "it does not go on")
    again = play("playbooks/reset.yml", *words)
    assert again.recap("changed") == 0, again.tail
    assert again.seconds < RESET_SECONDS


def test_nothing_is_left(cluster: Cluster) -> None:
    uids = {c.user.uid for c in load_catalog().components.values()} | {PIPELINE.user.uid}
    units = "|".join(cluster.units())
    for node in cluster.groups["all"]:
        assert traces(cluster, node) == [], node
        assert cluster.processes() == {}
        assert not {int(uid) for uid in cluster.sh(node, "ps -eo uid=").split()} & uids, node
        assert not {int(uid) for uid in cluster.sh(node, "getent passwd | cut -d: -f3").split()} & uids, node
        assert not {int(gid) for gid in cluster.sh(node, "getent group | cut -d: -f3").split()} & uids, node
        ports = {line.split()[3].rsplit(":", 1)[1] for line in cluster.sh(node, "ss -Hltn").splitlines()}
        assert ports == {"22"}, node
        # systemd forgets a unit whose file is gone a moment after its last process.
        ask = partial(
            cluster.sh, node, "systemctl list-units --all --no-legend --plain; systemctl list-unit-files --no-legend"
        )
        wait_until(lambda ask=ask: not re.search(rf"^(berny|{units})", ask(), re.M), 60, ask)
        left = cluster.sh(
            node, "sudo find /data -mindepth 2 ! -path '*/lost+found*' ; ls -d /opt/berny /run/berny", ok=False
        )
        assert left == "", node


def test_a_fresh_site_works_after(cluster: Cluster) -> None:
    play("site.yml")
    assert set(cluster.processes()) == {(node, unit) for unit, nodes in cluster.units().items() for node in nodes}
    for node in cluster.groups["all"]:
        cluster.sh(node, "sudo berny-probe --all --wait 120 --want whole", timeout=150)
    points_flow(cluster)
    run = f"after-reset-{time.time():.0f}"
    cluster.load(run, 5)
    cluster.serve(25)
    cluster.settle(run)
