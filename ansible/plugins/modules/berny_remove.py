#!/usr/bin/python3
"""Remove from a node what berny_files wrote for an owner: its units are stopped first, its data goes only when asked."""

from __future__ import annotations

DOCUMENTATION = """
module: berny_remove
short_description: Remove an owner's units and files, unused archives, or all that a machine has of Berny
options:
  phase:
    description:
      - C(look) only tells the owners of files on this node.
      - C(owner) stops, disables and removes the units and files of one owner, and unmasks what was masked for it.
      - C(archives) removes the archives that no file mentions any more.
      - C(node) removes what every machine has, and the rest.
    choices: [look, owner, archives, node]
    type: str
    required: true
  owner: {description: A service, a stage, a component or a role., type: str}
  data: {description: 'Its data goes, too; with C(node) the users.', type: bool, default: false}
author: [Berny (@berny)]
"""
EXAMPLES = """
- name: Remove Kafka, and leave its data
  berny_remove: {phase: owner, owner: kafka}
"""
RETURN = """
owners: {description: The owners of files on this node., type: list, returned: with look}
remembered: {description: Those that were removed and left data., type: list, returned: with look}
stages: {description: The pipeline of each owner that is a stage., type: dict, returned: with look}
unrecorded: {description: Traces of Berny of which there is no record., type: list, returned: with look}
removed: {description: What went., type: list, returned: always}
left: {description: What is in data directories and is not the service's., type: list, returned: with data}
"""

import grp
import json
import os
import pwd
import re
import shutil
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

STATE = Path("/var/lib/berny")
RECORDS, BEFORE = STATE / "installed", STATE / "before"
UNITS, TMPFILES = Path("/etc/systemd/system"), Path("/etc/tmpfiles.d")
CONFIGURATION, RUNTIME, ARCHIVES = Path("/etc/berny"), Path("/run/berny"), Path("/opt/berny")
HELPERS = Path("/usr/local/lib/berny")
STAMPS = Path("/var/lib/systemd/timers")
KINDS = (".timer", ".target", ".socket", ".path", ".service")
DATA = Path("/data")
PROCESSES = Path("/proc")
# A unit that has this is Berny's, on record or not.
RECORD_START = re.compile(r"^ExecStartPre=\+/usr/local/lib/berny/record-start ", re.M)
# The catalog's users: only what they own is data of a service.
UIDS = range(6000, 7000)


def read_records() -> dict[str, dict[str, Any]]:
    """Return what is on record by owner."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(RECORDS.glob("*.json"))}


def unrecorded() -> list[str]:
    """Return what a node has of Berny that is not on record: units, and what the role ``node`` writes everywhere.

    A node whose records are gone is no empty one: nobody knows which archives and users it still needs. Both go before their
    records do, so a reset that was cut off leaves neither.
    """
    known = {file for record in read_records().values() for file in record.get("files", [])}
    units = [path for path in sorted(UNITS.glob("*.service")) if path.is_file() and str(path) not in known]
    found = [str(path) for path in units if RECORD_START.search(path.read_text(errors="replace"))]
    cluster = CONFIGURATION / "cluster.json"
    return [*found, str(cluster)] if cluster.exists() and str(cluster) not in known else found


def directories(tmpfiles: str) -> list[Path]:
    """Return the data directories of a service, out of its lines for systemd-tmpfiles, without those inside others."""
    found = [Path(line.split()[1]) for line in tmpfiles.splitlines() if line.startswith("d ")]
    return [path for path in found if not any(other in path.parents for other in found)]


def contents(path: Path) -> list[Path]:
    """Return what is in a directory, but for what a file system keeps for itself."""
    return [entry for entry in sorted(path.iterdir()) if entry.name != "lost+found"]


def unused(mentioned: str, links: set[str], folders: set[str]) -> tuple[set[str], set[str]]:
    """Return the links of /opt/berny and the folders of its archives that a text does not mention."""
    used = set(re.findall(rf"{ARCHIVES}/(?!archives/)([\w.-]+)", mentioned))
    named = set(re.findall(rf"{ARCHIVES}/archives/([\w.-]+)", mentioned))

    def name(folder: str) -> str:
        # A version begins with a digit: berny-NAME-0.1.0-… is no version of berny, also where the link berny-NAME is gone.
        return max((link for link in links if re.match(rf"{re.escape(link)}-\d", folder)), key=len, default="")

    used |= {name(folder) for folder in named}
    return links - used, {folder for folder in folders if folder not in named and name(folder) not in used}


class Remover:
    """Removes, or in check mode only tells."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.dry = module.check_mode
        self.removed: list[str] = []
        self.left: list[str] = []

    def systemctl(self, *words: str) -> str:
        code, out, err = self.module.run_command(["systemctl", *words])
        if code:
            self.module.fail_json(
                msg=f"systemctl {' '.join(words)}: {(out + err).strip()}. Run the play again: it continues here."
            )
        return str(out)

    def remove(self, path: Path) -> None:
        """Remove a file, a link or a folder with all that is in it."""
        if not path.exists() and not path.is_symlink():
            return
        self.removed.append(str(path))
        if self.dry:
            return
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()

    def restore_or_remove(self, path: Path) -> None:
        """Bring back what Berny wrote over; else remove the file."""
        before = BEFORE / path.relative_to("/")
        if not before.exists():
            self.remove(path)
            return
        self.removed.append(f"{path} (as it was)")
        if not self.dry:
            beside = path.with_name(f".{path.name}.berny")
            shutil.copy2(before, beside)
            beside.rename(path)
            before.unlink()

    def unmask(self, masks: dict[str, str]) -> None:
        """Unmask the operating system's units that were masked for an owner; they are as before, and are not started."""
        for unit, before in masks.items():
            link = UNITS / unit
            if not link.is_symlink() or str(link.readlink()) != "/dev/null":
                continue
            self.removed.append(f"mask of {unit}")
            if self.dry:
                continue
            self.systemctl("unmask", unit)
            # Installing the package has enabled it meanwhile.
            if before != "enabled" and self.systemctl("show", "-P", "UnitFileState", unit).strip() == "enabled":
                self.systemctl("disable", unit)

    def folders(self, names: list[str]) -> None:
        """Remove folders that were made for files, innermost first, where nothing is in them any more."""
        for name in sorted(names, reverse=True):
            with suppress(OSError):
                if not self.dry:
                    Path(name).rmdir()

    def stop(self, units: list[str]) -> None:
        """Stop and disable units; what cannot be stopped is told, and its files stay."""
        if not units:
            return
        self.removed += units
        if self.dry:
            return
        self.systemctl("disable", "--now", *units)
        self.kill(units)
        for unit in units:
            if self.systemctl("show", "-P", "ActiveState", unit).strip() not in ("inactive", "failed"):
                self.module.fail_json(msg=f"{unit} does not stop: see journalctl -u {unit}, and run the play again")

    @staticmethod
    def kill(units: list[str]) -> None:
        """End what units have started and that outlives them, as containers do a NodeManager: systemd forgets whose it is."""
        pattern = re.compile(rf"/({'|'.join(map(re.escape, units))})(/|$)", re.M)
        for group in PROCESSES.glob("[0-9]*/cgroup"):
            with suppress(OSError):
                if pattern.search(group.read_text()):
                    os.kill(int(group.parent.name), signal.SIGKILL)

    def data(self, path: Path) -> None:
        """Remove what our users own in a data directory; the mount, and what is somebody else's, stay."""
        if not path.is_dir():
            return
        for entry in contents(path):
            if entry.lstat().st_uid in UIDS:
                self.remove(entry)
            else:
                self.left.append(str(entry))
        if self.dry:
            return
        if path.stat().st_uid in UIDS:
            os.chown(path, 0, 0)
            path.chmod(0o755)
        for folder in (path, DATA):
            with suppress(OSError):
                folder.rmdir()

    # -- phases ------------------------------------------------------------------------------------------------------

    def owner(self, name: str, data: bool) -> None:
        """Stop, disable and remove one owner's units and files. Its record goes last: a run that was cut off goes on."""
        records = read_records()
        record = records.pop(name, {})
        shared = {file for other in records.values() for file in other.get("files", [])}
        files = [Path(file) for file in record.get("files", []) if file not in shared]
        units = [path.name for path in files if path.parent == UNITS and path.suffix in KINDS and path.exists()]
        self.stop(sorted(units, key=lambda unit: KINDS.index(Path(unit).suffix)))
        held = {Path(folder) for folder in record.get("data", [])}
        for path in files:
            if path.parent == TMPFILES and path.exists():
                held |= set(directories(path.read_text()))
        if data:
            for path in sorted(held):
                self.data(path)
        for path in files:
            self.restore_or_remove(path)
        self.remove(CONFIGURATION / name)
        self.remove(RUNTIME / name)
        masked = {unit for other in records.values() for unit in other.get("masks", {})}
        self.unmask({unit: was for unit, was in record.get("masks", {}).items() if unit not in masked})
        for unit in units:
            self.remove(STAMPS / f"stamp-{unit}")
        self.folders(record.get("folders", []))
        if units and not self.dry:
            self.systemctl("daemon-reload")
            # Only a unit that failed is still known; then it has a state to forget.
            self.module.run_command(["systemctl", "reset-failed", *units])
        remembered = {} if data else {"data": sorted(str(path) for path in held if path.is_dir() and contents(path))}
        if not self.dry and remembered.get("data"):
            stage = {"pipeline": record["pipeline"]} if record.get("pipeline") else {}
            self.keep_record(name, {**remembered, **stage})
        else:
            self.remove(RECORDS / f"{name}.json")

    def keep_record(self, name: str, record: dict[str, Any]) -> None:
        """Keep where data is that stays, for a reset that is to remove it."""
        path = RECORDS / f"{name}.json"
        beside = path.with_name(f".{path.name}.berny")
        beside.write_text(json.dumps(record, indent=1) + "\n")
        beside.rename(path)

    def archives(self) -> None:
        """Remove archives that no file on record mentions: neither a unit's inputs nor a command."""
        if not ARCHIVES.is_dir():
            return
        texts = []
        for record in read_records().values():
            for file in record.get("files", []):
                with suppress(OSError, UnicodeDecodeError):
                    texts.append(Path(file).read_text())
        links = {path.name for path in ARCHIVES.iterdir() if path.is_symlink()}
        folder = ARCHIVES / "archives"
        folders = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
        unused_links, unused_folders = unused("\n".join(texts), links, folders)
        for name in sorted(unused_links):
            self.remove(ARCHIVES / name)
        for name in sorted(unused_folders):
            self.remove(folder / name)

    def node(self, data: bool) -> None:
        """Remove what every machine has, when nothing else is left on it."""
        others = sorted(name for name, record in read_records().items() if name != "node" and record.get("files"))
        if others and not self.dry:
            self.module.fail_json(msg=f"{', '.join(others)} is still there: run the play again")
        users = self.users()
        self.owner("node", data)
        # Helpers beside their bytecode, which Python wrote.
        for path in (ARCHIVES, CONFIGURATION, RUNTIME, HELPERS):
            self.remove(path)
        if data:
            for user in users:
                self.removed.append(f"user {user}")
                if not self.dry:
                    self.module.run_command(["userdel", user], check_rc=True)
                    with suppress(KeyError):
                        grp.getgrnam(user)
                        self.module.run_command(["groupdel", user], check_rc=True)
        if not self.dry:
            self.folders([str(path) for path in STATE.rglob("*") if path.is_dir()] + [str(STATE)])

    @staticmethod
    def users() -> list[str]:
        """Return the users that are ours: by the catalog's range of uids, and by the name that sysusers gave them."""
        return [
            entry.pw_name for entry in pwd.getpwall() if entry.pw_uid in UIDS and entry.pw_gecos.startswith("Berny ")
        ]


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "phase": {"type": "str", "choices": ["look", "owner", "archives", "node"], "required": True},
            "owner": {"type": "str", "default": ""},
            "data": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    remover, words = Remover(module), module.params
    if words["phase"] == "look":
        records = read_records()
        installed = [name for name, record in records.items() if record.get("files") or record.get("masks")]
        left = [name for name in records if name not in installed]
        stages = {name: record["pipeline"] for name, record in records.items() if record.get("pipeline")}
        module.exit_json(changed=False, owners=installed, remembered=left, unrecorded=unrecorded(), stages=stages)
    if words["phase"] == "owner":
        remover.owner(words["owner"], words["data"])
    elif words["phase"] == "archives":
        remover.archives()
    else:
        remover.node(words["data"])
    module.exit_json(changed=bool(remover.removed), removed=remover.removed, left=remover.left)


if __name__ == "__main__":
    main()
