"""One virtual machine with its own kernel, for what a container can't show; it represents a cloud's machine.

Its own address is private. The host connects to another one, which it translates, as a cloud does with public addresses.
"""

from __future__ import annotations

import ipaddress
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from berny.controller.progress import Say, Steps
from berny.lab import box, network
from berny.lab.plan import NAME, LabError, choose_network
from berny.lab.vm_files import DATA_DISKS, make_disks, write_state
from berny.lab.vm_image import SEED, make_image
from berny.lab.vm_plan import PUBLIC, GuestPlan, node
from berny.model.topology import CHECKOUT

QEMU = "qemu-system-x86_64"
TOOLS = {
    QEMU: ("qemu-system-x86", "runs the guest"),
    "qemu-img": ("qemu-utils", "makes its disk"),
} | {tool: box.PACKAGES[tool] for tool in ("mmdebstrap", "nft", "ip", "mkfs.ext4", "ssh-keygen", "zstd")}
MEMORY_MIB = 1024
FREE_GIB = 8
BOOT_SECONDS = 240
"""Enough for software emulation on a busy host."""
COLOURS = re.compile(r"\x1b[\[(][0-9;?]*[A-Za-z]?|[^\x20-\x7e\n]")


class Guest:
    """A guest; every method can be called in any state."""

    def __init__(self, plan: GuestPlan) -> None:
        self.plan = plan

    @classmethod
    def named(cls, name: str) -> Guest:
        """Return the guest of that name, which may not exist yet; touches nothing.

        Raises:
            LabError: the name is not valid, or no network is free.
        """
        if not NAME.fullmatch(name):
            raise LabError(
                f"{name!r} is not a valid name of a guest: use up to 10 of a to z, 0 to 9 and '-', a letter first"
            )
        file = GuestPlan(name, PUBLIC).folder / "network"
        taken = ipaddress.IPv4Network(file.read_text()) if file.exists() else choose_network(f"vm-{name}", box.routes())
        return cls(GuestPlan(name, taken))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock this guest against other commands.

        Raises:
            LabError: another command works on it now.
        """
        lock = self.plan.folder.with_name(f".{self.plan.name}.lock")
        with box.locked(lock, "works on this guest; wait for it"):
            yield
        if not self.plan.folder.exists():
            lock.unlink(missing_ok=True)

    def problems(self) -> list[str]:
        """Return the requirements that the host does not meet, one line each with its remedy."""
        if os.geteuid() != 0:
            return ["a guest's network needs root: run it with sudo"]
        found = []
        if box.missing_packages(TOOLS) and not shutil.which("apt-get"):
            found.append(f"install {', '.join(box.missing_packages(TOOLS))} (this host has no apt-get)")
        if not Path("/dev/net/tun").exists():
            found.append("no taps for the guest's network: modprobe tun")
        folder = next(path for path in self.plan.folder.parents if path.exists())
        free = shutil.disk_usage(folder).free / 2**30
        if free < FREE_GIB:
            found.append(
                f"{free:.0f} GiB are free at {folder}, a guest needs {FREE_GIB}: free some or set XDG_STATE_HOME"
            )
        return found

    # -- up and down -------------------------------------------------------------------------------------------------

    def up(self, steps: Steps) -> None:
        """Start the guest and wait for SSH; continues where an interrupted call stopped.

        Raises:
            LabError: the host does not meet a requirement, or the guest does not respond.
        """
        problems = self.problems()
        if problems:
            raise LabError("nothing was changed. " + "; ".join(problems))
        box.install(steps, TOOLS)
        with self.locked():
            with steps.step("image of the guest") as say:
                image = make_image(say)
            with steps.step(f"network {self.plan.network}"):
                write_state(self.plan)
                self._network()
            if not self.process():
                make_disks(self.plan, image)
                self._boot(steps, image)

    def _boot(self, steps: Steps, image: Path) -> None:
        if kvm_offered():
            with steps.step("boot") as say:
                self._start(image, "kvm")
                if self._speaks():
                    return self.wait_for_ssh(say)
                say("no output: /dev/kvm fails on this host")
                self.end()
        with steps.step("boot, emulated in software") as say:
            self._start(image, "tcg,thread=multi")
            self.wait_for_ssh(say)

    def _speaks(self, seconds: float = 20) -> bool:
        """Return whether the kernel prints something on its console."""
        deadline = time.monotonic() + seconds
        while self.process() and time.monotonic() < deadline:
            if self._last_line():
                return True
            time.sleep(0.2)
        return False

    def down(self, steps: Steps) -> None:
        """Kill the guest and remove all traces of it except the image that guests share."""
        with self.locked(), steps.step("remove the guest"):
            subprocess.run([*self.ssh(), "-O", "exit"], capture_output=True)
            self.end()
            subprocess.run(["ip", "link", "delete", self.plan.tap], capture_output=True)
            network.bridge_down(self.plan)
            shutil.rmtree(self.plan.folder, ignore_errors=True)

    def process(self) -> int | None:
        """Return the guest's process id, or None if it does not run."""
        for command in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):
                words = command.read_bytes().split(b"\0")
                if words[0].endswith(QEMU.encode()) and self.plan.id.encode() in words:
                    return int(command.parent.name)
        return None

    def end(self) -> None:
        """Kill the guest."""
        deadline = time.monotonic() + 20
        while pid := self.process():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM if time.monotonic() < deadline - 10 else signal.SIGKILL)
            if time.monotonic() > deadline:
                raise LabError(f"process {pid} does not end: it is the guest {self.plan.name}")
            time.sleep(0.2)

    def reboot(self, say: Say) -> None:
        """Reboot the guest cleanly, and wait until it responds again.

        Raises:
            LabError: it does not.
        """
        before = self.boot_id()
        self.run("sudo systemctl reboot")
        deadline = time.monotonic() + BOOT_SECONDS
        while self.boot_id() in ("", before):
            say(self._last_line())
            if time.monotonic() > deadline:
                raise LabError(
                    f"the guest did not come back; {self.plan.folder / 'console.log'} ends: {self._last_line()}"
                )
            time.sleep(1)

    def boot_id(self) -> str:
        """Return an identifier of the current boot; nothing if the guest does not respond."""
        return self.run("cat /proc/sys/kernel/random/boot_id").stdout.strip()

    # -- SSH and plays -----------------------------------------------------------------------------------------------

    def ssh(self, *command: str) -> list[str]:
        """Return the arguments of an ssh command to the guest."""
        return ["ssh", "-F", str(self.plan.folder / "ssh_config"), "guest", *command]

    def run(self, command: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Run a shell command on the guest."""
        words = self.ssh(command)
        return subprocess.run(words, capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL)

    def wait_for_ssh(self, say: Say) -> None:
        """Wait until the guest accepts SSH.

        Raises:
            LabError: it has ended, or does not respond in time; the message names its console log.
        """
        deadline = time.monotonic() + BOOT_SECONDS
        while not box.succeeds(self.ssh("true")):
            say(self._last_line())
            if not self.process() or time.monotonic() > deadline:
                log = self.plan.folder / ("qemu.log" if not self.process() else "console.log")
                words = log.read_text(errors="replace").strip().splitlines()[-1:]
                raise LabError(f"the guest does not accept SSH; {log} ends: {words}")
            time.sleep(0.5)

    @property
    def inventories(self) -> list[str]:
        """The options with which a play reaches the guest: the inventory ``azure``, and this guest's own."""
        return [
            "-i",
            str(CHECKOUT / "inventory" / "azure"),
            "-i",
            str(self.plan.folder / "hosts.yml"),
            "--limit",
            node(),
        ]

    def _last_line(self) -> str:
        log = self.plan.folder / "console.log"
        text = COLOURS.sub("", log.read_text(errors="replace")) if log.exists() else ""
        return next((line.strip()[:70] for line in reversed(text.splitlines()) if line.strip()), "")

    # -- network and process -----------------------------------------------------------------------------------------

    def _network(self) -> None:
        plan = self.plan
        network.bridge_up(plan)
        if not box.succeeds(["ip", "link", "show", plan.tap]):
            box.run(["ip", "tuntap", "add", "dev", plan.tap, "mode", "tap"])
        box.run(["ip", "link", "set", plan.tap, "master", plan.bridge, "up"])
        # Without the translation traffic ends at the bridge: the host's own gateway never sees it.
        box.run(["ip", "route", "replace", plan.public, "dev", plan.bridge])
        chain = f"table ip {plan.table} {{ chain output {{ type nat hook output priority -100; "
        box.run(["nft", "-f", "-"], stdin=f"{chain} ip daddr {plan.public} dnat to {plan.address}\n}}\n}}\n")

    def _start(self, image: Path, accelerator: str) -> None:
        folder = self.plan.folder
        kernel = "root=LABEL=berny-vm rw console=ttyS0 earlyprintk=ttyS0 net.ifnames=0 systemd.machine_id="
        mac = "52:54:00:" + ":".join(f"{byte:02x}" for byte in self.plan.network.network_address.packed[1:])
        command = [QEMU, "-name", self.plan.id, "-machine", "q35", "-accel", accelerator, "-cpu", "max"]
        command += ["-smp", "2", "-m", str(MEMORY_MIB), "-nodefaults", "-no-user-config", "-display", "none"]
        command += ["-kernel", str(image / "vmlinuz"), "-initrd", str(image / "initrd.img")]
        command += ["-append", kernel + self.plan.network.network_address.packed.hex() * 4]
        command += ["-serial", f"file:{folder / 'console.log'}", "-device", "virtio-rng-pci"]
        command += ["-netdev", f"tap,id=net,ifname={self.plan.tap},script=no,downscript=no"]
        command += ["-device", f"virtio-net-pci,netdev=net,mac={mac},romfile="]
        disks = [("root", "root.qcow2", "qcow2"), (SEED, f"{SEED}.img", "raw")]
        for serial, file, kind in [*disks, *((name, f"{name}.img", "raw") for name in DATA_DISKS)]:
            command += ["-drive", f"if=none,id={serial},file={folder / file},format={kind},discard=unmap"]
            command += ["-device", f"virtio-blk-pci,drive={serial},serial={serial}"]
        with (folder / "qemu.log").open("wb") as log:
            subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)


def kvm_offered() -> bool:
    """Return whether the host offers hardware virtualization: the device can exist even if the processor has no support."""
    flags = set(Path("/proc/cpuinfo").read_text().split())
    return bool({"vmx", "svm"} & flags) and os.access("/dev/kvm", os.R_OK | os.W_OK)
