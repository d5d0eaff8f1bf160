#!/usr/bin/python3
"""Unpack an archive beside its folder and rename it last, so that a half unpacked tree is never current."""

from __future__ import annotations

DOCUMENTATION = """
module: berny_archive
short_description: Have an archive of the store unpacked in a folder named version and digest
options:
  name: {description: Name of the archive in the store (read by the action plugin)., type: str}
  archive: {description: A path or address instead of the vendor's archive (read by the action plugin)., type: str}
  archive_sha256: {description: Its digest (read by the action plugin)., type: str}
  home: {description: The folder that holds the unpacked archive; without it the module tells the current one., type: path}
  link: {description: A symbolic link kept on the current folder., type: path, required: true}
  source: {description: The transferred archive; without it the module only looks., type: path}
  sha256: {description: What the transferred archive must hash to., type: str}
author: [Berny (@berny)]
"""
EXAMPLES = """
- name: Unpack Kafka
  berny_archive:
    name: kafka
"""
RETURN = """
home: {description: The folder; empty where an optional archive is in neither store nor node., type: str, returned: always}
missing: {description: The folder is not there yet., type: bool, returned: always}
"""

import os
import shutil
import tempfile
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule


def unpack(module: AnsibleModule, home: Path) -> None:
    """Unpack ``source`` into a temporary neighbour of ``home``, sync it, then rename."""
    found = module.sha256(module.params["source"])
    if found != module.params["sha256"]:
        module.fail_json(
            msg=f"{module.params['source']}: the archive changed on its way: expected sha256 "
            f"{module.params['sha256']}, found {found}. Run the play again."
        )
    home.parent.mkdir(parents=True, exist_ok=True)
    for stale in home.parent.glob(f".{home.name}.*"):
        shutil.rmtree(stale)
    beside = Path(tempfile.mkdtemp(prefix=f".{home.name}.", dir=home.parent))
    beside.chmod(0o755)
    module.run_command(
        ["tar", "--zstd", "--no-same-owner", "-xf", module.params["source"], "-C", str(beside)], check_rc=True
    )
    module.run_command(["sync", "-f", str(beside)], check_rc=True)
    beside.rename(home)


def prune(home: Path, name: str) -> None:
    """Keep the current folder and the one before it: services may still run from the latter."""
    others = [path for path in home.parent.glob(f"{name}-[0-9]*") if path != home]
    for old in sorted(others, key=lambda path: path.stat().st_mtime, reverse=True)[1:]:
        shutil.rmtree(old)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str"},
            "archive": {"type": "str"},
            "archive_sha256": {"type": "str"},
            "home": {"type": "path"},
            "link": {"type": "path", "required": True},
            "source": {"type": "path"},
            "sha256": {"type": "str"},
        },
        supports_check_mode=True,
    )
    link = Path(module.params["link"])
    if not module.params["home"]:
        module.exit_json(changed=False, missing=False, home=str(link.resolve()) if link.is_dir() else "")
    home = Path(module.params["home"])
    missing = not home.is_dir()
    if missing and module.params["source"] and not module.check_mode:
        unpack(module, home)
        os.utime(home)
        prune(home, link.name)
        missing = False
        changed = True
    else:
        changed = missing
    if not link.is_symlink() or os.readlink(link) != str(home):  # noqa: PTH115 - readlink() normalises
        changed = True
        if not missing and not module.check_mode:
            beside = link.with_name(f".{link.name}.{os.getpid()}")
            beside.symlink_to(home)
            beside.rename(link)
    module.exit_json(changed=changed, home=str(home), missing=missing)


if __name__ == "__main__":
    main()
