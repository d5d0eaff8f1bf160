"""The primitives of fault cases: how faults are injected into a lab and healed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from berny.controller.progress import Say
from berny.faults import network
from berny.faults.targets import Targets, targets_of
from berny.lab.lab import Lab
from berny.lab.machines import Machine
from berny.lab.plan import Disk, LabError
from berny.model import names
from berny.model.topology import CHECKOUT

FILLER = ".berny-filler"


def shell(lab: Lab, node: str, command: str, timeout: float = 120) -> str:
    """Run a shell command on a node and return its output.

    Raises:
        LabError: it failed; the message has node, command and the last output.
    """
    done = lab.run(node, command, timeout)
    if done.returncode:
        raise LabError(f"{node}: {command}: {(done.stdout + done.stderr).strip()[-400:]}")
    return done.stdout


# -- processes -----------------------------------------------------------------------------------------------------


def kill_unit(lab: Lab, unit: str, node: str) -> None:
    """Kill a unit's main process."""
    shell(lab, node, f"sudo systemctl kill --signal=KILL --kill-whom=main {unit}")


def freeze_unit(lab: Lab, unit: str, node: str) -> None:
    """Freeze all processes of a unit."""
    shell(lab, node, f"sudo {_signal('STOP', unit)}")


def thaw_unit(lab: Lab, unit: str, node: str) -> None:
    """Let all processes of a unit continue."""
    shell(lab, node, f"sudo {_signal('CONT', unit)}")


def _signal(name: str, *names: str) -> str:
    return f"systemctl kill --signal={name} {' '.join(names)}"


def restart_all(lab: Lab, draw: random.Random, say: Say, targets: Targets) -> list[str]:
    """Restart every unit of every node, one after the other in a random order, without waiting for any to become ready."""
    order = [(unit, node) for unit, nodes in targets.units.items() for node in nodes]
    draw.shuffle(order)
    for unit, node in order:
        say(f"restart of {unit} on {node}")
        shell(lab, node, f"sudo systemctl restart --no-block {unit}")
        time.sleep(1)
    return [f"{unit} on {node}" for unit, node in order]


# -- machines ------------------------------------------------------------------------------------------------------


def boot(lab: Lab, *nodes: str, between: float = 0) -> None:
    """Boot machines in this order and wait until all accept SSH."""
    for node in nodes:
        lab.machines[node].boot()
        time.sleep(between)
    for node in nodes:
        lab.wait_for_ssh(lab.machines[node])


def power_cut(lab: Lab, *nodes: str) -> None:
    """Cut the power of machines at the same time: data not synced to their disks is lost."""
    machines = [lab.machines[node] for node in nodes]
    _each(machines, Machine.kill)
    _each(machines, Machine.power_cut)


def kill(lab: Lab, *nodes: str) -> None:
    """Kill machines; their writes stay in the host's page cache."""
    _each([lab.machines[node] for node in nodes], Machine.kill)


def _each(machines: list[Machine], do: object) -> None:
    with ThreadPoolExecutor(len(machines)) as pool:
        list(pool.map(do, machines))  # type: ignore[arg-type]


def reboot(lab: Lab, node: str) -> None:
    """Reboot a machine cleanly, and wait until it responds again."""
    before = lab.machines[node].init()
    lab.run(node, "sudo systemctl reboot")
    deadline = time.monotonic() + 120
    while lab.machines[node].init() in (before, None) and lab.machines[node].starting():
        if time.monotonic() > deadline:
            raise LabError(f"{node} does not reboot: {lab.machines[node].diagnosis()}")
        time.sleep(0.5)
    boot(lab, node)


# -- disks ---------------------------------------------------------------------------------------------------------


def disk_of(lab: Lab, node: str, service: str) -> tuple[Machine, Disk]:
    """Return the machine and the data disk of a service, or of a pipeline's spool."""
    machine = lab.machines[node]
    return machine, next(disk for disk in machine.disks if disk.service == service)


def fill(lab: Lab, node: str, service: str) -> None:
    """Fill a data disk until writes fail."""
    machine, disk = disk_of(lab, node, service)
    filler = machine.mount_point(disk) / FILLER
    free = os.statvfs(filler.parent)
    with filler.open("wb", buffering=0) as file:
        # The last blocks are taken by the loop below, or by concurrent writes.
        with suppress(OSError):
            os.posix_fallocate(file.fileno(), 0, free.f_bavail * free.f_frsize - (1 << 20))
        with suppress(OSError):
            file.seek(0, os.SEEK_END)
            while True:
                file.write(b"\0" * 65536)


def wipe(lab: Lab, node: str, service: str) -> None:
    """Kill a machine and replace one of its disks with an empty one."""
    machine, disk = disk_of(lab, node, service)
    machine.kill()
    machine.renew(disk)


def lose_disks(lab: Lab, node: str, *services: str) -> None:
    """Kill a machine, replace the disks of some or all services with empty ones, and boot it."""
    machine = lab.machines[node]
    machine.kill()
    for disk in machine.disks:
        if disk.service in services or not services:
            machine.renew(disk)
    boot(lab, node)


def restore(lab: Lab) -> None:
    """Follow docs/recovery.md after disks were lost."""
    _play(lab, "-e", f"data={lab.plan.name}", playbook="playbooks/restore.yml")


def empty_disks(lab: Lab) -> None:
    """Remove the files that fill disks."""
    for filler in fillers(lab):
        filler.unlink()


def fillers(lab: Lab) -> list[Path]:
    """Return the files that fill disks."""
    points = [machine.mount_point(disk) for machine in lab.machines.values() for disk in machine.disks]
    return [point / FILLER for point in points if (point / FILLER).exists()]


# -- the sources ---------------------------------------------------------------------------------------------------


def source(lab: Lab, kind: str) -> None:
    """Inject a kind of fault into the sources that support it, until they are healed."""
    for simulator in lab.simulators.values():
        if kind in simulator.simulation.faults:
            simulator.ask("/_simulator/faults", {"kind": kind, "seconds": 3600})


def heal_source(lab: Lab) -> None:
    """Make the sources respond normally."""
    for simulator in lab.simulators.values():
        simulator.ask("/_simulator/faults", {"kind": "none"})


def heal_refused(lab: Lab, *pipelines: str) -> None:
    """Make the sources accept requests again, and start the stages that were refused, as the README describes."""
    heal_source(lab)
    spools = targets_of(lab.plan).spools()
    for pipeline in pipelines:
        for stage, nodes in spools[pipeline].items():
            for node in nodes:
                shell(lab, node, f"sudo systemctl start --no-block {names.unit(pipeline, stage)}")


# -- plays under load ----------------------------------------------------------------------------------------------


def rolling_restart(lab: Lab, component: str, setting: str) -> None:
    """Change a variable of a component and change it back; each time, all its services are restarted, one by one."""
    _play(lab, "--tags", component, "-e", setting)
    _play(lab, "--tags", component)


def killed_convergence(lab: Lab, draw: random.Random, say: Say, setting: str, value: int) -> list[str]:
    """Kill ``site.yml`` at ten random times, each with another value of a setting, then run it to completion."""
    moments = [draw.uniform(2, 45) for _ in range(10)]
    for turn, moment in enumerate(moments):
        say(f"site.yml, to be killed after {moment:.0f} s: {turn + 1} of {len(moments)}")
        command = _site("-e", f"{setting}={value + turn}")
        with subprocess.Popen(command, **_quiet(lab), start_new_session=True) as playing:
            time.sleep(moment)
            if playing.poll() is None:
                os.killpg(playing.pid, signal.SIGKILL)
    say("site.yml, to completion")
    _play(lab)
    return [f"killed after {moment:.1f} s" for moment in moments]


def _site(*options: str, playbook: str = "site.yml") -> list[str]:
    return [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "inventory/lab", playbook, *options]


def _quiet(lab: Lab) -> dict[str, Any]:
    environment = os.environ | {"BERNY_LAB": lab.plan.name, "ANSIBLE_NOCOLOR": "1"}
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return {"cwd": CHECKOUT, "env": environment, **quiet}


def _play(lab: Lab, *options: str, playbook: str = "site.yml") -> None:
    playing = _quiet(lab) | {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    done = subprocess.run(_site(*options, playbook=playbook), **playing)
    if done.returncode:
        failed = next((line for line in done.stdout.splitlines() if "fatal:" in line), done.stdout[-300:])
        raise LabError(f"{playbook} {' '.join(options)}: {failed[:600]}")


# -- everything ----------------------------------------------------------------------------------------------------


def heal(lab: Lab, targets: Targets) -> None:
    """Heal all faults of the functions above; every unit runs again afterwards.

    Raises:
        LabError: a machine does not come up.
    """
    network.heal(lab)
    with suppress(OSError):
        heal_source(lab)
    empty_disks(lab)
    boot(lab, *(node for node in lab.machines if node not in lab.running()))
    for node in lab.machines:
        names = [unit for unit, nodes in targets.units.items() if node in nodes]
        lab.run(node, f"sudo {_signal('CONT', *names)}; sudo systemctl start --no-block {' '.join(names)}")
