"""The firewall: what it opens is the catalog's, and no rules, kill or flush lock anybody out or leave a node open."""

from __future__ import annotations

import ipaddress
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from berny.lab.box import run
from berny.model.topology import CHECKOUT
from reach import SSH, differences, outside, scan
from support import Cluster, environment, play, wait_until

NODE = "worker_0"
SECONDS = 12
LOCKING_OUT = """table inet berny
delete table inet berny
table inet berny {
    set ssh { type inet_service; }
    set operators { type ipv4_addr; flags interval; }
    chain input {
        type filter hook input priority filter; policy drop;
        ct state established accept
    }
}
"""


def rules(cluster: Cluster, node: str = NODE) -> str:
    """Return what a node's kernel has loaded, asked without the network."""
    init = cluster.lab.machines[node].init()
    said = subprocess.run(
        ["nsenter", "-t", str(init), "-n", "nft", "-s", "list", "table", "inet", "berny"],
        capture_output=True,
        text=True,
    )
    return said.stdout


def firewall(*options: str, ok: bool = True) -> tuple[int, str]:
    """Run the role alone; return how many nodes it changed, and what it said on one line."""
    done = play("playbooks/cluster.yml", "--tags", "firewall", *options, ok=ok)
    assert ok or done.code != 0
    return done.recap("changed"), " ".join(done.output.split())


@pytest.fixture(autouse=True)
def loaded(cluster: Cluster) -> None:
    """Each test begins with the rules that the play loads, whatever the one before has left."""
    if "dport" not in rules(cluster):
        firewall("--limit", NODE)


@pytest.fixture
def other_address(cluster: Cluster) -> Iterator[str]:
    """One more address of the box, which is no operator's."""
    plan = cluster.lab.plan
    address = str(plan.network[201])
    run(["ip", "address", "add", f"{address}/{plan.network.prefixlen}", "dev", plan.bridge])
    yield address
    run(["ip", "address", "delete", f"{address}/{plan.network.prefixlen}", "dev", plan.bridge])


def test_nodes_open_what_the_catalog_says_and_nothing_else(cluster: Cluster) -> None:
    assert differences(cluster.lab) == []


def health(cluster: Cluster) -> tuple[int, str]:
    """Return what berny-probe ends with and says of the firewall."""
    done = cluster.lab.run(NODE, "sudo berny-probe berny-firewall --want healthy")
    return done.returncode, done.stdout


def test_rules_are_back_by_themselves_and_health_says_so_while_they_are_not(cluster: Cluster) -> None:
    """Whoever takes them away. The watch is halted meanwhile: it would be quicker than the question."""
    before = rules(cluster)
    assert health(cluster)[0] == 0, health(cluster)
    for command, said in (
        ("nft flush ruleset", "the table inet berny is not loaded: every port is open"),
        (
            "nft insert rule inet berny input accept",
            "the table inet berny differs from /etc/berny/firewall/rules.nft",
        ),
        ("nft flush set inet berny nodes", "the table inet berny differs from"),
        ("systemctl enable --now nftables", "is not loaded"),
        ("systemctl reload nftables", "is not loaded"),
        ("systemctl restart nftables", "is not loaded"),
        ("systemctl disable --now nftables", "is not loaded"),
    ):
        cluster.sh(NODE, f"sudo systemctl kill -s STOP berny-firewall && sudo {command}")
        assert rules(cluster) != before, command
        code, words = health(cluster)
        assert code == 1 and "NOT READY" in words and said in words, (command, words)
        cluster.sh(NODE, "sudo systemctl kill -s CONT berny-firewall")
        wait_until(lambda: rules(cluster) == before, 5, f"after {command} the rules are not back")
        assert health(cluster)[0] == 0, (command, health(cluster))
    assert firewall("--limit", NODE)[0] == 0


def test_check_and_status_say_that_the_rules_are_gone(cluster: Cluster) -> None:
    cluster.sh(NODE, "sudo systemctl kill -s STOP berny-firewall && sudo nft flush ruleset")
    try:
        told = play("playbooks/check.yml", "--limit", NODE, "-e", "check_wait=1", ok=False)
        assert told.code != 0 and "berny-firewall on worker_0: NOT READY" in told.output, told.tail
    finally:
        cluster.sh(NODE, "sudo systemctl kill -s CONT berny-firewall")
    play("playbooks/check.yml", "--limit", NODE)


def test_a_watch_that_is_killed_or_stopped(cluster: Cluster) -> None:
    """Killed, it comes back with the rules; stopped by a person, what serves is not healthy, and a play mends it."""
    before = rules(cluster)
    cluster.sh(NODE, "sudo systemctl kill -s KILL berny-firewall; sudo nft flush ruleset")
    wait_until(lambda: rules(cluster) == before, 5, "the rules are not back")
    cluster.sh(NODE, "sudo systemctl stop berny-firewall")
    assert rules(cluster) == before
    code, words = health(cluster)
    assert code == 1 and ": ready: " in words and "nothing restores them" in words, words
    cluster.sh(NODE, "sudo nft flush ruleset")
    assert firewall("--check", "--diff")[0] == 1
    assert rules(cluster) == ""
    assert firewall()[0] == 1
    assert rules(cluster) == before
    assert firewall("--limit", NODE)[0] == 0


def test_off_and_on_again(cluster: Cluster) -> None:
    """Off, the same scan finds SSH open to anybody: it can tell."""
    before, address = rules(cluster), cluster.lab.plan.nodes[NODE].address
    with outside(cluster.lab) as words:
        assert firewall("-e", "firewall_enabled=false", "--limit", NODE)[0] == 1
        assert SSH in scan(words, [address], {SSH})[address]
        assert firewall("-e", "firewall_enabled=false", "--limit", NODE)[0] == 0
        assert firewall("--limit", NODE)[0] == 1
        assert scan(words, [address], {SSH})[address] == set()
    assert rules(cluster) == before


def test_operators_get_in(cluster: Cluster, other_address: str) -> None:
    """A network in ``firewall_operators`` reaches SSH; taken out again, it does not."""
    ssh = cluster.lab.ssh(NODE, "true")
    command = [*ssh[:1], "-o", f"BindAddress={other_address}", *ssh[1:]]
    assert subprocess.run(command, capture_output=True).returncode == 255
    network = json.dumps({"firewall_operators": [str(ipaddress.ip_network(f"{other_address}/30", strict=False))]})
    assert firewall("-e", network, "--limit", NODE)[0] == 1
    assert subprocess.run(command, capture_output=True).returncode == 0
    assert firewall("--limit", NODE)[0] == 1
    assert subprocess.run(command, capture_output=True).returncode == 255


def test_rules_that_lock_everybody_out_roll_themselves_back(cluster: Cluster) -> None:
    """The connection that the play has lives on; none of the new ones gets through until the time is over."""
    before = rules(cluster)
    words = {"rules": LOCKING_OUT, "unit": "none", "seconds": SECONDS}
    command = [str(Path(sys.executable).with_name("ansible")), "-i", "inventory/lab", NODE]
    command += ["-m", "berny_firewall", "-a", json.dumps(words)]
    playing = subprocess.Popen(
        command, cwd=CHECKOUT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    wait_until(lambda: rules(cluster) not in (before, ""), 30, "the rules are not loaded")
    loaded = time.monotonic()
    assert cluster.lab.run(NODE, "true").returncode == 255
    wait_until(lambda: rules(cluster) == before, SECONDS + 5, "the rules are not rolled back")
    took = time.monotonic() - loaded
    assert cluster.lab.run(NODE, "true").returncode == 0
    said, _ = playing.communicate(timeout=60)
    assert playing.returncode != 0
    assert f"no new connection came through within {SECONDS} s" in " ".join(said.split()), said
    assert "were rolled back" in " ".join(said.split()), said
    assert SECONDS - 3 < took < SECONDS + 3, took
    assert firewall("--limit", NODE)[0] == 0


@pytest.mark.second_tier
def test_play_whose_new_connections_come_from_elsewhere_fails(cluster: Cluster, other_address: str) -> None:
    """The connection that it has hides it: only a new one tells."""
    before = rules(cluster)
    changed = json.dumps({"firewall_operators": ["192.0.2.1"], "firewall_confirm_seconds": SECONDS})
    elsewhere = json.dumps({"ansible_ssh_extra_args": f"-o BindAddress={other_address}"})
    _, said = firewall("-e", changed, "-e", elsewhere, "--limit", NODE, ok=False)
    assert f"no new connection came through within {SECONDS} s" in said, said
    assert "firewall_operators" in said
    assert rules(cluster) == before
    assert firewall("--limit", NODE)[0] == 0


def test_play_that_is_killed_leaves_the_former_rules(cluster: Cluster) -> None:
    """Nobody has to be there for the way back; the next play is not misled by what was never confirmed."""
    before = rules(cluster)
    command = [str(Path(sys.executable).with_name("ansible")), "-i", "inventory/lab", NODE, "-m", "berny_firewall"]
    command += ["-a", json.dumps({"rules": LOCKING_OUT, "unit": "none", "seconds": 60})]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    playing = subprocess.Popen(command, cwd=CHECKOUT, env=environment(), start_new_session=True, **quiet)
    wait_until(lambda: rules(cluster) not in (before, ""), 30, "the rules are not loaded")
    os.killpg(playing.pid, signal.SIGKILL)
    playing.wait(timeout=30)
    assert firewall("--limit", NODE)[0] == 1
    assert rules(cluster) == before
    assert firewall("--limit", NODE)[0] == 0


def test_rules_are_there_before_the_network_after_a_power_cut(cluster: Cluster) -> None:
    before, machine = rules(cluster), cluster.lab.machines[NODE]
    machine.kill()
    machine.boot()
    cluster.lab.wait_for_ssh(machine)
    assert rules(cluster) == before
    said = cluster.sh(NODE, "systemctl show --property=InactiveExitTimestampMonotonic,ActiveEnterTimestampMonotonic"
                      " berny-firewall systemd-networkd")  # fmt: skip
    loaded, network = (dict(line.split("=") for line in block.split()) for block in said.strip().split("\n\n"))
    assert int(loaded["ActiveEnterTimestampMonotonic"]) < int(network["InactiveExitTimestampMonotonic"])
    assert firewall()[0] == 0
    cluster.sh(NODE, "sudo berny-probe --all --wait 120 --want healthy", timeout=180)
