"""start-dfs.sh and stop-dfs.sh over real SSH between nodes, and that their key can do nothing else."""

from __future__ import annotations

import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from berny.model.catalog import load_catalog
from support import Cluster, play

CONFIG = "/etc/berny/control/ssh_config"
SERVICES = load_catalog().components["hdfs"].control["dfs"]


def states(cluster: Cluster) -> set[str]:
    """Return the states of HDFS's units."""
    return {
        cluster.sh(node, f"systemctl is-active {service}", ok=False).strip()
        for service in SERVICES
        for node in cluster.groups[load_catalog().services[service].group]
    }


def test_stopped_hdfs_stays_so_until_it_is_started(cluster: Cluster) -> None:
    """Under load: site.yml does not start it behind one's back, and says who does; nothing is lost."""
    before = {key: value for key, value in cluster.processes().items() if key[1] in ("kafka", "zookeeper", "influxdb")}
    cluster.load("no-dfs", 20)
    cluster.serve(60)
    said = cluster.sh("master", "stop-dfs.sh", timeout=200)
    try:
        order = [line.split(" on ")[0] for line in said.splitlines()]
        assert list(dict.fromkeys(order)) == SERVICES and len(order) == 5, said
        assert states(cluster) == {"inactive"}
        refused = play("site.yml", "--tags", "hdfs", ok=False)
        assert refused.code != 0 and "sudo start-dfs.sh starts it" in refused.output, refused.tail
        assert states(cluster) == {"inactive"}
        assert "inactive already" in cluster.sh("master", "stop-dfs.sh", timeout=200)
    finally:
        said = cluster.sh("master", "start-dfs.sh", timeout=300)
    assert said.splitlines()[-1].startswith("hdfs on ") and "NOT READY" not in said, said
    assert states(cluster) == {"active"}
    cluster.sh("master", "sudo berny-probe hdfs --want healthy --wait 120", timeout=150)
    assert "active already" in cluster.sh("master", "start-dfs.sh")
    after = cluster.processes()
    assert {key: after.get(key) for key in before} == before
    cluster.sh("master", "sudo berny-probe berny-idfm-analytics --wait 240", timeout=260)
    cluster.serve(200)
    cluster.settle("no-dfs", 240)


def test_stopped_pipeline_stays_so_until_it_is_started(cluster: Cluster) -> None:
    """Over site.yml, which succeeds; it says that a person has stopped it, and how it is started."""
    stages = {(node, unit) for node, unit in cluster.processes() if unit.startswith("berny-idfm-")}
    words = ("playbooks/pipelines.yml", "-e", "pipeline=idfm", "-e")
    play(*words, "do=stop")
    try:
        play("site.yml")
        assert stages and not stages & {*cluster.processes()}
        for node in {node for node, _ in stages}:
            assert "STOPPED: stopped by a person" in cluster.sh(node, "sudo berny-probe --all")
    finally:
        play(*words, "do=start")
    assert stages <= {*cluster.processes()}
    for node, unit in sorted(stages):
        cluster.sh(node, f"sudo berny-probe {unit} --wait 240", timeout=260)


@pytest.mark.second_tier
def test_an_outdated_replica_that_is_reported_first_is_replaced(cluster: Cluster) -> None:
    """A DataNode dies while a block is written, and is back before those that have all of it after HDFS was stopped."""
    others, late = ("worker_0", "worker_1"), "worker_2"
    produce = "for part in $(seq 30); do head -c 20000 /dev/urandom; sleep 0.5; done"
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(cluster.sh, "worker_0", f"({produce}) | hdfs dfs -put - /tmp/outdated", 180)
        time.sleep(8)
        cluster.sh(late, "sudo systemctl kill -s KILL hdfs-datanode; sudo systemctl stop hdfs-datanode")
        writing.result()
    cluster.each("sudo systemctl stop hdfs-datanode", others)
    cluster.sh("master", "sudo systemctl restart hdfs-namenode")
    cluster.sh(late, "sudo systemctl start hdfs-datanode")
    # It has registered and reported by then.
    time.sleep(20)
    cluster.each("sudo systemctl start hdfs-datanode", others)
    cluster.sh("master", "sudo berny-probe hdfs --want healthy --wait 180", timeout=200)
    cluster.sh("worker_0", "hdfs dfs -rm -skipTrash /tmp/outdated")


def test_what_does_not_start_says_why(cluster: Cluster) -> None:
    control = "sudo /usr/local/lib/berny/control-unit"
    folder = "/run/systemd/system/hdfs-secondarynamenode.service.d"
    cluster.sh("worker_1", f"{control} 'stop hdfs-secondarynamenode'")
    try:
        broken = r"[Service]\nExecStartPre=/bin/sh -c \"echo no disk; exit 1\"\n"
        cluster.sh(
            "worker_1",
            f"sudo mkdir {folder}; printf '{broken}' | sudo tee {folder}/x.conf; sudo systemctl daemon-reload",
        )
        said = cluster.sh("worker_1", f"{control} 'start hdfs-secondarynamenode'", ok=False)
        assert "Job for hdfs-secondarynamenode.service failed" in said and "\nno disk\n" in said, said
    finally:
        cluster.sh("worker_1", f"sudo rm -r {folder}; sudo systemctl daemon-reload")
        cluster.sh("worker_1", f"{control} 'start hdfs-secondarynamenode'")


def key(cluster: Cluster, request: str, options: str = "", node: str = "master") -> tuple[int, str]:
    """Use the key as root of master would, for what it likes; return exit code and words."""
    done = cluster.lab.run(node, f"sudo timeout 30 ssh -F {CONFIG} {options} worker-1 {request} < /dev/null", 60)
    return done.returncode, done.stdout + done.stderr


def test_the_key_asks_for_the_state(cluster: Cluster) -> None:
    assert key(cluster, "status hdfs-datanode") == (0, "active\n")


@pytest.mark.parametrize(
    "request_",
    [
        "",
        "id",
        "status kafka",
        "stop ssh",
        "stop spark-worker",
        "restart hdfs-datanode",
        "status hdfs-namenode",
        "'status hdfs-datanode; id'",
        "'status hdfs-datanode $(id)'",
        "'status  hdfs-datanode'",
        "'status hdfs-datanode\nid'",
        "'status ../hdfs-datanode'",
        "'status hdfs-datanode' --now",
    ],
)
def test_the_key_can_do_nothing_else(cluster: Cluster, request_: str) -> None:
    """No shell, no other unit, no unit of another node, no further words."""
    code, said = key(cluster, request_)
    assert code == 2 and "worker_1 refuses" in said and "uid=" not in said, said


def test_the_key_forwards_nothing(cluster: Cluster) -> None:
    """No terminal, no port: what is asked for is answered, and the rest refused."""
    code, said = key(cluster, "status hdfs-datanode", "-tt")
    assert "PTY allocation request failed" in said, (code, said)
    said = cluster.sh(
        "master",
        f"sudo timeout 20 ssh -F {CONFIG} -o ExitOnForwardFailure=yes -W localhost:22 worker-1 < /dev/null 2>&1",
        ok=False,
    )
    assert "SSH-2.0" not in said and ("prohibited" in said or "refused" in said or "failed" in said), said


def test_the_key_works_from_its_node_alone(cluster: Cluster, tmp_path: Path) -> None:
    """A copy opens nothing elsewhere, firewall or not, and nobody but root reads it."""
    assert cluster.sh("master", "sudo stat -c '%a %U' /etc/berny/control/id_ed25519").strip() == "600 root"
    stolen = cluster.sh("master", "sudo cat /etc/berny/control/id_ed25519")
    options = "-o IdentitiesOnly=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o BatchMode=yes"
    ask = f"ssh {options} -o ConnectTimeout=10 -i {{}} berny-control@{{}} id 2>&1"
    try:
        cluster.sh("worker_0", f"umask 077; echo '{stolen}' > /tmp/stolen")
        unheard = cluster.sh("worker_0", ask.format("/tmp/stolen", "worker-1"), ok=False)
    finally:
        cluster.sh("worker_0", "rm -f /tmp/stolen")
    assert "timed out" in unheard, unheard
    copy = tmp_path / "stolen"
    copy.touch(0o600)
    copy.write_text(stolen)
    # Operators reach SSH: there it is the key that is good for nothing.
    words = ask.format(copy, cluster.lab.plan.nodes["worker_1"].address)
    refused = subprocess.run(words, shell=True, capture_output=True, text=True, timeout=60)
    assert refused.returncode == 255 and "Permission denied" in refused.stdout, refused.stdout


def test_hosts_are_known_by_their_keys(cluster: Cluster) -> None:
    """A machine with another key is not trusted, neither at first sight nor later."""
    code, said = key(cluster, "status hdfs-datanode", "-o HostKeyAlias=somebody-else")
    assert code == 255 and "Host key verification failed" in said, said


def test_the_user_of_the_scripts_has_no_other_rights(cluster: Cluster) -> None:
    as_user = "sudo -u berny-control sudo -n"
    assert "uid=0" not in cluster.sh("worker_1", f"{as_user} id 2>&1", ok=False)
    assert "refuses" in cluster.sh(
        "worker_1", f"{as_user} /usr/local/lib/berny/control-unit 'stop kafka' 2>&1", ok=False
    )
    assert "Permission denied" in cluster.sh(
        "worker_1", "sudo -u berny-control sh -c 'echo > ~/.ssh/authorized_keys' 2>&1", ok=False
    )
