#!/usr/bin/python3
"""Format empty data disks, and mount data disks by UUID."""

from __future__ import annotations

DOCUMENTATION = """
module: berny_disks
short_description: Format empty data disks and mount them
description:
  - A device with nothing on it gets an ext4 file system with the label C(berny). One with such a file system for the same
    folder is mounted. Any other is refused by name, and nothing is done to any disk.
  - Mounts are by UUID in C(/etc/fstab), so a device may have another name after a reboot.
options:
  disks: {description: Where each device is mounted, required: true, type: dict}
author: [Berny (@berny)]
"""
EXAMPLES = """
- name: Mount data disks
  berny_disks:
    disks: {/dev/disk/azure/scsi1/lun0: /data/hdfs-datanode}
"""
RETURN = """
formatted: {description: Devices that got a file system., type: list, returned: always}
mounted: {description: Folders that were mounted., type: list, returned: always}
"""

import os
import re
import stat
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

LABEL = "berny"
MOUNT_POINT = re.compile(r"/data(/[a-z][a-z0-9-]*)?")
OPTIONS = "defaults,noatime,nofail,x-systemd.device-timeout=60"
"""A machine whose disk is missing must still boot and answer SSH; units do not start without their mount."""
BLANK = 1 << 20


def is_blank(device):
    """Tell whether the first and last MiB are all zero: raw volumes and plain encryption have no signature."""
    with Path(device).open("rb") as disk:
        size = disk.seek(0, 2)
        for start in (0, max(0, size - BLANK)):
            disk.seek(start)
            if disk.read(BLANK).strip(b"\0"):
                return False
    return size > 0


def describe(run, device):
    """Return what is on a device: type, label, uuid, and the folder it was made for; nothing for an empty one.

    ``run`` runs a command and returns code, output and words of error.
    """
    code, out, words = run(["blkid", "-p", "-o", "export", str(device)])
    if code not in (0, 2):
        return {"type": f"something that blkid can't tell ({words.strip() or code})"}
    found = dict(line.split("=", 1) for line in out.splitlines() if "=" in line)
    facts = {
        "type": found.get("TYPE") or found.get("PTTYPE", ""),
        "label": found.get("LABEL"),
        "uuid": found.get("UUID"),
    }
    if found.get("PTTYPE") and not found.get("TYPE"):
        facts["type"] += " partition table"
    if facts["type"] == "ext4" and facts["label"] == LABEL:
        _, out, _ = run(["dumpe2fs", "-h", str(device)])
        last = re.search(r"^Last mounted on:\s+(.+)$", out, re.M)
        facts["folder"] = last[1] if last else "<not available>"
    elif not facts["type"]:
        _, out, _ = run(["wipefs", "--noheadings", "--output", "TYPE", str(device)])
        kinds = sorted(set(out.split()))
        if kinds:
            facts["type"] = ", ".join(kinds)
        elif not is_blank(device):
            facts["type"] = "data without a signature"
        else:
            return None
    return facts


def refusal(device, folder, facts):
    """Return why a disk is not touched, with the remedy, or nothing where it is empty or ours."""
    if facts is None:
        return None
    if facts["type"] != "ext4" or facts["label"] != LABEL:
        name = f", labelled {facts['label']}" if facts.get("label") else ""
        return (
            f"{device} holds {facts['type']}{name}: nothing was done to it. If nobody needs that, clear it "
            f"(wipefs --all {device}; dd if=/dev/zero of={device} bs=1M count=1), or name another device"
        )
    if facts["folder"] != folder:
        return (
            f"{device} holds the data of {facts['folder']}, not of {folder}: kernel names change over a reboot, so name "
            f"disks as /dev/disk/by-id or /dev/disk/azure does; if it is to serve there: tune2fs -M {folder} {device}"
        )
    return None


def in_use(device, number, mounts, sys):
    """Return what uses a device: where it is mounted, its partitions, or what is made of it."""
    found = [f"is mounted at {folder}" for where, folder in mounts if where == number]
    block = sys / "dev" / "block" / number
    found += [f"has the partition {path.parent.name}" for path in sorted(block.glob("*/partition"))]
    found += [f"belongs to {path.name}" for path in sorted(block.glob("holders/*"))]
    return found


def read_mounts(text):
    """Return (device number, folder) of each mount in ``/proc/self/mountinfo``."""
    return [(words[2], words[4]) for words in map(str.split, text.splitlines())]


def with_mount(fstab, uuid, folder):
    """Return ``/etc/fstab`` with the disk's one line; a line of the same folder or disk is replaced."""
    line = f"UUID={uuid} {folder} ext4 {OPTIONS} 0 2"
    kept = [
        old for old in fstab.splitlines() if old.startswith("#") or not {f"UUID={uuid}", folder} & set(old.split()[:2])
    ]
    before = [
        old for old in fstab.splitlines() if not old.startswith("#") and {f"UUID={uuid}", folder} & set(old.split()[:2])
    ]
    return fstab if before == [line] else "\n".join([*kept, line]) + "\n"


class Disk:
    """One device of the inventory, where it belongs, and what is known of it."""

    def __init__(self, module, device, folder):
        self.device, self.folder = device, folder
        self.problem, self.facts, self.mounted = None, None, False
        if not MOUNT_POINT.fullmatch(folder):
            self.problem = f"{device}: {folder!r} is no folder for data: use /data, or /data/SERVICE"
            return
        try:
            status = Path(device).stat()
        except FileNotFoundError:
            self.problem = (
                f"{device} is not there: attach the disk, or see what there is (lsblk, ls -l /dev/disk/by-id)"
            )
            return
        if not stat.S_ISBLK(status.st_mode):
            self.problem = f"{device} is no block device"
            return
        number = f"{status.st_rdev >> 8 & 0xFFF}:{status.st_rdev & 0xFF | status.st_rdev >> 12 & 0xFFF00}"
        mounts = read_mounts(Path("/proc/self/mountinfo").read_text())
        self.facts = describe(module.run_command, device)
        self.mounted = (number, folder) in mounts
        others = in_use(device, number, [mount for mount in mounts if mount != (number, folder)], Path("/sys"))
        if others:
            self.problem = f"{device} {', '.join(others)}: nothing was done to it; name another device"
        else:
            self.problem = refusal(device, folder, self.facts) or self._hidden()

    def _hidden(self):
        """Refuse to mount over files: they would be gone from the service that wrote them."""
        place = Path(self.folder)
        if self.mounted or not place.is_dir() or place.is_mount() or not any(place.iterdir()):
            return None
        return f"{self.folder} holds files that {self.device} would hide: move them away, or on the disk, first"


def main():
    module = AnsibleModule(argument_spec={"disks": {"type": "dict", "required": True}}, supports_check_mode=True)

    def do(*command):
        module.run_command(list(command), check_rc=True)

    disks = [Disk(module, *pair) for pair in sorted(module.params["disks"].items(), key=lambda pair: pair[1])]
    folders = [disk.folder for disk in disks]
    problems = [disk.problem for disk in disks if disk.problem]
    problems += [f"{folder} is given to two devices" for folder in sorted(set(folders)) if folders.count(folder) > 1]
    if problems:
        module.fail_json(msg=" | ".join(problems))
    formatted = [disk for disk in disks if disk.facts is None]
    mounted = [disk for disk in disks if not disk.mounted]
    fstab = Path("/etc/fstab")
    before = after = fstab.read_text() if fstab.exists() else ""
    for disk in [] if module.check_mode else formatted:
        do("mkfs.ext4", "-q", "-m", "0", "-L", LABEL, "-M", disk.folder, disk.device)
        disk.facts = describe(module.run_command, disk.device)
    for disk in disks:
        if disk.facts:
            after = with_mount(after, disk.facts["uuid"], disk.folder)
    if not module.check_mode:
        if after != before:
            beside = fstab.with_name(".fstab.berny")
            beside.write_text(after)
            beside.chmod(0o644)
            beside.rename(fstab)
            do("systemctl", "daemon-reload")
        os.umask(0o022)
        for disk in mounted:
            Path(disk.folder).mkdir(parents=True, exist_ok=True)
            do("mount", disk.folder)
    diff = {"before_header": str(fstab), "after_header": str(fstab), "before": before, "after": after}
    module.exit_json(
        changed=bool(formatted or mounted or after != before),
        formatted=[disk.device for disk in formatted],
        mounted=[disk.folder for disk in mounted],
        diff=diff if after != before else {},
    )


if __name__ == "__main__":
    main()
