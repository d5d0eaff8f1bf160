"""The golden root: one Debian file system, created once, which is the lower layer of every machine's overlay."""

from __future__ import annotations

import hashlib
import os
import shlex
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
# What a minimal Debian needs to boot and accept SSH; the rest is installed on every node anyway.
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
# The host has mounted all file systems of a container; occasionally the service can't remount one, and fails.
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


def hooks() -> list[str]:
    """Return the options of mmdebstrap that write the files which components' packages find as they are installed."""
    files = {path: text for one in of_components() for path, text in one.files.items()}
    write = 'mkdir -p "$1"{folder} && printf %s {text} > "$1"{path}'
    return [
        f"--essential-hook={write.format(folder=Path(path).parent, text=shlex.quote(text), path=path)}"
        for path, text in sorted(files.items())
    ]


def golden_root() -> Path:
    """Return the folder of the golden root for today's packages and setup, whether it exists or not."""
    names, setup = recipe()
    key = hashlib.sha256("\n".join([SUITE, setup, *names, *hooks()]).encode()).hexdigest()[:12]
    return cache_folder() / "golden" / f"{SUITE}-{key}"


def make_golden(say: Say) -> Path:
    """Create the golden root if it is missing; it is renamed into place when complete.

    Raises:
        LabError: mmdebstrap failed; the message ends with its last output.
    """
    target = golden_root()
    if target.is_dir():
        return target
    with making(target) as root:
        make_root(root, *recipe(), say, *hooks())
    return target


@contextmanager
def making(target: Path) -> Iterator[Path]:
    """Yield a path beside ``target``; what the block creates there is renamed into place, or removed if it fails."""
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
    """Remove an incomplete root; if mmdebstrap was killed, file systems of the host may still be mounted in it."""
    points = [Path(line.split()[1]) for line in Path("/proc/mounts").read_text().splitlines()]
    for point in sorted((point for point in points if point.is_relative_to(folder)), reverse=True):
        subprocess.run(["umount", str(point)], check=True)
    shutil.rmtree(folder, ignore_errors=True)


def make_root(root: Path, include: list[str], setup: str, say: Say, *options: str) -> None:
    """Create a Debian file system in a folder that does not exist yet.

    Raises:
        LabError: mmdebstrap or the script ``setup`` failed; the message ends with its last output.
    """
    # The folder must be readable by the unprivileged user that apt switches to.
    command = ["mmdebstrap", "--variant=minbase", "--aptopt=Acquire::Retries 5", f"--include={','.join(include)}"]
    code, words = follow([*command, *options, "--mode=root", SUITE, str(root)], lambda line: say(line.strip()[:70]))
    if code:
        raise LabError("mmdebstrap could not make the machines' root: " + " ".join(words[-4:]))
    done = subprocess.run(["sh", "-c", setup, "sh", str(root)], capture_output=True, text=True)
    if done.returncode:
        raise LabError(f"the machines' root could not be set up: {done.stderr.strip()[-400:]}")
