"""Reproducible archives: sorted, without times or owners, compressed by one thread."""

from __future__ import annotations

import hashlib
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path

from berny.controller.artifacts.errors import SupplyError

ZSTD_LEVEL = "-3"


def sha256_file(path: Path) -> str:
    """Return the sha256 of a file in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tree(folder: Path, prefix: str = "") -> dict[str, Path]:
    """Return the files and links below ``folder`` by their name in an archive; bytecode is left out."""
    return {
        f"{prefix}{path.relative_to(folder).as_posix()}": path
        for path in folder.rglob("*")
        if (path.is_file() or path.is_symlink()) and path.suffix != ".pyc"
    }


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a tar archive, compressed or not; no member is written outside the folder.

    With tar, not with ``tarfile``: Debian 12's Python (3.11.2) has no extraction filters.

    Raises:
        SupplyError: it is not an archive, or a member's name leads out of the folder; the message ends with tar's output.
    """
    folder.mkdir(parents=True, exist_ok=True)
    command = ["tar", "--no-same-owner", "--no-same-permissions", "-xf", str(archive), "-C", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL)
    if done.returncode:
        raise SupplyError(f"{archive.name} can't be unpacked: {' '.join(done.stderr.split())[-300:]}")


def write_archive(members: Mapping[str, Path], target: Path) -> str:
    """Write ``members`` (name in the archive: file) as a ``.tar.zst`` and return its sha256.

    The same members give the same bytes: names sorted, mtime 0, owner 0, modes 0644 or 0755, one compression thread.

    Raises:
        subprocess.CalledProcessError: zstd failed (a full disk, say).
    """
    with target.open("wb") as out:
        zstd = subprocess.Popen(["zstd", "-q", "-c", ZSTD_LEVEL, "--single-thread"], stdin=subprocess.PIPE, stdout=out)
        assert zstd.stdin is not None
        try:
            with tarfile.open(fileobj=zstd.stdin, mode="w|", format=tarfile.GNU_FORMAT, dereference=False) as tar:
                for name in sorted(members):
                    info = tar.gettarinfo(str(members[name]), arcname=name)
                    info.uid = info.gid = 0
                    info.uname = info.gname = ""
                    info.mtime = 0
                    info.mode = 0o755 if info.mode & 0o100 else 0o644
                    if info.isreg():
                        with members[name].open("rb") as file:
                            tar.addfile(info, file)
                    else:
                        tar.addfile(info)
        finally:
            zstd.stdin.close()
            code = zstd.wait()
    if code:
        raise subprocess.CalledProcessError(code, "zstd")
    return sha256_file(target)
