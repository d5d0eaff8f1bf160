"""Machines: an overlay on the golden root, booted by systemd-nspawn, with data disks that the host mounts."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from berny.lab import box
from berny.lab.box import run, succeeds
from berny.lab.golden import golden_root
from berny.lab.plan import Disk, LabError, Node, Plan

POWEROFF = signal.SIGRTMIN + 4
"""The signal that systemd as PID 1 treats like `systemctl poweroff`."""
CGROUPS = Path("/sys/fs/cgroup")
HIERARCHIES = ("systemd", "unified", "memory")
"""Version 1: where systemd keeps a machine's units (needs both of the first two, or machines share one), and its memory."""


class Machine:
    """One machine of a lab; every method can be called in any state."""

    def __init__(self, plan: Plan, node: Node) -> None:
        self.plan = plan
        self.node = node
        self.folder = plan.folder / "nodes" / node.name
        self.root = self.folder / "root"
        self.id = f"{plan.name}-{node.machine}"
        self.disks = [disk for disk in plan.disks if disk.node == node.name]

    # -- files and disks ---------------------------------------------------------------------------------------------

    def image(self, disk: Disk) -> Path:
        """Return the image file of a data disk."""
        return self.plan.folder / "disks" / f"{disk.node}-{disk.service}.img"

    def mount_point(self, disk: Disk) -> Path:
        """Return where the host mounts a data disk."""
        return self.folder / "data" / disk.service

    def prepare(self) -> None:
        """Create the overlay, the data disks and the machine's own files where they are missing."""
        for name in ("upper", "work", "root"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        lower = self._golden()
        if not self.root.is_mount():
            options = f"lowerdir={lower},upperdir={self.folder / 'upper'},workdir={self.folder / 'work'}"
            run(["mount", "-t", "overlay", f"berny-{self.id}", "-o", options, str(self.root)])
            (self.folder / "mounted").write_text(_identity(lower))
        self._write_files()
        for disk in self.disks:
            self.attach(disk)

    def _golden(self) -> Path:
        """Return the golden root that the machine was created on, the newest for a new machine; raises as boot does."""
        base, mounted = self.folder / "golden", self.folder / "mounted"
        if not base.exists():
            base.write_text(str(golden_root()))
        lower = Path(base.read_text())
        # A mount of a removed root lacks files, even if the root was created again, and fails in obscure ways.
        if self.root.is_mount() and mounted.exists() and _identity(lower) != mounted.read_text():
            raise LabError(
                f"{self.node.name} runs on {lower}, which was removed meanwhile: `berny lab down` and start again; "
                "its data disks stay"
            )
        if not lower.is_dir():
            raise LabError(
                f"{self.node.name} was made on {lower}, which is gone: `berny lab down --purge` and start anew"
            )
        return lower

    def attach(self, disk: Disk) -> None:
        """Create and mount a data disk; an image is renamed into place when complete."""
        image, point = self.image(disk), self.mount_point(disk)
        point.mkdir(parents=True, exist_ok=True)
        image.parent.mkdir(exist_ok=True)
        if not image.exists():
            making = image.with_suffix(".new")
            making.unlink(missing_ok=True)
            with making.open("wb") as file:
                file.truncate(disk.gib << 30)
            run(["mkfs.ext4", "-q", "-m", "0", "-E", "lazy_itable_init=1,lazy_journal_init=1", str(making)])
            making.rename(image)
        if not point.is_mount():
            run(["mount", "-o", "loop,noatime", str(image), str(point)])

    def _write_files(self) -> None:
        etc = self.root / "etc"
        self._write(etc / "hostname", f"{self.node.machine}\n")
        if not (etc / "machine-id").exists():
            self._write(etc / "machine-id", f"{secrets.token_hex(16)}\n")
        network = f"[Match]\nName=host0\n[Network]\nAddress={self.node.address}/24\nGateway={self.plan.gateway}\n"
        self._write(etc / "systemd/network/10-host0.network", network)
        for shared in ("resolv.conf", "ssl/certs/ca-certificates.crt"):
            if Path("/etc", shared).exists():
                (etc / shared).unlink(missing_ok=True)
                shutil.copyfile(Path("/etc", shared), etc / shared)
        for kind in ("ssh_host_ed25519_key", "ssh_host_ed25519_key.pub"):
            shutil.copyfile(self.plan.folder / "keys" / f"{self.node.machine}.{kind}", etc / "ssh" / kind)
            (etc / "ssh" / kind).chmod(0o600 if kind.endswith("key") else 0o644)
        home = self.root / "home/berny"
        keys = home / ".ssh/authorized_keys"
        self._write(keys, (self.plan.folder / "id_ed25519.pub").read_text(), 0o600)
        owner = home.stat()
        for path in (keys.parent, keys):
            os.chown(path, owner.st_uid, owner.st_gid)
        keys.parent.chmod(0o700)

    @staticmethod
    def _write(path: Path, text: str, mode: int = 0o644) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)

    def diagnosis(self) -> str:
        """Return, on one line, what the host sees of a machine: addresses, failed units, the end of its console."""
        init, console = self.init(), self.folder / "console.log"
        tail = console.read_text(errors="replace").strip().splitlines()[-1:] if console.exists() else []
        seen = [f"{console} ends: {tail}"]
        if init:
            inside = ["nsenter", "-t", str(init), "-m", "-n", "-p"]
            for command in (["ip", "-br", "address"], ["systemctl", "--failed", "--plain", "--no-legend"]):
                asked = subprocess.run([*inside, *command], capture_output=True, text=True, timeout=20)
                seen.append(
                    f"{' '.join(command)}: {'; '.join((asked.stdout + asked.stderr).split(chr(10))).strip('; ')}"
                )
        return "; ".join(seen)

    # -- power -------------------------------------------------------------------------------------------------------

    def init(self) -> int | None:
        """Return the host's process id of the machine's PID 1, or None if it does not run."""
        for pid in self._launchers():
            for child in _children(pid):
                if _inner_pid(child) == 1:
                    return child
        # If only the launcher was killed, the machine continues to run, as a child of the host's PID 1.
        for status in Path("/proc").glob("[0-9]*/cgroup"):
            with suppress(OSError):
                pid = int(status.parent.name)
                if f"/{self.cgroup}/" in f"{status.read_text()}/".replace("\n", "/\n") and _inner_pid(pid) == 1:
                    return pid
        return None

    def starting(self) -> bool:
        """Return whether a systemd-nspawn of this machine runs."""
        return bool(list(self._launchers()))

    def _launchers(self) -> Iterator[int]:
        """Yield the systemd-nspawn processes of this machine."""
        for command in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):
                words = command.read_bytes().split(b"\0")
                if words[0].endswith(b"systemd-nspawn") and self.id.encode() in words:
                    yield int(command.parent.name)

    @property
    def cgroup(self) -> str:
        """The machine's control group."""
        return f"berny-{self.id}"

    def boot(self) -> None:
        """Start the machine unless it runs; does not wait for it.

        Raises:
            LabError: the golden root that it was created on is missing, or was removed while it was mounted.
        """
        if self.init():
            self._golden()
            return
        for pid in self._launchers():
            os.kill(pid, signal.SIGKILL)
        self.prepare()
        command = ["systemd-nspawn", "-q", "-b", "-D", str(self.root), "-M", self.id]
        command += [f"--hostname={self.node.machine}", f"--network-bridge={self.plan.bridge}", "--link-journal=no"]
        command += ["--register=no", "--resolv-conf=off", "--timezone=off", "--kill-signal=SIGRTMIN+4", "--keep-unit"]
        command += [f"--bind={self.mount_point(disk)}:/data/{disk.service}" for disk in self.disks]
        groups = self._make_cgroups()
        # Detached: it survives the shell and the session that started it.
        script = "".join(f"echo $$ > {group}/cgroup.procs; " for group in groups) + 'exec "$@"'
        if Path("/run/systemd/system").is_dir():
            scope = ["systemd-run", "-q", "--scope", "-p", "Delegate=yes", f"--unit=berny-lab-{self.id}"]
            command, script = [*scope, *command], 'exec "$@"'
        with (self.folder / "console.log").open("ab") as log:
            subprocess.Popen(
                ["sh", "-c", script, "sh", *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _make_cgroups(self) -> list[Path]:
        if (CGROUPS / "cgroup.controllers").exists():
            folders = [CGROUPS / self.cgroup]
        else:
            folders = [CGROUPS / name / self.cgroup for name in HIERARCHIES if (CGROUPS / name).is_dir()]
        for folder in folders:
            folder.mkdir(exist_ok=True)
        return folders

    def kill(self) -> None:
        """Kill the machine at once, as if its power were cut; the host's page cache stays (see power_cut)."""
        init = self.init()
        if init:
            os.kill(init, signal.SIGKILL)
            _wait(lambda: self.init() is None, 20, f"{self.node.name} does not end")
        for pid in self._launchers():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        _wait(lambda: not list(self._launchers()), 10, f"{self.node.name}: its systemd-nspawn does not end")

    def power_off(self, seconds: int = 60) -> None:
        """Shut the machine down cleanly; if it has not ended after ``seconds``, it is killed."""
        init = self.init()
        if init:
            os.kill(init, POWEROFF)
            with suppress(LabError):
                _wait(lambda: self.init() is None, seconds, "")
        self.kill()

    def power_cut(self) -> None:
        """Kill the machine and lose what was not synced to its data disks: the next boot uses the image as it is on disk."""
        self.kill()
        for disk in self.disks:
            image = self.image(disk)
            cut = image.with_suffix(".cut")
            run(["cp", "--sparse=always", str(image), str(cut)])
            self._unmount(self.mount_point(disk))
            cut.rename(image)

    def renew(self, disk: Disk) -> None:
        """Replace a data disk of a stopped machine with an empty one."""
        self._unmount(self.mount_point(disk))
        self.image(disk).unlink(missing_ok=True)

    def detach(self) -> None:
        """Unmount everything of a stopped machine."""
        # From what is mounted, not from the plan: another checkout may have created it with other services.
        for point in box.mounts_below(self.folder):
            self._unmount(point)
        for hierarchy in ("", *HIERARCHIES):
            group = CGROUPS / hierarchy / self.cgroup
            for folder in sorted(group.rglob("*/"), reverse=True) if group.is_dir() else []:
                with suppress(OSError):
                    folder.rmdir()
            with suppress(OSError):
                group.rmdir()

    @staticmethod
    def _unmount(point: Path) -> None:
        for _ in range(50):
            if not point.is_mount():
                return
            if succeeds(["umount", str(point)]):
                continue
            time.sleep(0.2)
        run(["umount", "--lazy", str(point)])


def _identity(folder: Path) -> str:
    """Return an identifier that differs between a folder and a later one at the same path; empty if there is none."""
    with suppress(FileNotFoundError):
        told = folder.stat()
        return f"{told.st_ino} {told.st_ctime_ns}"
    return ""


def _children(pid: int) -> list[int]:
    with suppress(OSError):
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def _inner_pid(pid: int) -> int | None:
    """Return a process's id in its innermost PID namespace, None for a process in the host's namespace."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("NSpid:"):
                numbers = line.split()[1:]
                return int(numbers[-1]) if len(numbers) > 1 else None
    return None


def _wait(done: Callable[[], bool], seconds: float, words: str) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            raise LabError(words)
        time.sleep(0.1)
