"""The golden root: one Debian that every machine's overlay lies on, made once."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from berny.controller.artifacts.store import cache_folder
from berny.controller.progress import Say, follow
from berny.lab.plan import LabError
from berny.model.catalog import SHARED, load_catalog
from berny.model.component import Packages
from berny.model.topology import read_mapping, selected_components

SUITE = "bookworm"
# What makes a minimal Debian a machine that boots and answers SSH; the rest is what nodes have anyway.
BOOT = ["dbus", "openssh-server", "systemd", "systemd-sysv", "udev"]
SETUP = r"""set -eu
root=$1
chroot "$root" useradd --create-home --shell /bin/bash berny
echo 'berny ALL=(ALL) NOPASSWD: ALL' > "$root/etc/sudoers.d/berny"
chmod 0440 "$root/etc/sudoers.d/berny"
chroot "$root" systemctl -q enable systemd-networkd ssh
chroot "$root" systemctl -q mask apt-daily.timer apt-daily-upgrade.timer systemd-networkd-wait-online.service \
  systemd-resolved.service console-getty.service e2scrub_all.timer fstrim.timer
printf 'PasswordAuthentication no\nUseDNS no\nMaxStartups 100\nMaxSessions 100\n' > "$root/etc/ssh/sshd_config.d/berny.conf"
printf 'LANG=C.UTF-8\n' > "$root/etc/default/locale"
rm -f "$root"/etc/ssh/ssh_host_* "$root/etc/machine-id" "$root/etc/hostname"
"""
# The box has mounted all that a container has: now and then there is something that this can't mount anew, and it fails.
CONTAINER_SETUP = rf"""{SETUP}
chroot "$root" systemctl -q mask systemd-remount-fs.service
"""


def packages() -> list[str]:
    """Return the packages of every machine."""
    return sorted({*BOOT, *yaml.safe_load((SHARED / "os_packages.yml").read_text())})


def of_components() -> list[Packages]:
    """Return the packages of the components that the lab's inventory selects: its machines fetch nothing."""
    components = selected_components(load_catalog(), read_mapping()).components.values()
    return [component.packages for component in components if component.packages]


def recipe() -> tuple[list[str], str]:
    """Return the packages and the setup of the golden root.

    Units that the packages start by themselves are disabled, not masked: the role masks them, as on any other machine.
    """
    found = of_components()
    names = {*packages(), *(name for one in found for name in one.names)}
    units = sorted({unit for one in found for unit in one.masks})
    disable = f'chroot "$root" systemctl -q disable {" ".join(units)}\n' if units else ""
    return sorted(names), CONTAINER_SETUP + disable


def golden_root() -> Path:
    """Return the folder of the golden root for today's packages and setup, whether it exists or not."""
    names, setup = recipe()
    key = hashlib.sha256("\n".join([SUITE, setup, *names]).encode()).hexdigest()[:12]
    return cache_folder() / "golden" / f"{SUITE}-{key}"


def make_golden(say: Say) -> Path:
    """Have the golden root; it is renamed into place when it is whole.

    Raises:
        LabError: mmdebstrap failed; the message ends with its last words.
    """
    target = golden_root()
    if target.is_dir():
        return target
    with making(target) as root:
        make_root(root, *recipe(), say)
    return target


@contextmanager
def making(target: Path) -> Iterator[Path]:
    """Yield a folder's name beside ``target``; what the block puts there is renamed into place, or removed if it fails."""
    target.parent.mkdir(parents=True, exist_ok=True)
    for stale in target.parent.glob(".making-*"):
        if not Path(f"/proc/{stale.suffix.lstrip('.')}").exists():
            _remove(stale)
    folder = target.parent / f".making-{target.name}.{os.getpid()}"
    try:
        yield folder
        folder.rename(target)
    except BaseException:
        _remove(folder)
        raise


def _remove(folder: Path) -> None:
    """Remove a root that was not finished; mmdebstrap that was killed leaves the box's own file systems mounted in it."""
    points = [Path(line.split()[1]) for line in Path("/proc/mounts").read_text().splitlines()]
    for point in sorted((point for point in points if point.is_relative_to(folder)), reverse=True):
        subprocess.run(["umount", str(point)], check=True)
    shutil.rmtree(folder, ignore_errors=True)


def make_root(root: Path, include: list[str], setup: str, say: Say, *options: str) -> None:
    """Make a Debian in a folder that is not there yet.

    Raises:
        LabError: mmdebstrap or the script ``setup`` failed; the message ends with its last words.
    """
    # The folder must be readable by the user that apt drops to.
    command = ["mmdebstrap", "--variant=minbase", "--aptopt=Acquire::Retries 5", f"--include={','.join(include)}"]
    code, words = follow([*command, *options, "--mode=root", SUITE, str(root)], lambda line: say(line.strip()[:70]))
    if code:
        raise LabError("mmdebstrap could not make the machines' root: " + " ".join(words[-4:]))
    done = subprocess.run(["sh", "-c", setup, "sh", str(root)], capture_output=True, text=True)
    if done.returncode:
        raise LabError(f"the machines' root could not be set up: {done.stderr.strip()[-400:]}")
