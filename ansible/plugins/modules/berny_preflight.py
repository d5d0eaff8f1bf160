#!/usr/bin/python3
"""Read, in one go, all of a node that a converge depends on; changes nothing. ``controller/preflight`` judges it."""

from __future__ import annotations

DOCUMENTATION = """
module: berny_preflight
short_description: Read system, memory, disks, listeners, limits, what is installed, and whether other nodes are reached
options:
  ports: {description: Ports whose listeners are told., type: list, elements: int, default: []}
  directories: {description: Directories whose file systems are told., type: list, elements: path, default: []}
  mounts: {description: 'Data disks that the role node would mount: device and folder.', type: dict, default: {}}
  peers: {description: 'Of other nodes, by name: address, SSH port (ssh), services'' (ports).', type: dict, default: {}}
  placed: {description: Owners whose units need not be told., type: list, elements: str, default: []}
  units: {description: Units that are to be written here., type: list, elements: str, default: []}
  users: {description: Users that are to be here with the uid and gid of each., type: dict, default: {}}
  kept: {description: 'Settings that data has on record: a line''s key, and files.', type: dict, default: {}}
  logins: {description: 'Logins by SSH: user, machine, address (of who comes).', type: list, elements: dict, default: []}
  scratch: {description: Where files of a play are put first., type: str, default: ~/.ansible/tmp}
author: [Berny (@berny)]
"""
EXAMPLES = """
- name: Look
  berny_preflight:
    ports: [9092]
    peers: {worker_2: {address: 192.0.2.13, ssh: 22, ports: [9092]}}
"""
RETURN = """
facts: {description: What was read., type: dict, returned: always}
"""

import grp
import json
import os
import pwd
import re
import shutil
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

RECORDS = Path("/var/lib/berny/installed")
UNITS = Path("/etc/systemd/system")
# Where systemd finds units, what is in the first hides the others.
UNIT_FOLDERS = (
    UNITS,
    Path("/run/systemd/system"),
    Path("/usr/local/lib/systemd/system"),
    Path("/usr/lib/systemd/system"),
)
# A unit that has this is Berny's, on record or not.
RECORD_START = re.compile(r"^ExecStartPre=\+/usr/local/lib/berny/record-start ", re.M)
SSHD = Path("/usr/sbin/sshd")
NFT = Path("/usr/sbin/nft")
LISTEN = "0A"
QUICK_SECONDS, REACH_SECONDS = 1, 3
ATTEMPTS = 2
CAP_SYS_RESOURCE = 24
# The catalog's users; what they run is ours.
UIDS = range(6000, 7000)


def listening(table: str) -> dict[int, set[str]]:
    """Return the sockets (inodes) by port that listen, out of ``/proc/net/tcp`` or ``tcp6``."""
    found: dict[int, set[str]] = {}
    for line in table.splitlines()[1:]:
        words = line.split()
        if words[3] == LISTEN:
            found.setdefault(int(words[1].rsplit(":", 1)[1], 16), set()).add(words[9])
    return found


def unit_of(control_group: str) -> str:
    """Return the service that a process belongs to, out of ``/proc/PID/cgroup``."""
    found = re.findall(r"/([^/\n]+\.service)", control_group)
    return str(found[-1]) if found else ""


def listeners(ports: list[int]) -> list[dict[str, Any]]:
    """Return who listens on which of the ports."""
    sockets: dict[str, int] = {}
    for table in ("tcp", "tcp6"):
        with suppress(OSError):
            for port, inodes in listening(Path("/proc/net", table).read_text()).items():
                if port in ports:
                    sockets |= dict.fromkeys(inodes, port)
    found: dict[tuple[int, str], dict[str, Any]] = {}
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            for descriptor in os.scandir(process / "fd"):
                with suppress(OSError):
                    taken = sockets.pop(str(Path(descriptor.path).readlink())[8:-1], None)
                    if taken is None:
                        continue
                    unit = unit_of((process / "cgroup").read_text())
                    name = (process / "comm").read_text().strip()
                    found[taken, unit] = {"port": taken, "pid": int(process.name), "process": name, "unit": unit}
        if not sockets:
            break
    unseen = [{"port": port, "pid": 0, "process": "an unseen program", "unit": ""} for port in sockets.values()]
    return [*found.values(), *unseen]


def memory() -> dict[str, int]:
    """Return the machine's memory, what is available and what our processes have, in MiB."""
    lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    ours = 0
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if process.stat().st_uid in UIDS:
                ours += int((process / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return {
        "total": int(lines["MemTotal"].split()[0]) // 1024,
        "available": int(lines["MemAvailable"].split()[0]) // 1024,
        "ours": ours >> 20,
    }


def disk(path: Path, mounts: dict[str, str]) -> dict[str, Any]:
    """Return the file system that a directory is on, or would be, and whether there is anything in it."""
    for device, folder in mounts.items():
        if path.is_relative_to(folder) and Path(device).is_block_device() and not Path(folder).is_mount():
            with Path(device).open("rb") as file:
                size = file.seek(0, os.SEEK_END)
            return {"device": Path(device).stat().st_rdev, "total": size, "free": size, "used": False}
    there = next(folder for folder in (path, *path.parents) if folder.exists())
    usage = shutil.disk_usage(there)
    used = there == path and any(entry.name != "lost+found" for entry in path.iterdir())
    return {"device": there.stat().st_dev, "total": usage.total, "free": usage.free, "used": used}


def limits() -> dict[str, Any]:
    """Return what bounds the open files of units."""
    hard = next(line for line in Path("/proc/1/limits").read_text().splitlines() if line.startswith("Max open files"))
    capabilities = re.search(r"^CapEff:\s*(\w+)", Path("/proc/1/status").read_text(), re.M)
    return {
        "nr_open": int(Path("/proc/sys/fs/nr_open").read_text()),
        "file_max": int(Path("/proc/sys/fs/file-max").read_text()),
        "hard": int(hard.split()[4]) if hard.split()[4] != "unlimited" else sys.maxsize,
        "may_raise": bool(int(capabilities[1], 16) >> CAP_SYS_RESOURCE & 1) if capabilities else False,
    }


def owners(module: AnsibleModule) -> dict[str, Any]:
    """Return the owners of files on this node, with the state of the units of those that are not placed here."""
    found: dict[str, Any] = {}
    for record in sorted(RECORDS.glob("*.json")):
        files = map(Path, json.loads(record.read_text()).get("files", []))
        units = [path.name for path in files if path.parent == UNITS and path.suffix in (".service", ".timer")]
        found[record.stem] = {"units": {unit: "" for unit in units if (UNITS / unit).exists()}}
    for owner, facts in found.items():
        for unit in facts["units"] if owner not in module.params["placed"] else ():
            properties = "--property=ActiveState,UnitFileState"
            _, out, _ = module.run_command(["systemctl", "show", unit, properties, "--value"])
            state, enabled = [*out.split(), "", ""][:2]
            facts["units"][unit] = "off" if state in ("inactive", "failed") and enabled != "enabled" else state
    return found


def recorded() -> set[str]:
    """Return the files that are on record."""
    return {str(file) for record in RECORDS.glob("*.json") for file in json.loads(record.read_text()).get("files", [])}


def read(path: Path) -> str:
    """Return a file's text, or nothing where there is none."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def unrecorded() -> list[str]:
    """Return Berny's units of which there is no record."""
    known = recorded()
    units = [path for path in sorted(UNITS.glob("*.service")) if path.is_file() and str(path) not in known]
    return [path.stem for path in units if RECORD_START.search(read(path))]


def foreign(units: list[str]) -> list[dict[str, str]]:
    """Return the units of these names that somebody else has made: where, and what they run. One that ours hides is none."""
    known, found = recorded(), []
    for unit in units:
        path = next((path for path in (folder / f"{unit}.service" for folder in UNIT_FOLDERS) if path.is_file()), None)
        text = read(path) if path else ""
        if path and str(path) not in known and not RECORD_START.search(text):
            runs = re.search(r"^ExecStart=(.+)$", text, re.M)
            found.append({"unit": unit, "path": str(path), "runs": runs[1].strip() if runs else ""})
    return found


def accounts(users: dict[str, int]) -> list[dict[str, Any]]:
    """Return what is there of users and groups: by each name its number, and by each number the name that has it."""
    found = []
    for name, number in users.items():
        facts: dict[str, Any] = {"name": name, "wanted": number}
        for kind, by_name, by_number in (
            ("user", lambda name: pwd.getpwnam(name).pw_uid, lambda number: pwd.getpwuid(number).pw_name),
            ("group", lambda name: grp.getgrnam(name).gr_gid, lambda number: grp.getgrgid(number).gr_name),
        ):
            facts[kind] = {"number": None, "name": ""}
            with suppress(KeyError):
                facts[kind]["number"] = by_name(name)
            with suppress(KeyError):
                facts[kind]["name"] = by_number(number)
        with suppress(KeyError):
            facts["primary"] = pwd.getpwnam(name).pw_gid
        found.append(facts)
    return found


def kept(wanted: dict[str, Any]) -> dict[str, dict[str, str]]:
    """Return the values that data has on record, by setting and file."""
    found: dict[str, dict[str, str]] = {}
    for name, facts in wanted.items():
        for file in facts["files"]:
            line = re.search(rf"^{re.escape(facts['key'])}=(.*)$", read(Path(file)), re.M)
            if line:
                found.setdefault(name, {})[file] = line[1].strip()
    return found


def logins(module: AnsibleModule) -> list[dict[str, Any]]:
    """Return what sshd says of each login: whom it lets in, and whether by key."""
    found = []
    for login in module.params["logins"] if SSHD.exists() else ():
        spec = f"user={login['user']},host={login['machine']},addr={login['address']}"
        code, out, _ = module.run_command([str(SSHD), "-T", "-C", spec])
        rules: dict[str, list[str]] = {}
        for line in out.splitlines() if code == 0 else ():
            key, _, value = line.partition(" ")
            if key in ("allowusers", "denyusers", "allowgroups", "denygroups", "pubkeyauthentication"):
                rules.setdefault(key, []).extend(value.split())
        found.append({**login, "rules": rules})
    return found


def home(path: str) -> Path:
    """Return a folder of who logged in: sudo says who that is."""
    user = os.environ.get("SUDO_USER", "")
    try:
        return Path(path.replace("~", f"~{user}", 1) if path.startswith("~/") else path).expanduser()
    except RuntimeError:
        return Path(path).expanduser()


def answers(address: str, port: int, seconds: float) -> str:
    """Return why nothing answers there, or nothing. Who refuses a connection was reached as well."""
    try:
        with socket.create_connection((address, port), seconds):
            return ""
    except ConnectionRefusedError:
        return ""
    except OSError as error:
        return f"{address} port {port}: {error}"


def reaches(peer: dict[str, Any]) -> str:
    """Return why a node is not reached, or nothing. A firewall may keep SSH to operators, but not what members ask for."""
    why = answers(peer["address"], peer["ssh"], QUICK_SECONDS)
    for port in peer["ports"][:ATTEMPTS] if why else ():
        if not answers(peer["address"], port, REACH_SECONDS):
            return ""
    return why


def admitted(module: AnsibleModule) -> list[str] | None:
    """Return the addresses that Berny's firewall has for nodes, or None where it is not loaded."""
    if not NFT.exists():
        return None
    code, out, _ = module.run_command([str(NFT), "-j", "list", "set", "inet", "berny", "nodes"])
    if code:
        return None
    sets = [entry["set"] for entry in json.loads(out)["nftables"] if "set" in entry]
    return [str(address) for one in sets for address in one.get("elem", [])]


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "ports": {"type": "list", "elements": "int", "default": []},
            "directories": {"type": "list", "elements": "path", "default": []},
            "mounts": {"type": "dict", "default": {}},
            "peers": {"type": "dict", "default": {}},
            "placed": {"type": "list", "elements": "str", "default": []},
            "units": {"type": "list", "elements": "str", "default": []},
            "users": {"type": "dict", "default": {}},
            "kept": {"type": "dict", "default": {}},
            "logins": {"type": "list", "elements": "dict", "default": []},
            "scratch": {"type": "str", "default": "~/.ansible/tmp"},
        },
        supports_check_mode=True,
    )
    peers = module.params["peers"]
    with ThreadPoolExecutor(max(len(peers), 1)) as pool:
        reached = dict(zip(peers, pool.map(reaches, peers.values()), strict=True))
    release = Path("/etc/os-release")
    lines = release.read_text().splitlines() if release.exists() else []
    system = dict(line.split("=", 1) for line in lines if "=" in line)
    scratch = home(module.params["scratch"])
    facts = {
        "id": system.get("ID", "").strip('"'),
        "version": system.get("VERSION_ID", "").strip('"'),
        "machine": os.uname().machine,
        "python": f"{sys.version_info.major}.{sys.version_info.minor}",
        "root": os.geteuid() == 0,
        "systemd": Path("/run/systemd/system").is_dir(),
        "boot": Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        # With the kernel's boot it is one machine for sure; numbers of machines are copied with their disks.
        "processes": str(Path("/proc/self/ns/pid").readlink()),
        "memory": memory(),
        "disks": {
            str(path): disk(Path(path), module.params["mounts"])
            for path in [*module.params["directories"], "/opt/berny"]
        },
        "scratch": {"path": str(scratch), **disk(scratch, {})},
        "listeners": listeners(module.params["ports"]),
        "limits": limits(),
        "owners": owners(module),
        "unrecorded": unrecorded(),
        "foreign": foreign(module.params["units"]),
        "accounts": accounts(module.params["users"]),
        "kept": kept(module.params["kept"]),
        "logins": logins(module),
        "reach": reached,
        "admitted": admitted(module),
    }
    module.exit_json(changed=False, facts=facts)


if __name__ == "__main__":
    main()
