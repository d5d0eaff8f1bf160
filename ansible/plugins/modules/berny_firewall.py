#!/usr/bin/python3
"""Have nftables rules loaded now and at boot, such that they never lock out who loads them.

What is loaded is compared with what should be as the kernel tells both: the rules are loaded into a network of their own
for that. New rules come with a timer that brings the former ones back; only the phase ``confirm``, which the action plugin
asks for through a new connection, stops the timer and has the rules loaded at boot.
"""

from __future__ import annotations

DOCUMENTATION = """
module: berny_firewall
short_description: Load nftables rules that roll themselves back unless a new connection confirms them
options:
  rules: {description: "The table C(inet berny) as C(nft -f) reads it; empty for none.", type: str, default: ''}
  unit: {description: 'The unit that loads the rules at boot, and watches over them.', type: str, default: ''}
  watch: {description: What the unit runs to watch., type: str, default: ''}
  operators: {description: Addresses and networks for the sets of operators., type: list, elements: str, default: []}
  seconds: {description: New rules that are not confirmed in that time are rolled back., type: int, default: 60}
  phase:
    description:
      - C(load) loads rules that differ, and arms what rolls them back.
      - C(confirm) keeps them, C(ask) only tells whether they were rolled back; both are for the action plugin.
    choices: [load, confirm, ask]
    type: str
    default: load
  digest: {description: Which rules are confirmed or asked for., type: str, default: ''}
author: [Berny (@berny)]
"""
EXAMPLES = """
- name: Have the rules
  berny_firewall: {rules: "{{ lookup('template', 'rules.nft.j2') }}", operators: [203.0.113.7]}
"""
RETURN = """
unconfirmed: {description: Digest of rules that are loaded and wait to be confirmed., type: str, returned: when changed}
rolled_back: {description: The rules are not loaded any more., type: bool, returned: to confirm and to ask}
"""

import fcntl
import hashlib
import ipaddress
import os
import re
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

NFT = "/usr/sbin/nft"
LIST = [NFT, "--stateless", "list", "table", "inet", "berny"]
FOLDER = Path("/etc/berny/firewall")
RULES, CANDIDATE, FORMER = FOLDER / "rules.nft", FOLDER / "candidate.nft", FOLDER / "former.nft"
UNIT, WATCH = Path("/etc/systemd/system/berny-firewall.service"), FOLDER / "watch.sh"
ROLLBACK = "berny-firewall-rollback"
SSH_PORT = 22


def peer() -> tuple[str, int] | None:
    """Return who connected the SSH session that this runs in, and to which port; sudo keeps it from us, not from /proc."""
    pid = os.getpid()
    while pid > 1:
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")
            status = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            return None
        found = re.search(r"(?:^|\0)SSH_CONNECTION=(\S+) \d+ \S+ (\d+)", environment)
        if found:
            return found[1].partition("%")[0], int(found[2])
        pid = int(status.rpartition(")")[2].split()[1])
    return None


def elements(operators: list[str], connected: tuple[str, int] | None) -> str:
    """Return the lines that fill the sets of operators; who is connected is always one.

    Raises:
        ValueError: an address is none, or there is nobody who could reach SSH.
    """
    networks = [ipaddress.ip_network(one, strict=False) for one in [*operators, *(connected or ())[:1]]]
    if not networks:
        raise ValueError("nobody could reach SSH: give at least one address in firewall_operators")
    lines = [f"add element inet berny ssh {{ {connected[1] if connected else SSH_PORT} }}\n"]
    # What overlaps is no set of intervals.
    sets = {
        "operators": ipaddress.collapse_addresses(n for n in networks if isinstance(n, ipaddress.IPv4Network)),
        "operators6": ipaddress.collapse_addresses(n for n in networks if isinstance(n, ipaddress.IPv6Network)),
    }
    for name, collapsed in sets.items():
        if some := ", ".join(map(str, collapsed)):
            lines.append(f"add element inet berny {name} {{ {some} }}\n")
    return "".join(lines)


def read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def write(path: Path, text: str) -> None:
    """Write aside, sync, rename: after a crash the old file or the new one is there, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.berny")
    with beside.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    beside.rename(path)


def lock() -> None:
    """Have the watch load nothing until this process ends: what is loaded is not what is to be kept in between."""
    if FOLDER.is_dir():
        fcntl.flock(os.open(FOLDER, os.O_RDONLY), fcntl.LOCK_EX)


class Firewall:
    """The table, the files that it is loaded from and the timer that takes it back."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module

    def run(self, *words: str) -> str:
        _, out, _ = self.module.run_command(list(words), check_rc=True)
        return out

    def loaded(self) -> str:
        """Return the table as the kernel has it; empty where there is none."""
        code, out, _ = self.module.run_command(LIST)
        return out if code == 0 else ""

    def told(self, rules: str) -> str:
        """Return the rules as the kernel would tell them; fails where it refuses them."""
        if not rules:
            return ""
        script = f"{NFT} -f - && exec {' '.join(LIST)}"
        if self.module.check_mode and not Path(NFT).exists():
            return rules
        code, out, err = self.module.run_command(["unshare", "--net", "sh", "-c", script], data=rules)
        if code:
            self.module.fail_json(msg=f"nftables refuses the rules, so nothing was changed: {err.strip()}")
        return out

    def units(self) -> tuple[bool, bool]:
        """Tell whether the rules are loaded at boot, and whether a timer runs that takes back what nobody confirmed."""
        names = (UNIT.name, f"{ROLLBACK}.timer")
        out = self.run("systemctl", "show", "--property=UnitFileState,ActiveState", *names)
        boot, timer = (dict(line.split("=", 1) for line in block.split()) for block in out.strip().split("\n\n"))
        return boot["UnitFileState"] == "enabled" and boot["ActiveState"] == "active", timer["ActiveState"] == "active"

    def disarm(self) -> None:
        self.module.run_command(["systemctl", "stop", f"{ROLLBACK}.timer", f"{ROLLBACK}.service"])

    def load(self, rules: str, loaded: str) -> None:
        """Load rules with the way back armed first."""
        write(CANDIDATE, rules)
        write(FORMER, f"table inet berny\ndelete table inet berny\n{loaded}")
        after = f"--on-active={self.module.params['seconds']}"
        timer = ["--quiet", "--collect", f"--unit={ROLLBACK}", after, "--timer-property=AccuracySec=100ms"]
        self.run("systemd-run", *timer, NFT, "-f", str(FORMER))
        code, _, err = self.module.run_command([NFT, "-f", str(CANDIDATE)])
        if code:
            self.disarm()
            self.module.fail_json(msg=f"nftables refuses the rules, so nothing was changed: {err.strip()}")

    def remove(self) -> None:
        """Take everything away."""
        self.module.run_command(["systemctl", "disable", "--now", UNIT.name])
        self.module.run_command([NFT, "delete", "table", "inet", "berny"])
        for path in (UNIT, WATCH, RULES, CANDIDATE, FORMER):
            path.unlink(missing_ok=True)
        if FOLDER.exists():
            FOLDER.rmdir()
        self.run("systemctl", "daemon-reload")

    def holds(self, digest: str) -> bool:
        """Tell whether the rules of this digest are the loaded ones."""
        rules = read(CANDIDATE)
        return hashlib.sha256(rules.encode()).hexdigest() == digest and self.loaded() == self.told(rules)

    def keep(self, digest: str) -> bool:
        """Stop the way back and have the rules loaded at boot; tell whether they were there to be kept."""
        if not self.holds(digest):
            return False
        self.disarm()
        if not self.holds(digest):
            return False
        CANDIDATE.rename(RULES)
        write(UNIT, self.module.params["unit"])
        write(WATCH, self.module.params["watch"])
        self.run("systemctl", "daemon-reload")
        self.run("systemctl", "enable", "--quiet", UNIT.name)
        self.run("systemctl", "restart", UNIT.name)
        FORMER.unlink(missing_ok=True)
        return True


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "rules": {"type": "str", "default": ""},
            "unit": {"type": "str", "default": ""},
            "watch": {"type": "str", "default": ""},
            "operators": {"type": "list", "elements": "str", "default": []},
            "seconds": {"type": "int", "default": 60},
            "phase": {"type": "str", "choices": ["load", "confirm", "ask"], "default": "load"},
            "digest": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    os.umask(0o022)
    firewall = Firewall(module)
    if not module.check_mode:
        lock()
    if module.params["phase"] != "load":
        there = firewall.keep if module.params["phase"] == "confirm" else firewall.holds
        module.exit_json(changed=True, rolled_back=not there(module.params["digest"]))
    rules = module.params["rules"]
    try:
        rules += elements(module.params["operators"], peer()) if rules else ""
    except ValueError as error:
        module.fail_json(msg=f"firewall_operators: {error}")
    boot, pending = firewall.units()
    if pending and not module.check_mode:
        # Of a play that was cut off: what it loaded is not to be taken for the former rules.
        firewall.run("systemctl", "start", f"{ROLLBACK}.service")
        firewall.disarm()
    files = {str(UNIT): rules and module.params["unit"], str(WATCH): rules and module.params["watch"]}
    wanted = {"loaded rules": firewall.told(rules), str(RULES): rules, **files}
    found = {"loaded rules": firewall.loaded(), str(RULES): read(RULES), str(UNIT): read(UNIT), str(WATCH): read(WATCH)}
    diff = [
        {"before_header": name, "after_header": name, "before": found[name], "after": text}
        for name, text in wanted.items()
        if text != found[name]
    ]
    changed = bool(diff) or pending or boot != bool(rules)
    result = {"changed": changed, "diff": diff}
    if changed and not module.check_mode:
        if rules:
            firewall.load(rules, found["loaded rules"])
            result["unconfirmed"] = hashlib.sha256(rules.encode()).hexdigest()
        else:
            firewall.remove()
    module.exit_json(**result)


if __name__ == "__main__":
    main()
