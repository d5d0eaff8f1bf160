"""Unpack an archive beside its folder and rename it last, so that a half unpacked tree is never current.

With it goes a list of what was unpacked, in ``.manifest``. What is there is held against it in each run: other modes and
owners are mended, and an archive with a file that is missing or another is unpacked again.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import tempfile
import time
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

# What a service was started from is a function of it (record-start): what is unpacked again restarts what runs from it.
MANIFEST = ".manifest"
SHOWN = 5


def facts(path: str, status: os.stat_result) -> list[Any]:
    """Return type and mode, then what identifies the content: size and modification time, or a link's target."""
    if stat.S_ISLNK(status.st_mode):
        return [stat.S_IFLNK, os.readlink(path)]  # noqa: PTH115
    if stat.S_ISDIR(status.st_mode):
        return [status.st_mode]
    return [status.st_mode, status.st_size, int(status.st_mtime)]


def take_stock(folder: Path) -> None:
    """Write the list of what is in a folder."""
    paths = {".": folder} | {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*"))}
    entries = {name: facts(str(path), path.lstat()) for name, path in paths.items()}
    (folder / MANIFEST).write_text(json.dumps({"unpacked": time.time_ns(), "entries": entries}))


def hold(folder: Path, check: bool) -> tuple[list[str], list[str]]:
    """Mend modes and owners of what was unpacked; return what was mended, and what only unpacking it again mends.

    What was added since, such as bytecode, is none of its business.
    """
    mended, damage = [], []
    try:
        entries = json.loads((folder / MANIFEST).read_text())["entries"]
    except (OSError, ValueError, KeyError):
        return [], [f"{MANIFEST} is missing, or is none"]
    owner = os.geteuid(), os.getegid()
    for name, wanted in entries.items():
        path = f"{folder}/{name}"
        try:
            status = os.lstat(path)
            found = facts(path, status)
        except OSError:
            damage.append(f"{name} is missing")
            continue
        if [stat.S_IFMT(found[0]), *found[1:]] != [stat.S_IFMT(wanted[0]), *wanted[1:]]:
            damage.append(f"{name} is another")
            continue
        if found[0] != wanted[0] or (status.st_uid, status.st_gid) != owner:
            was = f"mode {stat.S_IMODE(status.st_mode):04o}, owner {status.st_uid}:{status.st_gid}"
            mended.append(f"{name} had {was}")
            if not check:
                os.lchown(path, *owner)
                if not stat.S_ISLNK(wanted[0]):
                    os.chmod(path, stat.S_IMODE(wanted[0]))  # noqa: PTH101
    return mended, damage


def mend_folders(folders: set[Path], check: bool) -> list[str]:
    """Have the folders that archives are in be everybody's to read; return those that were not."""
    closed = [
        str(folder) for folder in sorted(folders) if folder.is_dir() and stat.S_IMODE(folder.stat().st_mode) != 0o755
    ]
    for folder in [] if check else closed:
        Path(folder).chmod(0o755)
    return [f"{folder} had another mode than 0755" for folder in closed]


def unpack(module: AnsibleModule, home: Path, params: dict[str, Any]) -> None:
    """Unpack ``source`` into a temporary neighbour of ``home``, sync it, then rename."""
    found = module.sha256(params["source"])
    if found != params["sha256"]:
        module.fail_json(
            msg=f"{params['source']}: the archive changed on its way: expected sha256 "
            f"{params['sha256']}, found {found}. Run the play again."
        )
    home.parent.mkdir(parents=True, exist_ok=True)
    for stale in home.parent.glob(f".{home.name}.*"):
        shutil.rmtree(stale)
    beside = Path(tempfile.mkdtemp(prefix=f".{home.name}.", dir=home.parent))
    beside.chmod(0o755)
    module.run_command(["tar", "--zstd", "--no-same-owner", "-xf", params["source"], "-C", str(beside)], check_rc=True)
    take_stock(beside)
    module.run_command(["sync", "-f", str(beside)], check_rc=True)
    if home.exists():
        damaged = home.with_name(f".{home.name}.damaged")
        home.rename(damaged)
        beside.rename(home)
        shutil.rmtree(damaged)
    else:
        beside.rename(home)


def prune(home: Path, name: str) -> None:
    """Keep the current folder and the one before it: services may still run from the latter."""
    others = [path for path in home.parent.glob(f"{name}-[0-9]*") if path != home]
    for old in sorted(others, key=lambda path: path.stat().st_mtime, reverse=True)[1:]:
        shutil.rmtree(old)


ARGUMENTS: dict[str, Any] = {
    "name": {"type": "str"},
    "archive": {"type": "str"},
    "archive_sha256": {"type": "str"},
    "home": {"type": "path"},
    "link": {"type": "path", "required": True},
    "source": {"type": "path"},
    "sha256": {"type": "str"},
}


def have(module: AnsibleModule, params: dict[str, Any]) -> dict[str, Any]:
    """Have an archive unpacked and linked, or say that it has to be sent; see the module ``berny_archive``."""
    # Folders that the archive only implies get their mode by it.
    os.umask(0o022)
    link = Path(params["link"])
    if not params["home"]:
        return {"changed": False, "missing": False, "home": str(link.resolve()) if link.is_dir() else ""}
    home = Path(params["home"])
    mended = mend_folders({link.parent, home.parent}, module.check_mode)
    damage: list[str] = []
    if home.is_dir() and not params["source"]:
        in_home, damage = hold(home, module.check_mode)
        mended += in_home
    missing = not home.is_dir() or bool(damage) or bool(params["source"])
    if missing and params["source"] and not module.check_mode:
        unpack(module, home, params)
        os.utime(home)
        prune(home, link.name)
        missing = False
        changed = True
    else:
        changed = missing or bool(mended)
    if not link.is_symlink() or os.readlink(link) != str(home):  # noqa: PTH115 - readlink() normalises
        changed = True
        if not missing and not module.check_mode:
            beside = link.with_name(f".{link.name}.{os.getpid()}")
            beside.symlink_to(home)
            beside.rename(link)
    found = [f"{home}: {line}" for line in [*mended, *damage]]
    if len(found) > SHOWN:
        found[SHOWN:] = [f"{home}: and {len(found) - SHOWN} more"]
    return {"changed": changed, "home": str(home), "missing": missing, "damage": found}
