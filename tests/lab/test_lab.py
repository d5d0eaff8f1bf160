"""The machines themselves: up from nothing, through kills and power cuts, and gone without a trace."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from berny.controller.progress import Steps
from berny.faults import inject, network
from berny.lab import plan
from berny.lab.lab import Lab
from berny.lab.plan import Disk, LabError
from support import console, remove, traces

NAME = "bare"
pytestmark = pytest.mark.second_tier


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    remove(NAME)
    with Steps(console) as shown:
        lab = Lab.named(NAME)
        lab.up(shown)
    yield lab
    # A checkout whose catalog has another service made this one; it goes all the same.
    lab.machines["master"].attach(Disk("master", "of-another-checkout", 1))
    remove(NAME)


def test_four_systemd_machines_answer(lab: Lab) -> None:
    for node in lab.machines:
        deadline = time.monotonic() + 30
        while (said := lab.run(node, "systemctl is-system-running").stdout.strip()) != "running":
            assert time.monotonic() < deadline, (node, said, lab.run(node, "systemctl --failed").stdout)
            time.sleep(0.5)
        assert lab.run(node, "hostname").stdout.strip() == node.replace("_", "-")


def test_each_machine_has_its_data_disks(lab: Lab) -> None:
    for node, machine in lab.machines.items():
        for disk in machine.disks:
            said = lab.run(node, f"findmnt -n -o FSTYPE /data/{disk.service}").stdout.strip()
            assert said == "ext4", (node, disk)


def test_each_machine_has_control_groups_of_its_own(lab: Lab) -> None:
    """Else one machine's systemd removes a group that another's is starting a unit in: 219/CGROUP."""
    for node in lab.machines:
        groups = lab.run(node, "find /sys/fs/cgroup -path '*/system.slice/ssh.service/cgroup.procs'").stdout.split()
        assert groups, node
        assert "0" not in lab.run(node, f"cat {' '.join(groups)}").stdout.split(), f"{node} sees another's processes"


def test_machines_reach_each_other_but_not_another_lab(lab: Lab) -> None:
    assert lab.run("master", f"ping -c1 -W2 {lab.plan.nodes['worker_2'].address}").returncode == 0


def test_up_again_changes_nothing(lab: Lab) -> None:
    before = {node: machine.init() for node, machine in lab.machines.items()}
    with Steps(console) as shown:
        lab.up(shown)
    assert {node: machine.init() for node, machine in lab.machines.items()} == before


def test_another_command_is_kept_off(lab: Lab) -> None:
    with lab.locked(), pytest.raises(LabError, match="another command"), Lab.existing(NAME).locked():
        pass


def test_a_killed_machine_comes_back_with_its_files(lab: Lab) -> None:
    lab.run("worker_0", "echo kept | sudo tee /root/kept")
    lab.machines["worker_0"].kill()
    assert "worker_0" not in lab.running()
    with Steps(console) as shown:
        lab.up(shown)
    assert lab.run("worker_0", "sudo cat /root/kept").stdout == "kept\n"


def test_a_launcher_killed_alone_is_found_and_ended(lab: Lab) -> None:
    machine = lab.machines["worker_1"]
    (launcher,) = machine._launchers()
    subprocess.run(["kill", "-9", str(launcher)], check=True)
    assert machine.init(), "the machine runs on without its launcher"
    machine.kill()
    with Steps(console) as shown:
        lab.up(shown)
    assert lab.run("worker_1", "true").returncode == 0


def test_a_machine_whose_golden_root_was_removed_says_so(lab: Lab, tmp_path: Path) -> None:
    """Cache folders get emptied. It runs on, but what it reads next is not there."""
    machine = lab.machines["worker_1"]
    base, copy = machine.folder / "golden", tmp_path / "golden"
    golden = base.read_text()
    machine.kill()
    machine.detach()
    subprocess.run(["cp", "-a", golden, copy], check=True)
    base.write_text(str(copy))
    try:
        with Steps(console) as shown:
            lab.up(shown)
        shutil.rmtree(copy)
        for made_anew in (False, True):
            if made_anew:
                copy.mkdir()
            with Steps(console) as shown, pytest.raises(LabError, match=r"worker_1 runs on .*removed.*lab down"):
                lab.up(shown)
        # Nor does one that was killed meanwhile boot on what is left of it.
        machine.kill()
        with pytest.raises(LabError, match=r"worker_1 runs on .*removed.*lab down"):
            machine.boot()
    finally:
        machine.kill()
        machine.detach()
        base.write_text(golden)
    with Steps(console) as shown:
        lab.up(shown)
    assert lab.run("worker_1", "sudo true").returncode == 0


def test_a_power_cut_loses_what_was_not_synced_and_nothing_else(lab: Lab) -> None:
    """Else a fault test proves nothing about fsync."""
    disk = "/data/kafka"
    lab.run("master", f"echo synced | sudo tee {disk}/synced; sudo sync -f {disk}")
    lab.run("master", f"echo written | sudo tee {disk}/written")
    lab.machines["master"].power_cut()
    with Steps(console) as shown:
        lab.up(shown)
    assert lab.run("master", f"sudo cat {disk}/synced").stdout == "synced\n"
    assert lab.run("master", f"sudo cat {disk}/written").stdout == ""


def ping(lab: Lab, one: str, other: str, count: int = 2) -> tuple[int, float]:
    """Return how many of the packets from one machine to another came back, and after how many milliseconds at most."""
    said = lab.run(one, f"ping -c{count} -i0.2 -W2 {lab.plan.nodes[other].address}").stdout
    longest = re.search(r"rtt min/avg/max/mdev = [\d.]+/[\d.]+/([\d.]+)", said)
    return int(said.split(" received")[0].split()[-1]), float(longest[1]) if longest else 0.0


def test_faults_of_the_network_are_what_they_say_and_go(lab: Lab) -> None:
    """Else the bench breaks nothing, or goes on breaking: each once, seen by who is meant and by who is not."""
    try:
        network.cut(lab, "worker_1")
        assert ping(lab, "master", "worker_1")[0] == 0 and ping(lab, "master", "worker_2")[0] == 2
        assert lab.run("worker_1", "true").returncode == 0, "the box has to reach it"
        network.cut_pair(lab, "master", "worker_2")
        assert ping(lab, "master", "worker_2")[0] == 0 and ping(lab, "worker_1", "worker_2")[0] == 2
        network.cut(lab, "worker_1", outgoing=False)
        assert ping(lab, "master", "worker_1")[0] == 0
        network.lose(lab, "worker_1", 50)
        assert 0 < ping(lab, "master", "worker_1", 40)[0] < 40
        network.heal(lab)
        network.delay(lab, "worker_1")
        count, longest = ping(lab, "master", "worker_1", 5)
        # Both ways; on a busy box it may be more.
        assert count == 5 and longest > 2 * (network.DELAY - network.JITTER)
        network.heal(lab)
        network.narrow(lab, "worker_1")
        shown = lab.run("worker_1", "sudo tc qdisc show dev host0").stdout
        assert "tbf" in shown and "1Mbit" in shown
    finally:
        network.heal(lab)
    assert ping(lab, "master", "worker_1") == (2, pytest.approx(0, abs=100))
    assert "tbf" not in lab.run("worker_1", "sudo tc qdisc show dev host0").stdout
    assert "faults" not in subprocess.check_output(["nft", "list", "tables"], text=True)


def test_full_disk_refuses_and_is_emptied(lab: Lab) -> None:
    """One service's disk, no other."""
    try:
        inject.fill(lab, "master", "kafka")
        assert "No space left" in lab.run("master", "sudo dd if=/dev/zero of=/data/kafka/more bs=1M count=4").stderr
        assert lab.run("master", "sudo dd if=/dev/zero of=/data/zookeeper/more bs=1M count=4").returncode == 0
    finally:
        inject.empty_disks(lab)
    assert lab.run("master", "sudo dd if=/dev/zero of=/data/kafka/more bs=1M count=4").returncode == 0


def test_machine_reboots_itself(lab: Lab) -> None:
    before = lab.machines["worker_2"].init()
    inject.reboot(lab, "worker_2")
    assert lab.machines["worker_2"].init() not in (before, None)
    assert lab.run("worker_2", "true").returncode == 0


@pytest.fixture
def outside() -> Iterator[str]:
    """The address of a host beyond this one, which drops what it forwards, as one with Docker does."""
    name, address = f"berny-{NAME}-out", "10.181.0.2"
    drop = f"table ip {name} {{ chain forward {{ type filter hook forward priority filter; policy drop; }} }}"
    into = ["ip", "-n", name]
    for command in (
        ["ip", "netns", "add", name],
        ["ip", "link", "add", "bnyout", "type", "veth", "peer", "name", "eth0", "netns", name],
        ["ip", "address", "add", "10.181.0.1/30", "dev", "bnyout"],
        ["ip", "link", "set", "bnyout", "up"],
        [*into, "address", "add", f"{address}/30", "dev", "eth0"],
        [*into, "link", "set", "eth0", "up"],
        ["nft", drop],
    ):
        subprocess.run(command, check=True)
    yield address
    subprocess.run(["nft", "delete", "table", "ip", name], check=True)
    subprocess.run(["ip", "netns", "delete", name], check=True)


def test_a_host_that_drops_what_it_forwards(lab: Lab, outside: str) -> None:
    """A lab's packets are let through as long as there is the lab."""

    def is_reached() -> bool:
        said = lab.run("master", f"timeout 3 bash -c '< /dev/tcp/{outside}/7'")
        return "refused" in said.stderr

    def rules() -> int:
        return subprocess.check_output(["nft", "list", "table", "ip", f"berny-{NAME}-out"], text=True).count("accept")

    assert not is_reached()
    with Steps(console) as shown:
        for _ in range(2):
            lab.up(shown)
            assert is_reached() and rules() == 2
        lab.down(shown)
        assert not rules()
        lab.up(shown)
    assert is_reached()


def test_down_and_up_keep_the_disks(lab: Lab) -> None:
    lab.run("master", "echo here | sudo tee /data/kafka/here; sudo sync")
    with Steps(console) as shown:
        lab.down(shown)
        assert not lab.running()
        lab.up(shown)
    assert lab.run("master", "sudo cat /data/kafka/here").stdout == "here\n"


def test_a_machine_is_added_and_taken_out(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others run on; a lab that is removed takes it along, whether the inventory has it or not."""
    before = {node: machine.init() for node, machine in lab.machines.items()}
    mapping = plan.read_mapping()
    for added in (True, False, True):
        names = [*mapping["all"], "worker_3"] if added else mapping["all"]
        monkeypatch.setattr(plan, "read_mapping", lambda names=names: {**mapping, "all": names})
        now = Lab.existing(NAME)
        with Steps(console) as shown:
            now.up(shown)
        assert now.machines.keys() == {*names}
        assert all(now.run(node, "true").returncode == 0 for node in names)
        assert {node: now.machines[node].init() for node in before} == before
        assert any("worker-3" in command for command in traces(NAME)["processes"]) == added
    monkeypatch.undo()
    assert [*Lab.existing(NAME).left] == ["worker_3"], "the end of this module removes it"
