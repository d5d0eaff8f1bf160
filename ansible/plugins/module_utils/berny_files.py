"""Write files atomically with mode and owner, and keep on the node who has what, so that it can be removed again."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import stat
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

# Below C(state). What was written for whom, a file for each owner; berny_remove reads it.
RECORDS = "installed"
# What was there before Berny wrote over it, by its path; it comes back with a reset.
BEFORE = "before"
# Folders that only Berny has, and so with the modes that it gives them.
OWN_FOLDERS = {Path("/etc/berny"), Path("/usr/local/lib/berny")}
FOLDER_MODE = 0o755
# Files that a machine has anyway: kept even where the text is the same.
SYSTEM_FILES = {"/etc/hostname"}


def current(path: Path) -> tuple[str | None, int, int, int]:
    """Return text, mode, uid and gid of a file; the text is None where there is none."""
    try:
        status = path.stat()
        return path.read_text(), stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid
    except FileNotFoundError:
        return None, 0, 0, 0


def write(path: Path, text: str, mode: int, owner: pwd.struct_passwd) -> None:
    """Write aside, sync, rename: after a crash the old file or the new one is there, whole."""
    beside = path.with_name(f".{path.name}.berny")
    beside.unlink(missing_ok=True)
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fchown(file.fileno(), owner.pw_uid, owner.pw_gid)
        os.fchmod(file.fileno(), mode)
        os.fsync(file.fileno())
    beside.rename(path)


def read_record(path: Path) -> dict[str, Any]:
    """Return the files that an owner has and the folders that were made for them, and the pipeline of a stage."""
    return {"files": [], "folders": []} | (json.loads(path.read_text()) if path.exists() else {})


def missing_folders(paths: list[Path]) -> list[str]:
    """Return the folders that are not there yet, outermost first."""
    return sorted({str(folder) for path in paths for folder in path.parents if not folder.exists()})


def own_folders(paths: list[Path], made: list[str]) -> list[Path]:
    """Return the folders of files that are Berny's, outermost first: what was made for them, and all of its own."""
    above = {folder for path in paths for folder in path.parents if {folder, *folder.parents} & OWN_FOLDERS}
    return sorted(above | set(map(Path, made)))


def mend_folder(folder: Path, check: bool) -> str:
    """Have a folder be root's, and everybody's to read: a service reads what is in it. Returns what it was if it was not."""
    try:
        status = folder.stat()
    except FileNotFoundError:
        return ""
    mode, owner = stat.S_IMODE(status.st_mode), (os.geteuid(), os.getegid())
    if (mode, status.st_uid, status.st_gid) == (FOLDER_MODE, *owner):
        return ""
    if not check:
        os.chown(folder, *owner)
        folder.chmod(FOLDER_MODE)
    return f"mode {mode:04o}, owner {status.st_uid}:{status.st_gid}"


def keep(path: Path, folder: Path) -> None:
    """Keep a file that Berny is to write over, once."""
    kept = folder / path.relative_to("/")
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        beside = kept.with_name(f".{kept.name}.berny")
        shutil.copy2(path, beside)
        beside.rename(kept)


ARGUMENTS: dict[str, Any] = {
    "files": {"type": "raw"},
    "owner": {"type": "str", "required": True},
    "pipeline": {"type": "str", "default": ""},
    "state": {"type": "path", "default": "/var/lib/berny"},
    "contents": {"type": "dict", "default": {}},
    "secret_contents": {"type": "dict", "default": {}, "no_log": True},
}


def have(module: AnsibleModule, params: dict[str, Any]) -> dict[str, Any]:
    """Write the files that differ, with what has to be on record before; see the module ``berny_files``."""
    # A umask of sudo's would keep services from reading what is theirs.
    os.umask(0o022)
    written, diffs = [], []
    state = Path(params["state"])
    record_file = state / RECORDS / f"{params['owner']}.json"
    record = read_record(record_file)
    paths = [Path(file["dest"]) for file in params["files"]]
    wanted = {
        **record,
        "files": sorted({*record["files"], *map(str, paths)}),
        "folders": sorted({*record["folders"], *missing_folders(paths)}),
        **({"pipeline": params["pipeline"]} if params["pipeline"] else {}),
    }
    root = pwd.getpwuid(0)
    if wanted != record and not module.check_mode:
        # Before the files: what a play that was cut off has written is known as well.
        record_file.parent.mkdir(parents=True, exist_ok=True)
        write(record_file, json.dumps(wanted, indent=1) + "\n", 0o644, root)
    for folder in own_folders(paths, wanted["folders"]):
        was = mend_folder(folder, module.check_mode)
        if was:
            written.append(str(folder))
            header = {"before_header": str(folder), "after_header": str(folder)}
            diffs.append({**header, "before": f"{was}\n", "after": f"mode {FOLDER_MODE:04o}, owner 0:0\n"})
    for file in params["files"]:
        path, mode = Path(file["dest"]), int(file["mode"], 8)
        secret = file["dest"] in params["secret_contents"]
        text = params["secret_contents" if secret else "contents"][file["dest"]]
        try:
            owner = pwd.getpwnam(file["owner"])
        except KeyError:
            if not module.check_mode:
                module.fail_json(msg=f"{path}: there is no user {file['owner']!r}; the role 'node' makes it")
            owner = root
        before = current(path)
        new = file["dest"] not in record["files"] and before[0] is not None
        if new and not module.check_mode and (before[0] != text or file["dest"] in SYSTEM_FILES):
            keep(path, state / BEFORE)
        if before == (text, mode, owner.pw_uid, owner.pw_gid):
            continue
        written.append(str(path))
        if not secret:
            diffs.append(
                {"before_header": str(path), "after_header": str(path), "before": before[0] or "", "after": text}
            )
        if not module.check_mode:
            path.parent.mkdir(parents=True, exist_ok=True)
            write(path, text, mode, owner)
    return {"changed": bool(written) or wanted != record, "written": written, "diff": diffs}
