#!/usr/bin/python3
"""Write files atomically with mode and owner."""

from __future__ import annotations

DOCUMENTATION = """
module: berny_files
short_description: Write a service's files in one go
options:
  folder: {description: Where C(files) and C(secret_files) go (read by the action plugin)., type: path}
  user: {description: Owner of the secret files (read by the action plugin)., type: str}
  inputs: {description: The list of what a service is started from (read by the action plugin)., type: path}
  started_from: {description: First lines of C(inputs) (read by the action plugin)., type: list, elements: str}
  commands: {description: Commands in /usr/local/bin and their templates (read by the action plugin)., type: dict}
  secret_files: {description: Names and templates of secret files (read by the action plugin)., type: dict}
  others: {description: Other destinations and their templates, or template and mode (read by the action plugin)., type: dict}
  files: {description: Names and templates; after the action plugin dest with mode and owner., type: raw}
  contents: {description: Text by destination., type: dict}
  secret_contents: {description: Text by destination of files that are in no diff and no log., type: dict, no_log: true}
author: [Berny (@berny)]
"""
EXAMPLES = """
- name: Configure ZooKeeper
  berny_files:
    folder: /etc/berny/zookeeper
    files: {zoo.cfg: zoo.cfg.j2}
"""
RETURN = """
written: {description: The files that differed., type: list, returned: always}
"""

import os
import pwd
import stat
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule


def current(path: Path) -> tuple[str | None, int, int]:
    """Return text, mode and uid of a file; the text is None where there is none."""
    try:
        status = path.stat()
        return path.read_text(), stat.S_IMODE(status.st_mode), status.st_uid
    except FileNotFoundError:
        return None, 0, 0


def write(path: Path, text: str, mode: int, owner: pwd.struct_passwd) -> None:
    """Write aside, sync, rename: after a crash the old file or the new one is there, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
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


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "files": {"type": "raw"},
            "contents": {"type": "dict", "default": {}},
            "secret_contents": {"type": "dict", "default": {}, "no_log": True},
        },
        supports_check_mode=True,
    )
    written, diffs = [], []
    for file in module.params["files"]:
        path, mode = Path(file["dest"]), int(file["mode"], 8)
        secret = file["dest"] in module.params["secret_contents"]
        text = module.params["secret_contents" if secret else "contents"][file["dest"]]
        try:
            owner = pwd.getpwnam(file["owner"])
        except KeyError:
            if not module.check_mode:
                module.fail_json(msg=f"{path}: there is no user {file['owner']!r}; the role 'node' makes it")
            owner = pwd.getpwuid(0)
        before = current(path)
        if before == (text, mode, owner.pw_uid):
            continue
        written.append(str(path))
        if not secret:
            diffs.append(
                {"before_header": str(path), "after_header": str(path), "before": before[0] or "", "after": text}
            )
        if not module.check_mode:
            write(path, text, mode, owner)
    module.exit_json(changed=bool(written), written=written, diff=diffs)


if __name__ == "__main__":
    main()
