"""The last that happens to the cluster: everything is removed, and nothing is left."""

from __future__ import annotations

import filecmp
import os
import re
import signal
import subprocess
import time
from functools import partial
from pathlib import Path

import pytest

from berny.model.catalog import load_catalog
from berny.model.manifest import load_pipelines
from berny.model.topology import CHECKOUT
from support import Cluster, ansible, environment, play, wait_until

USERS = {owner.user.uid for owner in (*load_catalog().components.values(), *load_pipelines().values())}
# What a machine has beside the golden root by being a machine: its own files, what logins and package lists leave.
OF_THE_MACHINE = re.compile(
    r"etc/(hostname|machine-id|resolv\.conf|\.pwd\.lock|(passwd|group|g?shadow|subuid|subgid)-?|fstab)$"
    r"|etc/ssh/ssh_host_ed25519_key(\.pub)?$|etc/ssl/certs/ca-certificates\.crt$|etc/systemd/network/10-host0\.network$"
    r"|home/berny/|root/|tmp/|run/|var/(tmp|cache|backups)/|var/log/(?!berny)|var/lib/(apt|dbus|dpkg|systemd|ucf|private)/"
)


# Written for a package's installation, also into the golden root: a machine's overlay keeps that they were removed.
OF_PACKAGES = {
    file.removeprefix("/")
    for component in load_catalog().components.values()
    if component.packages
    for file in component.packages.files
}


def traces(cluster: Cluster, node: str) -> list[str]:
    """Return the files of a machine that neither the golden root has, with that content, nor the machine by itself."""
    folder = cluster.lab.machines[node].folder
    upper, golden = folder / "upper", Path((folder / "golden").read_text())
    files = (path.relative_to(upper) for path in upper.rglob("*") if path.is_symlink() or not path.is_dir())
    return sorted(str(path) for path in files if not OF_THE_MACHINE.match(str(path)) and not gone(upper, golden, path))


def gone(upper: Path, golden: Path, path: Path) -> bool:
    """Return whether a file is as it was before, such as Debian's /etc/hosts, or was removed and belonged to a package."""
    if (upper / path).is_char_device():
        return str(path) in OF_PACKAGES
    return all((root / path).is_file() for root in (upper, golden)) and filecmp.cmp(upper / path, golden / path, False)


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


def test_nothing_is_left(cluster: Cluster) -> None:
    units = "|".join(cluster.units())
    for node in cluster.groups["all"]:
        assert traces(cluster, node) == [], node
        assert cluster.processes() == {}
        assert not {int(uid) for uid in cluster.sh(node, "ps -eo uid=").split()} & USERS, node
        assert not {int(uid) for uid in cluster.sh(node, "getent passwd | cut -d: -f3").split()} & USERS, node
        assert not {int(gid) for gid in cluster.sh(node, "getent group | cut -d: -f3").split()} & USERS, node
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


def test_what_is_somebody_elses_is_told_by_name(cluster: Cluster) -> None:
    """On bare machines: a uid, a unit, SSH's door and a small home, before anything is written."""
    user = load_catalog().components["yarn"].user
    unit = "[Service]\\nExecStart=/usr/bin/python3 -m http.server 9092\\n"
    cluster.sh("worker_0", f"sudo useradd -u {user.uid} alice")
    cluster.sh("worker_2", f"printf '{unit}' | sudo tee /etc/systemd/system/kafka.service")
    cluster.sh("worker_2", "sudo systemctl daemon-reload && sudo systemctl start kafka")
    cluster.sh("worker_1", "echo 'AllowUsers berny' | sudo tee /etc/ssh/sshd_config.d/allow.conf")
    cluster.sh(
        "master", "mkdir -p ~/.ansible && sudo mount -t tmpfs -o size=64m,mode=0755,uid=$(id -u) small ~/.ansible"
    )
    try:
        told = play("site.yml", ok=False)
        serves = cluster.sh("worker_2", "systemctl show -P ActiveState,FragmentPath kafka")
    finally:
        cluster.sh("worker_0", "sudo userdel alice")
        cluster.sh("worker_2", "sudo systemctl stop kafka && sudo rm /etc/systemd/system/kafka.service")
        cluster.sh("worker_2", "sudo systemctl daemon-reload")
        cluster.sh("worker_1", "sudo rm /etc/ssh/sshd_config.d/allow.conf")
        cluster.sh("master", "sudo umount ~/.ansible")
    assert told.code != 0 and "PLAY [Converge the cluster]" not in told.output
    assert f"worker_0: the uid {user.uid} of Berny's user {user.name} is that of the user alice" in told.output, (
        told.tail
    )
    assert "worker_2: there is a kafka.service that is not Berny's" in told.output, told.tail
    assert "worker_1: its sshd does not let berny-control in from master (AllowUsers is berny)" in told.output, (
        told.tail
    )
    assert re.search(r"master: \S+/\.ansible/tmp: \d+ MiB are free, uploading an archive", told.output), told.tail
    assert serves.split() == ["active", "/etc/systemd/system/kafka.service"]


@pytest.mark.second_tier
def test_a_fresh_site_works_after(cluster: Cluster) -> None:
    play("site.yml")
    assert set(cluster.processes()) == {(node, unit) for unit, nodes in cluster.units().items() for node in nodes}
    for node in cluster.groups["all"]:
        cluster.sh(node, "sudo berny-probe --all --wait 120 --want healthy", timeout=150)
    cluster.flows()
    run = f"after-reset-{time.time():.0f}"
    cluster.load(run, 5)
    cluster.serve(25)
    cluster.settle(run)
