"""A lab: its machines, its network and its simulators."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import yaml

from berny.controller.placement import by_load
from berny.controller.progress import Steps
from berny.lab import box, network
from berny.lab.golden import make_golden
from berny.lab.machines import Machine
from berny.lab.plan import LabError, Plan, choose_network, load_plan, state_folder
from berny.lab.simulator import Process, Simulator, started
from berny.model.catalog import load_catalog
from berny.model.topology import selected_pipelines

BOOT_SECONDS = 60


class Lab:
    """Four machines on a network of their own, by name."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.machines = {name: Machine(plan, node) for name, node in plan.nodes.items()}
        self.left = {name: Machine(plan, node) for name, node in plan.left.items()}
        """Machines that are no longer in the inventory."""
        self.simulators = {name: Simulator(plan, name, one) for name, one in plan.simulations.items()}
        """By pipeline."""

    @classmethod
    def named(cls, name: str, pipelines: tuple[str, ...] = (), everything: bool | None = None) -> Lab:
        """Return the lab of that name, which may not exist yet; creates and changes nothing.

        Args:
            name: the lab's name.
            pipelines: the pipelines to run; if empty, those that it runs already, or the default ones.
            everything: whether to run the components that none of them needs as well; None: as it does already.

        Raises:
            LabError: the name is not valid, or no network is free.
        """
        plan = load_plan(name) or Plan(name, choose_network(name, box.routes()))
        everything = plan.everything if everything is None else everything
        return cls(replace(plan, pipelines=pipelines or plan.pipelines, everything=everything))

    @classmethod
    def existing(cls, name: str) -> Lab:
        """Return an existing lab.

        Raises:
            LabError: there is none.
        """
        plan = load_plan(name)
        if not plan:
            raise LabError(f"there is no lab {name!r}: `berny lab up --name {name}` creates it")
        return cls(plan)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock this lab against other commands.

        Raises:
            LabError: another command works on it now.
        """
        with box.locked(state_folder() / f".{self.plan.name}.lock", "works on this lab; wait for it"):
            yield

    def up(self, steps: Steps, rate: float = 2) -> None:
        """Start all machines and the simulators; continues where an interrupted call stopped.

        Raises:
            LabError: the host does not meet a requirement, or a machine does not respond.
        """
        problems = box.problems(self.plan.folder)
        if problems and not self.running():
            raise LabError("nothing was changed. " + "; ".join(problems))
        box.install(steps)
        with self.locked():
            with steps.step("root of the machines") as say:
                make_golden(say)
            if self.left:
                with steps.step(f"shut down {', '.join(self.left)}: no longer in the inventory; data disks are kept"):
                    self._end(self.left, Machine.power_off)
            with steps.step(f"network {self.plan.network}"):
                self._keys()
                self._describe()
                network.up(self.plan)
                # Web UIs link to each other by the machines' names.
                nodes = self.plan.nodes.values()
                box.resolve(
                    self.plan.table, {node.address: [node.machine, *{node.name} - {node.machine}] for node in nodes}
                )
            with steps.step(f"{len(self.machines)} machines, {len(self.plan.disks)} data disks") as say:
                for machine in self.machines.values():
                    machine.boot()
                for machine in self.machines.values():
                    say(machine.node.machine)
                    self.wait_for_ssh(machine)
            self._simulate(steps, rate)

    def down(self, steps: Steps, purge: bool = False) -> None:
        """Shut the machines down and unmount everything; with ``purge``, also remove their disks, keys and state."""
        with self.locked():
            with steps.step("shut down") as say:
                self._end_simulators()
                # The node that runs the most is shut down last: others need it for a clean shutdown.
                pipelines = selected_pipelines(self.plan.pipelines)
                last = {by_load(load_catalog(), pipelines, self.plan.groups)[0]}
                machines = self.machines | self.left
                for names in (machines.keys() - last, machines.keys() & last):
                    say(", ".join(sorted(names)))
                    self._end({name: machines[name] for name in names}, Machine.kill if purge else Machine.power_off)
                network.remove(self.plan)
                box.resolve(self.plan.table, {})
                self.ssh_exit()
            if purge:
                with steps.step("remove disks and state"):
                    shutil.rmtree(self.plan.folder, ignore_errors=True)
        if purge:
            (state_folder() / f".{self.plan.name}.lock").unlink(missing_ok=True)

    @staticmethod
    def _end(machines: Mapping[str, Machine], how: Callable[[Machine], None]) -> None:
        """End machines, all at the same time, and unmount what they have."""
        with ThreadPoolExecutor(max(len(machines), 1)) as pool:
            list(pool.map(how, machines.values()))
        for machine in machines.values():
            machine.detach()

    def _simulate(self, steps: Steps, rate: float) -> None:
        self._end_simulators(keep=self.simulators)
        for name, simulator in self.simulators.items():
            with steps.step(f"simulator of the source of {name}"):
                simulator.start("--rate", str(rate))

    def _end_simulators(self, keep: Collection[str] = ()) -> None:
        # By PID files, not by the plan: another checkout may have other pipelines.
        for name in started(self.plan):
            if name not in keep:
                Process(self.plan, name).stop()

    def running(self) -> list[str]:
        """Return the nodes whose machines run."""
        return [name for name, machine in self.machines.items() if machine.init()]

    # -- SSH ---------------------------------------------------------------------------------------------------------

    def ssh(self, node: str, *command: str) -> list[str]:
        """Return the arguments of an ssh command to a node.

        Raises:
            LabError: there is no such node.
        """
        machine = self.plan.nodes.get(node) or next((n for n in self.plan.nodes.values() if n.machine == node), None)
        if not machine:
            raise LabError(f"no node {node!r}; there are {', '.join(self.plan.nodes)}")
        return ["ssh", "-F", str(self.plan.folder / "ssh_config"), machine.machine, *command]

    def run(self, node: str, command: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run a shell command on a node."""
        words = self.ssh(node, command)
        return subprocess.run(words, capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL)

    def wait_for_ssh(self, machine: Machine, seconds: float = BOOT_SECONDS) -> None:
        """Wait until a machine accepts SSH.

        Raises:
            LabError: it does not within ``seconds``; the message has ssh's error, the machine's addresses and failed
                units, and names its console log.
        """
        deadline = time.monotonic() + seconds
        while (asked := self.run(machine.node.name, "true")).returncode:
            if time.monotonic() > deadline:
                raise LabError(
                    f"{machine.node.name} does not accept SSH after {seconds:.0f} s: {asked.stderr.strip()}; "
                    f"{machine.diagnosis()}"
                )
            if not machine.init() and not machine.starting():
                # Remains of a killed launcher can end the next one.
                machine.boot()
            time.sleep(0.2)

    def ssh_exit(self) -> None:
        """Close the connections that Ansible left open: a re-created machine has other processes behind them."""
        for node in self.plan.nodes.values():
            subprocess.run([*self.ssh(node.name), "-O", "exit"], capture_output=True)

    def _keys(self) -> None:
        folder = self.plan.folder
        (folder / "keys").mkdir(parents=True, exist_ok=True)
        hosts = [f"{node.machine}.ssh_host_ed25519_key" for node in self.plan.nodes.values()]
        for path in (folder / "id_ed25519", *(folder / "keys" / name for name in hosts)):
            box.make_key(path, f"berny-{self.plan.name}")
        known = [
            f"{node.address},{node.machine} {(folder / 'keys' / f'{name}.pub').read_text().strip()}"
            for node, name in zip(self.plan.nodes.values(), hosts, strict=True)
        ]
        (folder / "known_hosts").write_text("\n".join(known) + "\n")
        common = f"User berny\nIdentityFile {folder / 'id_ed25519'}\nUserKnownHostsFile {folder / 'known_hosts'}\n"
        common += "IdentitiesOnly yes\nConnectTimeout 5\nLogLevel ERROR\n"
        config = [f"Host {node.machine}\nHostName {node.address}\n{common}" for node in self.plan.nodes.values()]
        (folder / "ssh_config").write_text("\n".join(config))

    def _describe(self) -> None:
        # Renamed: which network and addresses its machines have is nowhere else.
        beside = self.plan.folder / ".lab.yml"
        beside.write_text(yaml.safe_dump(self.plan.describe(), sort_keys=False))
        beside.rename(self.plan.folder / "lab.yml")
