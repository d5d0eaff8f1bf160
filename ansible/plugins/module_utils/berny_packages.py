"""Packages of the operating system that a service is installed from, and units of theirs that never start.

A package's own unit starts as the package is installed. It is masked before that, and what was masked for whom is kept in the
owner's record, so that ``berny_remove`` unmasks it and nothing else. So are files that the installation reads.
"""

from __future__ import annotations

import json
import os
import pwd
from pathlib import Path
from typing import Any

from ansible.module_utils import berny_files
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.berny_files import RECORDS, read_record, write

UNITS = Path("/etc/systemd/system")
MASK = Path("/dev/null")


def missing(module: AnsibleModule, names: list[str]) -> list[str]:
    """Return the packages that are not installed."""
    _, out, _ = module.run_command(["dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\\n", *names])
    installed = {line.split()[0] for line in out.splitlines() if line.endswith(" installed")}
    return [name for name in names if name not in installed]


def is_masked(unit: str) -> bool:
    """Return whether a unit is masked for good."""
    link = UNITS / unit
    return link.is_symlink() and link.readlink() == MASK


def mask(module: AnsibleModule, unit: str) -> None:
    """Mask a unit, which may not be there yet, and stop it where it runs."""
    code, out, err = module.run_command(["systemctl", "mask", unit])
    if code == 0:
        _, state, _ = module.run_command(["systemctl", "show", "-P", "ActiveState", unit])
        if state.strip() not in ("inactive", "failed"):
            code, out, err = module.run_command(["systemctl", "stop", unit])
    if code:
        module.fail_json(msg=f"{unit} of the operating system can't be masked: {(out + err).strip()}")


ARGUMENTS: dict[str, Any] = {
    "names": {"type": "list", "elements": "str", "required": True},
    "masks": {"type": "list", "elements": "str", "default": []},
    "files": {"type": "dict", "default": {}},
    "owner": {"type": "str", "required": True},
    "state": {"type": "path", "default": "/var/lib/berny"},
}


def have(module: AnsibleModule, params: dict[str, Any]) -> dict[str, Any]:
    """Write files, mask what is not masked, and return which packages are missing: the controller has apt install them."""
    os.umask(0o022)
    files = _write_files(module, params) if params["files"] else {}
    folder = Path(params["state"]) / RECORDS
    records = {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
    record = read_record(folder / f"{params['owner']}.json")
    known = {unit: was for other in records.values() for unit, was in other.get("masks", {}).items()}
    new = [unit for unit in params["masks"] if not is_masked(unit)]
    # What a person has masked stays masked after a reset.
    ours = {unit: known.get(unit, "") for unit in params["masks"] if unit in new or unit in known}
    for unit in new:
        if unit not in known:
            _, state, _ = module.run_command(["systemctl", "show", "-P", "UnitFileState", unit])
            ours[unit] = state.strip()
    wanted = {**record, "masks": {**record.get("masks", {}), **ours}} if ours else record
    if not module.check_mode:
        if wanted != record:
            # Before the masks: what a play that was cut off has masked is known as well.
            folder.mkdir(parents=True, exist_ok=True)
            write(folder / f"{params['owner']}.json", json.dumps(wanted, indent=1) + "\n", 0o644, pwd.getpwuid(0))
        for unit in new:
            mask(module, unit)
    lacking = missing(module, params["names"])
    changed = bool(new or lacking) or wanted != record or files.get("changed", False)
    return {"changed": changed, "missing": lacking, "masked": new, **({"diff": files["diff"]} if files else {})}


def _write_files(module: AnsibleModule, params: dict[str, Any]) -> dict[str, Any]:
    files = [{"dest": path, "mode": "0644", "owner": "root"} for path in params["files"]]
    own = {"files": files, "contents": params["files"], "secret_contents": {}, "pipeline": ""}
    return berny_files.have(module, {**own, "owner": params["owner"], "state": params["state"]})
