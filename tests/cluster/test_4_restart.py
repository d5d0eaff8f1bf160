"""Restart is state, not an event: what changed restarts, one host at a time, however often a play is cut off."""

from __future__ import annotations

import os
import signal
import subprocess

from berny.model.topology import CHECKOUT
from support import Cluster, ansible, environment, play, wait_until


def changed_units(before: dict[tuple[str, str], str], after: dict[tuple[str, str], str]) -> set[tuple[str, str]]:
    """Return the units whose process is another, or gone."""
    return {key for key in before if after.get(key) != before[key]}


def started(cluster: Cluster, node: str) -> float:
    """Return when a node's broker was started, seconds since the node's boot."""
    return int(cluster.sh(node, "systemctl show -P ExecMainStartTimestampMonotonic kafka")) / 1e6


def test_a_kafka_variable_restarts_the_brokers_one_after_the_other(cluster: Cluster) -> None:
    before = cluster.processes()
    changed = play("site.yml", "--tags", "kafka", "-e", "kafka_log_segment_bytes=33554432")
    assert changed_units(before, cluster.processes()) == {("master", "kafka"), ("worker_2", "kafka")}
    restarts = [line for line in changed.output.splitlines() if "TASK [service : Restart kafka]" in line]
    assert len(restarts) == 2, changed.output
    # Machines of a lab share the box's clock: the second goes down only once the first serves again.
    first, second = sorted((started(cluster, "master"), started(cluster, "worker_2")))
    assert second - first > 1


def test_a_play_killed_between_two_brokers_is_finished_by_the_next(cluster: Cluster) -> None:
    before = cluster.processes()
    options = ("--tags", "kafka", "-e", "kafka_log_segment_bytes=16777216")
    process = subprocess.Popen(
        ansible("site.yml", *options),
        cwd=CHECKOUT,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        # The first broker is back: the second is about to be restarted.
        if line.startswith("changed: [") and "->" in line:
            break
        if line.startswith("changed: ["):
            host = line
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    # What the play had begun on a node goes on without it.
    wait_until(
        lambda: not "".join(cluster.each("pgrep -f '[B]ECOME-SUCCESS' || true").values()).strip(),
        60,
        "modules of the killed play still run",
    )
    once = changed_units(before, cluster.processes())
    assert once, f"no broker was restarted before the play was killed: {host}"
    play("site.yml", *options)
    assert changed_units(before, cluster.processes()) == {("master", "kafka"), ("worker_2", "kafka")}
    after = cluster.processes()
    unchanged = play("site.yml", *options)
    assert unchanged.recap("changed") == 0, unchanged.tail
    assert cluster.processes() == after


def test_a_broker_that_cannot_start_leaves_the_other_ready(cluster: Cluster) -> None:
    before = cluster.processes()
    broken = play("site.yml", "--tags", "kafka", "-e", "java_options=-XX:+NoSuchOption", ok=False)
    assert broken.code != 0
    # Host, unit and the log line that says why.
    assert "kafka.service did not come back" in broken.output, broken.tail
    assert "Unrecognized VM option" in broken.output, broken.tail
    gone = {node for node, unit in changed_units(before, cluster.processes())}
    assert len(gone) == 1, gone
    (broker,) = gone
    other = ({"master", "worker_2"} - gone).pop()
    assert f"{broker}" in broken.output.split("fatal:")[1][:200], broken.tail
    cluster.sh(other, "sudo berny-probe kafka --wait 30 --want ready")
    stored = cluster.status("idfm")["stored"]
    cluster.load("one-broker", 5)
    wait_until(lambda: cluster.status("idfm")["stored"] > stored, 60, "nothing flows through the other broker")
    # What is down is mended first, without a gate.
    play("site.yml", "--tags", "kafka", "-e", "kafka_log_segment_bytes=16777216")
    cluster.sh(broker, "sudo berny-probe kafka --wait 60 --want healthy")
    assert cluster.processes()[other, "kafka"] == before[other, "kafka"]
    cluster.settle("one-broker")


def test_the_second_of_two_plays_says_who_works_and_ends(cluster: Cluster) -> None:
    before = cluster.processes()
    # Records that differ have both brokers restarted once, not twice.
    options = ["site.yml", "--tags", "kafka", "-e", "kafka_replica_lag_ms=9000"]
    first = subprocess.Popen(ansible(*options), cwd=CHECKOUT, env=environment(), stdout=subprocess.PIPE, text=True)
    for line in first.stdout or ():
        if "PLAY [The cluster]" in line or "PLAY [Converge the cluster]" in line or "TASK [Inspect every node]" in line:
            break
    second = play("site.yml", ok=False)
    assert second.code != 0 and "Nothing was touched." in second.output, second.tail
    assert f"works on this cluster: site.yml (process {first.pid})" in second.output, second.tail
    assert "PLAY [Converge the cluster]" not in second.output
    said, _ = first.communicate(timeout=600)
    assert first.returncode == 0, said
    assert changed_units(before, cluster.processes()) == {("master", "kafka"), ("worker_2", "kafka")}
    play("site.yml", "--tags", "kafka")


def test_a_killed_play_does_not_keep_the_next_one_off(cluster: Cluster) -> None:
    cut = subprocess.Popen(
        ansible("site.yml"),
        cwd=CHECKOUT,
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    for line in cut.stdout or ():
        if "TASK [Inspect every node]" in line:
            break
    os.killpg(cut.pid, signal.SIGKILL)
    cut.communicate()
    wait_until(lambda: cluster.sh("master", "cat /run/lock/berny") == "", 10, "the lock is left over")
    play("site.yml", "--tags", "zookeeper")
