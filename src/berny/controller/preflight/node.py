"""Checks of one node: its readings against what the inventory places there."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from berny.controller.placement import Need
from berny.controller.preflight.finding import Finding

SYSTEM = ("debian", "12", "x86_64", "3.11")
"""What the catalog's archives and packages are built for: operating system, its version, processor, Python."""
INSTALL_GIB = 3
"""Unpacked archives, on the file system of /opt."""
TRANSFER_MIB = 512
"""The largest archive, packed: it is uploaded to the home of the SSH user before it is unpacked."""
FULL = 0.05
NOMINAL = 0.9
"""A file system has a little less space than its disk."""
LEAST_OPEN = 0.25
"""Share of a unit's limit of open files; systemd silently grants fewer where it has to."""
Clock = tuple[float, float, float]
"""When the controller sent the request, the node's time, when the controller received the response."""


@dataclass
class Node:
    """What is known about a node. ``facts`` are its readings (``ansible/plugins/modules/berny_preflight.py``)."""

    need: Need
    placed: set[str]
    groups: Mapping[str, str]
    """The inventory group of each unit."""
    nofile: int
    """The limit of open files that each unit needs."""
    packaged: Mapping[str, str] = field(default_factory=dict)
    """Units of operating system packages that are masked on installation, with the package of each."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Settings that are recorded in data and can't change."""
    address: str = ""
    """Where other nodes find it, and what they see connections from."""
    facts: dict[str, Any] = field(default_factory=dict)
    failure: str = ""
    """Why the node could not be read."""
    clock: Clock | None = None


def system(name: str, node: Node) -> list[Finding]:
    """Check operating system, processor and Python, which archives are built for; root; systemd."""
    facts, found = node.facts, []
    for key, wanted, what in zip(
        ("id", "version", "machine", "python"),
        SYSTEM,
        ("system", "system's version", "processor", "Python"),
        strict=True,
    ):
        if facts[key] != wanted:
            found.append(f"its {what} is {facts[key] or 'unknown'}, Berny needs {wanted}: install Debian 12 for x86-64")
    if not facts["root"]:
        found.append("its user does not become root: let it use sudo, and set ansible_become: true")
    if not facts["systemd"]:
        found.append("its first process is not systemd: boot it as a machine, not as a container of one program")
    return [Finding("system", name, text) for text in found]


def ports(name: str, node: Node) -> list[Finding]:
    """Find ports of the catalog that something other than our unit listens on."""
    found = []
    for listener in node.facts["listeners"]:
        unit = node.need.ports.get(listener["port"])
        if not unit or listener["unit"] == f"{unit}.service":
            continue
        if package := node.packaged.get(listener["unit"]):
            text = f"port {listener['port']} of {unit} is taken by {listener['unit']}, which the package {package} starts: "
            text += f"systemctl disable --now {listener['unit']} (the same program then runs as {unit})"
            found.append(Finding("port", name, text))
            continue
        who = f"{listener['process']} (process {listener['pid']}"
        who += f", {listener['unit']})" if listener["unit"] else ")"
        text = f"port {listener['port']} of {unit} is taken by {who}: end that program, or change the port in "
        found.append(Finding("port", name, f"{text}the component.yml of its role"))
    return found


def disks(name: str, node: Node) -> list[Finding]:
    """Check the space for data, for all directories of a file system together, and the space to install."""
    found = []
    by_device: dict[int, list[str]] = {}
    for path in node.need.disks:
        by_device.setdefault(node.facts["disks"][path]["device"], []).append(path)
    for paths in by_device.values():
        facts = node.facts["disks"][paths[0]]
        wanted = sum(node.need.disks[path] for path in paths)
        # Where there is data already, the space it takes counts as available.
        used = any(node.facts["disks"][path]["used"] for path in paths)
        room = facts["total" if used else "free"] / 2**30
        if room < wanted * NOMINAL:
            text = f"{', '.join(sorted(paths))}: {room:.1f} GiB of space, the catalog requires {wanted}: "
            found.append(Finding("disk", name, f"{text}mount larger disks, or keep less", fatal=False))
        elif facts["free"] < facts["total"] * FULL:
            text = f"{', '.join(sorted(paths))}: {facts['free'] / 2**20:.0f} MiB are left: free some space or grow the disk"
            found.append(Finding("disk", name, text, fatal=False))
    install = node.facts["disks"]["/opt/berny"]
    if not install["used"] and install["free"] < INSTALL_GIB << 30:
        text = f"/opt: {install['free'] / 2**30:.1f} GiB are free, archives take {INSTALL_GIB}: free some space"
        found.append(Finding("disk", name, text))
    scratch = node.facts["scratch"]
    if scratch["free"] < TRANSFER_MIB << 20:
        text = f"{scratch['path']}: {scratch['free'] / 2**20:.0f} MiB are free, uploading an archive takes {TRANSFER_MIB}: "
        text += "free some space, or set ansible_remote_tmp to another path"
        found.append(Finding("disk", name, text, fatal=not install["used"]))
    return found


def accounts(name: str, node: Node) -> list[Finding]:
    """Find users and groups of the catalog whose name or number is taken."""
    found = []
    for facts in node.facts["accounts"]:
        ours, wanted = facts["name"], facts["wanted"]
        for kind, number, rename in (("user", "uid", "usermod -l"), ("group", "gid", "groupmod -n")):
            there = facts[kind]
            if there["number"] is not None and there["number"] != wanted:
                text = f"there is a {kind} {ours} with the {number} {there['number']}, Berny's has {wanted}"
                found.append(f"{text}: give it another name ({rename} NAME {ours}), or remove it")
            if there["name"] and there["name"] != ours:
                text = f"the {number} {wanted} of Berny's {kind} {ours} is that of the {kind} {there['name']}: give that one"
                found.append(f"{text} another, and its files ({kind}mod -{number[0]} NUMBER {there['name']})")
        if facts["user"]["number"] == wanted and facts["primary"] != wanted:
            text = f"the user {ours} has the group {facts['primary']}, Berny's has {wanted}"
            found.append(f"{text}: usermod -g {wanted} {ours}")
    return [Finding("user", name, text) for text in found]


def foreign(name: str, node: Node) -> list[Finding]:
    """Find units with our names that somebody else created: they would be overwritten, and what they run stopped."""
    found = []
    for facts in node.facts["foreign"]:
        runs = f", runs {facts['runs']}" if facts["runs"] else ""
        text = f"there is a {facts['unit']}.service that is not Berny's ({facts['path']}{runs})"
        found.append(Finding("unit", name, f"{text}: remove it, or give it another name"))
    return found


def kept(name: str, node: Node) -> list[Finding]:
    """Find settings that differ from those recorded in data, which can't change."""
    found = []
    for setting, files in node.facts["kept"].items():
        for file, value in files.items():
            wanted = node.settings.get(setting, value)
            if wanted != value:
                text = (
                    f"{setting} is {wanted}, but the data here was created with {value} ({file}), which can't change: "
                )
                found.append(Finding("inventory", name, f"{text}set it to {value}"))
    return found


def logins(name: str, node: Node) -> list[Finding]:
    """Find users that have to log in from another node and that sshd refuses."""
    found = []
    for facts in node.facts["logins"]:
        user, address, rules = facts["user"], facts["address"], facts["rules"]
        reasons = []
        if rules.get("allowusers") and not any(_admits(one, user, address) for one in rules["allowusers"]):
            reasons.append(f"AllowUsers is {' '.join(rules['allowusers'])}")
        if any(_admits(one, user, address) for one in rules.get("denyusers", [])):
            reasons.append(f"DenyUsers is {' '.join(rules['denyusers'])}")
        # The user's only group has the same name.
        if rules.get("allowgroups") and not any(fnmatchcase(user, one) for one in rules["allowgroups"]):
            reasons.append(f"AllowGroups is {' '.join(rules['allowgroups'])}")
        if any(fnmatchcase(user, one) for one in rules.get("denygroups", [])):
            reasons.append(f"DenyGroups is {' '.join(rules['denygroups'])}")
        if rules.get("pubkeyauthentication") == ["no"]:
            reasons.append("PubkeyAuthentication is no")
        if reasons:
            text = f"its sshd does not let {user} in from {facts['machine']} ({'; '.join(reasons)}), so start and stop "
            text += "scripts do nothing here: let it in (/etc/ssh/sshd_config), and reload ssh"
            found.append(Finding("login", name, text, fatal=False))
    return found


def _admits(pattern: str, user: str, address: str) -> bool:
    """Return whether a pattern of sshd's AllowUsers, USER or USER@HOST, matches a user who connects from an address."""
    name, _, host = pattern.partition("@")
    if not fnmatchcase(user, name):
        return False
    try:
        return not host or ipaddress.ip_address(address) in ipaddress.ip_network(host, strict=False)
    except ValueError:
        return fnmatchcase(address, host)


def limits(name: str, node: Node) -> list[Finding]:
    """Check open files: what units need against what systemd may grant and what the kernel allows."""
    facts, units, found = node.facts["limits"], len(node.placed), []
    if facts["nr_open"] < node.nofile:
        found.append(f"fs.nr_open is {facts['nr_open']}, units need {node.nofile}: sysctl -w fs.nr_open={node.nofile}")
    elif facts["hard"] < node.nofile * LEAST_OPEN and not facts["may_raise"]:
        found.append(
            f"systemd may open {facts['hard']} files and not allow units {node.nofile}: raise its limit (ulimit -Hn of "
            "what starts the machine)"
        )
    if facts["file_max"] < node.nofile * units:
        found.append(
            f"fs.file-max is {facts['file_max']}, {units} units need {node.nofile} each: "
            f"sysctl -w fs.file-max={node.nofile * units}"
        )
    return [Finding("limit", name, text) for text in found]


def orphans(name: str, node: Node, roles: set[str]) -> list[Finding]:
    """Find owners of files that neither the inventory places there nor a role outside the catalog accounts for."""
    found = []
    for owner, facts in sorted(node.facts["owners"].items()):
        if owner in node.placed or (owner in roles and owner not in node.groups) or not facts["units"]:
            continue
        running = sorted(unit for unit, state in facts["units"].items() if state != "off")
        group = node.groups.get(owner)
        back = f", or put {name} into the group {group}" if group else ""
        text = f"{'runs ' if running else 'has '}{owner}, which the inventory does not put there; remove it: "
        text += f"ansible-playbook playbooks/reset.yml -e component={owner} --limit {name} (data stays){back}"
        found.append(Finding("orphan", name, text, fatal=bool(running)))
    for unit in node.facts["unrecorded"]:
        text = f"has {unit}, for which there is no record (/var/lib/berny): "
        if unit in node.placed:
            text += "this play records it again; until then a reset is refused"
        else:
            group = node.groups.get(unit)
            text += f"put {name} into the group {group}, " if group else "record it again, "
            text += "run site.yml with preflight_allow: [orphan], and remove it with playbooks/reset.yml"
        found.append(Finding("orphan", name, text, fatal=unit not in node.placed))
    return found
