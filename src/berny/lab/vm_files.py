"""The files of a guest: its keys, the inventory that reaches it, and its disks."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import yaml

from berny.lab import box
from berny.lab.vm_image import SEED
from berny.lab.vm_plan import GuestPlan

DATA_DISKS = {"data": 512, "other": 64}
"""Serial number and MiB of the guest's empty disks."""


def write_state(plan: GuestPlan) -> None:
    """Write the guest's network, keys, SSH configuration and inventory."""
    folder = plan.folder
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "network").write_text(str(plan.network))
    for name in ("id_ed25519", "ssh_host_ed25519_key"):
        box.make_key(folder / name, plan.id)
    host_key = (folder / "ssh_host_ed25519_key.pub").read_text()
    (folder / "known_hosts").write_text(f"{plan.public} {host_key}")
    (folder / "ssh_config").write_text(
        f"Host guest\nHostName {plan.public}\nUser berny\nIdentityFile {folder / 'id_ed25519'}\n"
        f"UserKnownHostsFile {folder / 'known_hosts'}\nIdentitiesOnly yes\nConnectTimeout 5\nLogLevel ERROR\n"
    )
    (folder / "hosts.yml").write_text(yaml.safe_dump(plan.inventory(), sort_keys=False))


def make_disks(plan: GuestPlan, image: Path) -> None:
    """Create the disks that are missing: an overlay of the image, the data disks, the seed."""
    folder = plan.folder
    if not (folder / "root.qcow2").exists():
        making = folder / "root.new"
        base = ["-b", str(image / "root.img"), "-F", "raw"]
        box.run(["qemu-img", "create", "-q", "-f", "qcow2", *base, str(making)])
        making.rename(folder / "root.qcow2")
    for serial, mib in DATA_DISKS.items():
        with (folder / f"{serial}.img").open("ab") as file:
            file.truncate(mib << 20)
    write_seed(plan, folder / f"{SEED}.img")


def write_seed(plan: GuestPlan, path: Path) -> None:
    """Write what differs between guests as an archive that the guest reads from a disk."""
    folder = plan.folder
    link = f"[Match]\nType=ether\n[Network]\nAddress={plan.address}/24\nGateway={plan.gateway}\n"
    files: dict[str, tuple[bytes, int, int]] = {
        f"etc/{SEED}": (b"", 0o644, 0),
        "etc/hostname": (b"guest\n", 0o644, 0),
        "etc/systemd/network/10-guest.network": (link.encode(), 0o644, 0),
        "home/berny/.ssh/authorized_keys": ((folder / "id_ed25519.pub").read_bytes(), 0o600, 1000),
    }
    for kind, mode in (("", 0o600), (".pub", 0o644)):
        name = f"ssh_host_ed25519_key{kind}"
        files[f"etc/ssh/{name}"] = ((folder / name).read_bytes(), mode, 0)
    for shared in ("resolv.conf", "ssl/certs/ca-certificates.crt"):
        if Path("/etc", shared).exists():
            files[f"etc/{shared}"] = (Path("/etc", shared).read_bytes(), 0o644, 0)
    with tarfile.open(path, "w") as archive:
        for name, (data, mode, owner) in files.items():
            facts = tarfile.TarInfo(name)
            facts.size, facts.mode, facts.uid, facts.gid = len(data), mode, owner, owner
            archive.addfile(facts, io.BytesIO(data))
