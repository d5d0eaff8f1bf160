"""What a container can't show, on a kernel of its own: the tasks tagged ``vm_only``, the firewall, and both over a reboot.

The guest is ``worker_0`` of ``inventory/azure``: connected to by an address that is translated, with an empty data disk.
"""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from berny.controller.artifacts.cli import fetch_all
from berny.lab.vm import Guest
from berny.lab.vm_plan import data_folder, node
from berny.model.topology import CHECKOUT
from support import Play, steps

NAME = "kernel"
NODE = node()
FOLDER = data_folder()
# Emulated on a busy box, the first run alone may take ten minutes.
pytestmark = [pytest.mark.second_tier, pytest.mark.timeout(2400)]


def remove() -> None:
    """Remove the guest with all its traces."""
    with steps("the guest goes") as shown:
        Guest.named(NAME).down(shown)


def traces(guest: Guest) -> dict[str, object]:
    """Return everything of the guest that the box has."""
    links = [link["ifname"] for link in json.loads(subprocess.check_output(["ip", "-j", "link"]))]
    return {
        "process": guest.process(),
        "links": [link for link in links if link in (guest.plan.bridge, guest.plan.tap)],
        "tables": re.findall(rf"{guest.plan.table}\b", subprocess.check_output(["nft", "list", "tables"], text=True)),
        "routes": re.findall(guest.plan.public, subprocess.check_output(["ip", "route"], text=True)),
        "state": [str(path) for path in guest.plan.folder.parent.glob(f"*{NAME}*")],
    }


def play(guest: Guest, *options: str) -> Play:
    """Run the plays of the cluster that belong to machines, whatever runs on them."""
    since = time.monotonic()
    with steps(f"cluster.yml {' '.join(options)}") as shown, shown.step(f"{NODE} of inventory/azure"):
        done = subprocess.run(
            [
                str(Path(sys.executable).with_name("ansible-playbook")),
                *guest.inventories,
                "playbooks/cluster.yml",
                "--tags",
                "node,firewall",
                *options,
            ],
            cwd=CHECKOUT,
            env=os.environ | {"ANSIBLE_NOCOLOR": "1", "ANSIBLE_FORCE_COLOR": "0"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=1800,
        )
    result = Play(done.returncode, done.stdout, time.monotonic() - since)
    assert result.code == 0, result.tail
    return result


def sh(guest: Guest, command: str) -> str:
    """Run a shell command as root on the guest and return what it prints; it has to succeed."""
    done = guest.run(f"sudo sh -c {json.dumps(command)}")
    assert done.returncode == 0, f"{command}: {done.stdout[-600:]}{done.stderr[-600:]}"
    return done.stdout.strip()


def state(guest: Guest) -> dict[str, str]:
    """Return what the plays set and a reboot must keep."""
    wanted = yaml.safe_load((CHECKOUT / "roles" / "node" / "defaults" / "main.yml").read_text())["node_sysctl"]
    asked = {name: f"sysctl -n {name}" for name in wanted}
    asked |= {
        "clock": "systemctl is-active chrony; systemctl is-enabled chrony",
        "disk": f"findmnt -n -o FSTYPE,LABEL {FOLDER}",
        "name": "hostname",
        "open files": "su berny -c 'ulimit -Hn'",
        "rules": "nft -s list ruleset",
        "swap": "tail -n +2 /proc/swaps",
    }
    return {name: sh(guest, command) for name, command in asked.items()}


@pytest.fixture(scope="module")
def guest() -> Iterator[Guest]:
    """The guest from nothing, with the archives of what every node has, and with swap, which it should not."""
    remove()
    guest = Guest.named(NAME)
    with steps("guest") as shown:
        fetch_all(["runtime", "berny"], shown)
        guest.up(shown)
    sh(
        guest,
        "fallocate -l 16M /swap && chmod 600 /swap && mkswap -q /swap && swapon /swap"
        " && echo /swap none swap sw 0 0 >> /etc/fstab",
    )
    yield guest
    remove()
    assert not any(traces(guest).values()), traces(guest)


@pytest.fixture(scope="module")
def converged(guest: Guest) -> dict[str, str]:
    """The guest's state after the first run."""
    play(guest)
    return state(guest)


def test_it_is_a_kernel_of_its_own(guest: Guest) -> None:
    assert sh(guest, "uname -r") != os.uname().release
    assert sh(guest, "systemd-detect-virt") in ("kvm", "qemu")


def test_the_tasks_for_virtual_machines_hold(converged: dict[str, str]) -> None:
    assert converged["vm.swappiness"] == "1"
    assert converged["clock"] == "active\nenabled"
    assert converged["disk"].split() == ["ext4", "berny"]
    assert converged["swap"] == ""
    assert converged["open files"] == "65536"
    assert converged["name"] == "worker-0"


def test_members_are_told_the_private_address(guest: Guest, converged: dict[str, str]) -> None:
    """Not the one that the play connects to, which the guest does not have."""
    assert guest.plan.address in sh(guest, "getent hosts worker-0")
    assert guest.plan.public not in sh(guest, "cat /etc/hosts /etc/berny/cluster.json; ip address")
    kept = yaml.safe_load((guest.plan.folder / "addresses.yml").read_text())
    assert kept == {NODE: {"connected": guest.plan.public, "address": guest.plan.address}}


def test_a_reboot_keeps_it_and_a_second_run_changes_nothing(guest: Guest, converged: dict[str, str]) -> None:
    sh(guest, f"echo kept > {FOLDER}/kept")
    with steps("reboot") as shown, shown.step("reboot") as say:
        guest.reboot(say)
    assert state(guest) == converged
    assert sh(guest, f"cat {FOLDER}/kept") == "kept"
    again = play(guest, "--diff")
    assert again.recap("changed") == 0, again.output[-6000:]
    assert state(guest) == converged


def disks(guest: Guest, mapping: dict[str, str]) -> tuple[bool, str]:
    """Ask for data disks, as the play does; return whether it did, and what it said."""
    ansible = Path(sys.executable).with_name("ansible")
    options = [*guest.inventories, "-m", "berny_disks", "-a", json.dumps({"disks": mapping}), NODE]
    done = subprocess.run([str(ansible), *options], cwd=CHECKOUT, capture_output=True, text=True, timeout=600)
    return done.returncode == 0, " ".join((done.stdout + done.stderr).split())


def test_a_disk_with_something_on_it_is_refused(guest: Guest, converged: dict[str, str]) -> None:
    """By name, whatever else was asked for, and without a byte written."""
    other = "/dev/disk/by-id/virtio-other"
    sh(guest, f"mkfs.ext4 -q -L photos {other}")
    before = sh(guest, f"sha256sum < {other}")
    done, said = disks(guest, {other: "/data/kafka"})
    assert not done and f"{other} holds ext4, labelled photos: nothing was done to it" in said
    done, said = disks(guest, {other: "/data/kafka", "/dev/vda": "/data/influxdb"})
    assert not done and "/dev/vda is mounted at /" in said and f"{other} holds" in said
    assert sh(guest, f"sha256sum < {other}") == before


def test_a_mount_hides_no_files(guest: Guest, converged: dict[str, str]) -> None:
    """Those of a service that ran before the disk was there."""
    other = "/dev/disk/by-id/virtio-other"
    sh(
        guest,
        f"wipefs -q --all {other}; dd if=/dev/zero of={other} bs=1M count=64 status=none; "
        "mkdir -p /data/kafka; touch /data/kafka/log",
    )
    done, said = disks(guest, {other: "/data/kafka"})
    assert not done and f"/data/kafka holds files that {other} would hide" in said
    sh(guest, "rm /data/kafka/log")
    done, said = disks(guest, {other: "/data/kafka"})
    assert done, said
    assert sh(guest, "findmnt -n -o LABEL /data/kafka") == "berny"


# A source of cloud-init's beside the guest's: it is to manage /etc/hosts, and to leave alone how the guest is reached.
CLOUD = {
    "/etc/cloud/cloud.cfg.d/99-network.cfg": "network: {config: disabled}\n",
    "/var/lib/cloud/seed/nocloud/meta-data": "instance-id: guest\nlocal-hostname: worker-0\n",
    "/var/lib/cloud/seed/nocloud/user-data": "#cloud-config\nmanage_etc_hosts: true\nssh_deletekeys: false\nusers: []\n"
    "apt: {preserve_sources_list: true}\n",
}


def test_cloud_init_does_not_undo_the_names(guest: Guest, converged: dict[str, str]) -> None:
    """Its template has the guest's own name at 127.0.1.1, and is written over /etc/hosts at each boot."""
    for path, text in CLOUD.items():
        words = base64.b64encode(text.encode()).decode()
        sh(guest, f"mkdir -p {Path(path).parent}; echo {words} | base64 -d > {path}")
    for _ in range(2):
        with steps("reboot with cloud-init") as shown, shown.step("reboot") as say:
            guest.reboot(say)
        sh(guest, "cloud-init status --wait")
        hosts = sh(guest, "cat /etc/hosts")
        assert "manage_etc_hosts" in hosts, "cloud-init has not written it"
        for name, address in guest.plan.addresses.items():
            found = sh(guest, f"getent ahostsv4 {name.replace('_', '-')}").split()
            assert {word for word in found if re.fullmatch(r"[\d.]+", word)} == {address}, hosts
        assert sh(guest, "hostname") == "worker-0"
    again = play(guest, "--diff")
    assert again.recap("changed") == 0, again.output[-6000:]
