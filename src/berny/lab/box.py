"""The host that the lab's machines run on: its requirements, and commands that run on it."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from berny.controller.progress import Steps
from berny.lab.plan import LabError

PACKAGES = {
    "systemd-nspawn": ("systemd-container", "boots the machines"),
    "mmdebstrap": ("mmdebstrap", "makes their root file system"),
    "nft": ("nftables", "lets them fetch packages"),
    "ip": ("iproute2", "makes their network"),
    "mkfs.ext4": ("e2fsprogs", "makes their data disks"),
    "ssh-keygen": ("openssh-client", "makes their keys"),
    "zstd": ("zstd", "packs archives"),
    "mvn": ("maven", "fetches jars"),
    "gpg": ("gpg", "verifies vendors' signatures"),
}
FREE_GIB = 20
ROUTE_TYPES = {"blackhole", "broadcast", "local", "multicast", "prohibit", "throw", "unicast", "unreachable"}
MEMORY_GIB = 7


def run(command: Sequence[str], *, stdin: str | None = None) -> str:
    """Run a command on the host and return its output.

    Raises:
        LabError: it failed; the message has its output.
    """
    done = subprocess.run(command, capture_output=True, text=True, input=stdin)
    if done.returncode:
        raise LabError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip() or done.returncode}")
    return done.stdout


def succeeds(command: Sequence[str]) -> bool:
    """Return whether a command succeeds on the host."""
    return subprocess.run(command, capture_output=True).returncode == 0


def mounts_below(folder: Path) -> list[Path]:
    """Return the mount points below a folder, innermost first."""
    points = [Path(line) for line in run(["findmnt", "--list", "--noheadings", "--output", "TARGET"]).splitlines()]
    return [point for point in reversed(points) if folder in point.parents]


def missing_packages(tools: Mapping[str, tuple[str, str]] = PACKAGES) -> dict[str, str]:
    """Return the Debian packages that the host lacks, and what each is for."""
    return {package: why for tool, (package, why) in tools.items() if not shutil.which(tool)}


def install(steps: Steps, tools: Mapping[str, tuple[str, str]] = PACKAGES) -> None:
    """Install the missing tools on the host; reports what is installed, and why."""
    lacking = missing_packages(tools)
    if lacking:
        why = ", ".join(f"{package} ({reason})" for package, reason in lacking.items())
        with steps.step(f"install on this box: {why}"):
            run(["apt-get", "update", "-q"])
            run(["apt-get", "install", "-q", "-y", "--no-install-recommends", *lacking])


@contextmanager
def locked(file: Path, words: str) -> Iterator[None]:
    """Hold an exclusive lock; it is released when the process ends.

    Raises:
        LabError: another command holds it; the message ends with ``words``.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise LabError(f"another command (process {lock.read().strip()}) {words}") from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def with_names(text: str, owner: str, names: Mapping[str, Sequence[str]]) -> str:
    """Return the text of a hosts file with one marked block of ``owner``: names by address; without names, no block."""
    begin, end = f"# begin of {owner}", f"# end of {owner}"
    kept = re.sub(rf"^{re.escape(begin)}\n(?:(?!# begin of ).*\n)*?{re.escape(end)}\n", "", text, flags=re.M)
    if not names:
        return kept
    if kept and not kept.endswith("\n"):
        kept += "\n"
    return "\n".join([f"{kept}{begin}", *(f"{address} {' '.join(words)}" for address, words in names.items()), end, ""])


def resolve(owner: str, names: Mapping[str, Sequence[str]], file: Path = Path("/etc/hosts")) -> None:
    """Make the host resolve names, by address, and replace the previous ones of ``owner``; the rest of the file stays."""
    with file.open("r+") as hosts:
        fcntl.flock(hosts, fcntl.LOCK_EX)
        before = hosts.read()
        after = with_names(before, owner, names)
        if after != before:
            # In place: in a container the file is a mount, which can't be replaced by renaming.
            hosts.seek(0)
            hosts.write(after)
            hosts.truncate()


def make_key(path: Path, comment: str) -> None:
    """Create a pair of SSH keys if it is missing; the private one appears last, by renaming."""
    if path.exists():
        return
    making = path.with_name(f".{path.name}")
    for stale in (making, Path(f"{making}.pub")):
        stale.unlink(missing_ok=True)
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(making)])
    Path(f"{making}.pub").rename(f"{path}.pub")
    making.rename(path)


def problems(state: Path) -> list[str]:
    """Return the requirements that the host does not meet, one line each with its remedy; changes nothing."""
    found = []
    if os.geteuid() != 0:
        return ["machines need root: run it by sudo"]
    if missing_packages() and not shutil.which("apt-get"):
        found.append(f"install {', '.join(missing_packages())} (this box has no apt-get)")
    if not Path("/sys/fs/cgroup").is_mount():
        found.append("no control groups: mount -t cgroup2 none /sys/fs/cgroup")
    if not Path("/dev/loop-control").exists():
        found.append("no loop devices for data disks: modprobe loop")
    available = next(line for line in Path("/proc/meminfo").read_text().splitlines() if "MemAvailable" in line)
    gib = int(available.split()[1]) / 2**20
    if gib < MEMORY_GIB:
        found.append(f"{gib:.1f} GiB of memory are free, the lab takes 5 and its start some more: free {MEMORY_GIB}")
    folder = next(path for path in [state, *state.parents] if path.exists())
    free = shutil.disk_usage(folder).free / 2**30
    if free < FREE_GIB:
        found.append(f"{free:.0f} GiB are free at {folder}, a lab needs {FREE_GIB}: free some or set XDG_STATE_HOME")
    return found


def routes() -> list[str]:
    """Return the networks that the host has routes or addresses for."""
    lines = run(["ip", "-o", "-4", "route", "show", "table", "main"]).splitlines()
    destinations = (next((word for word in line.split() if word not in ROUTE_TYPES), "default") for line in lines)
    return [destination for destination in destinations if destination != "default"]
