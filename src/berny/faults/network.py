"""Faults of a lab's network: cuts and loss by a filter of the bridge, low bandwidth by a token bucket at the machine.

The host still reaches every machine, since its own traffic is not forwarded, so the bench can observe.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from berny.lab.box import run, succeeds
from berny.lab.lab import Lab
from berny.lab.network import faults_table
from berny.lab.plan import LabError

RATE = "1mbit"
DELAY, JITTER = 200, 50
"""Milliseconds."""
# A small bucket, since bursts pass at the host's speed; the queue holds half a second, like a modem's.
BUCKET = ["burst", "8kb", "latency", "500ms"]


def _load(lab: Lab, rules: list[str]) -> None:
    table = faults_table(lab.plan)
    body = "\n        ".join(rules)
    text = f"""
table bridge {table}
delete table bridge {table}
table bridge {table} {{
    chain forward {{
        type filter hook forward priority filter;
        {body}
    }}
}}
"""
    run(["nft", "-f", "-"], stdin=text)


def _address(lab: Lab, node: str) -> str:
    return lab.plan.nodes[node].address


def cut(lab: Lab, node: str, *, incoming: bool = True, outgoing: bool = True) -> None:
    """Cut a machine off from all others and from outside, in one direction or both."""
    address = _address(lab, node)
    rules = [f"ip daddr {address} drop"] * incoming + [f"ip saddr {address} drop"] * outgoing
    _load(lab, rules)


def cut_pair(lab: Lab, one: str, other: str, port: int | None = None) -> None:
    """Cut two machines off from each other; with ``port`` only traffic to or from that port of the first."""
    first, second = _address(lab, one), _address(lab, other)
    to, back = (f" tcp dport {port}", f" tcp sport {port}") if port else ("", "")
    _load(lab, [f"ip saddr {second} ip daddr {first}{to} drop", f"ip saddr {first} ip daddr {second}{back} drop"])


def lose(lab: Lab, node: str, percent: int) -> None:
    """Drop a percentage of the packets that a machine sends and receives."""
    drop = f"numgen random mod 100 < {percent} drop"
    _load(lab, [f"ip {way} {_address(lab, node)} {drop}" for way in ("saddr", "daddr")])


def narrow(lab: Lab, node: str) -> None:
    """Limit the bandwidth of a machine to ``RATE``, in both directions."""
    inside = _inside(lab, node)
    add = ["qdisc", "replace", "dev"]
    run(["tc", *add, _link(lab, node), "root", "tbf", "rate", RATE, *BUCKET])
    run([*inside, "tc", *add, "host0", "root", "tbf", "rate", RATE, *BUCKET])


def delay(lab: Lab, node: str) -> None:
    """Delay the packets that a machine sends and receives: with netem if the kernel has it, else by a relay process."""
    words = ["netem", "delay", f"{DELAY}ms", f"{JITTER}ms"]
    link, inside = _link(lab, node), _inside(lab, node)
    if succeeds(["tc", "qdisc", "replace", "dev", link, "root", *words]):
        run([*inside, "tc", "qdisc", "replace", "dev", "host0", "root", *words])
        return
    plan, python = lab.plan, [sys.executable, "-m", "berny.faults.delay"]
    run(["ip", "link", "add", f"bnyd-{plan.name}", "type", "veth", "peer", "name", f"bnye-{plan.name}"])
    run([*inside, *python, "plain", "host0"])
    run([*python, "plain", f"bnye-{plan.name}"])
    run(["ip", "link", "set", link, "nomaster"])
    for end in (["bnyd"], ["bnye", "master", plan.bridge]):
        run(["ip", "link", "set", f"{end[0]}-{plan.name}", *end[1:], "up"])
    relay = [*python, link, f"bnyd-{plan.name}", str(DELAY), str(JITTER)]
    process = subprocess.Popen(relay, stdin=subprocess.DEVNULL, start_new_session=True)
    (plan.folder / "delay").write_text(f"{process.pid} {link}")


def _end_delay(lab: Lab) -> None:
    note = lab.plan.folder / "delay"
    if not note.exists():
        return
    pid, link = note.read_text().split()
    with suppress(OSError):
        if b"berny.faults.delay" in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(int(pid), signal.SIGKILL)
    subprocess.run(["ip", "link", "delete", f"bnyd-{lab.plan.name}"], capture_output=True)
    subprocess.run(["ip", "link", "set", link, "master", lab.plan.bridge], capture_output=True)
    note.unlink()


def _inside(lab: Lab, node: str) -> list[str]:
    init = lab.machines[node].init()
    if not init:
        raise LabError(f"{node} does not run: `berny lab up --name {lab.plan.name}` boots it")
    return ["nsenter", "-t", str(init), "-n"]


def _link(lab: Lab, node: str) -> str:
    """Return the host's end of a machine's link, by its index: its name may have been shortened."""
    (own,) = json.loads(run([*_inside(lab, node), "ip", "-j", "link", "show", "host0"]))
    links = json.loads(run(["ip", "-j", "link"]))
    return next(str(link["ifname"]) for link in links if link["ifindex"] == own["link_index"])


def heal(lab: Lab) -> None:
    """Heal every fault of the network."""
    _end_delay(lab)
    subprocess.run(["nft", "delete", "table", "bridge", faults_table(lab.plan)], capture_output=True)
    for node, machine in lab.machines.items():
        if machine.init():
            for command in (["tc"], [*_inside(lab, node), "tc"]):
                link = "host0" if len(command) > 1 else _link(lab, node)
                subprocess.run([*command, "qdisc", "delete", "dev", link, "root"], capture_output=True)
