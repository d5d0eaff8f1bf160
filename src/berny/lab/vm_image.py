"""The guest's image: the lab's Debian with its own kernel, created once, and booted through an overlay."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from berny.controller.artifacts.store import cache_folder
from berny.controller.progress import Say
from berny.lab.box import run
from berny.lab.golden import SETUP, SUITE, make_root, making, packages

# Cloud images have python3-apt, outdated package lists, and cloud-init, which does nothing without a data source.
PACKAGES = ["cloud-init", "initramfs-tools", "linux-image-cloud-amd64", "python3-apt"]
KEPT = "--skip=cleanup/apt/lists"
GIB = 4
LABEL = "berny-vm"
# What differs between guests (name, network, keys) is on a disk that is an archive.
SEED = "berny-seed"
VM_SETUP = rf"""{SETUP}
cat > "$root/etc/systemd/system/{SEED}.service" <<'EOF'
[Unit]
Description=Unpack what this guest is told by its box
DefaultDependencies=no
After=systemd-remount-fs.service dev-disk-by\x2did-virtio\x2dberny\x2dseed.device
Requires=dev-disk-by\x2did-virtio\x2dberny\x2dseed.device
Before=systemd-networkd.service ssh.service sysinit.target
ConditionPathExists=!/etc/{SEED}
[Service]
Type=oneshot
ExecStart=tar -C / -xf /dev/disk/by-id/virtio-{SEED}
[Install]
WantedBy=sysinit.target
EOF
chroot "$root" systemctl -q enable {SEED}
printf 'LABEL={LABEL} / ext4 defaults 0 1\n' > "$root/etc/fstab"
chroot "$root" apt-cache -q gencaches
"""


def image_folder() -> Path:
    """Return the folder of the image for today's package list, whether it exists or not."""
    key = hashlib.sha256("\n".join([SUITE, VM_SETUP, KEPT, str(GIB), *PACKAGES, *packages()]).encode()).hexdigest()[:12]
    return cache_folder() / "vm" / f"{SUITE}-{key}"


def make_image(say: Say) -> Path:
    """Create ``root.img``, ``vmlinuz`` and ``initrd.img`` in one folder; it is renamed into place when complete.

    Raises:
        LabError: a command failed; the message has its output.
    """
    target = image_folder()
    if target.is_dir():
        return target
    with making(target) as folder:
        folder.mkdir()
        folder.chmod(0o755)
        root = folder / "root"
        make_root(root, sorted({*packages(), *PACKAGES}), VM_SETUP, say, KEPT)
        say("file system")
        for name in ("vmlinuz", "initrd.img"):
            shutil.copyfile(root / str((root / name).readlink()).lstrip("/"), folder / name)
        image = folder / "root.img"
        with image.open("wb") as file:
            file.truncate(GIB << 30)
        run(["mkfs.ext4", "-q", "-m", "0", "-L", LABEL, "-d", str(root), str(image)])
        shutil.rmtree(root)
    return target
