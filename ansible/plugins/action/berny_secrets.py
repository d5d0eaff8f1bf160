"""Generate what is missing of the cluster's secrets beside the inventory."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from ansible.errors import AnsibleActionFail
from ansible.parsing.vault import VaultEditor, VaultLib
from ansible.plugins.action import ActionBase

HEADER = "# Secrets of this cluster, made on the first run. Losing this file means losing access; it is never in git.\n"


class ActionModule(ActionBase):
    """Runs on the controller only. With a vault password given, the file is written encrypted."""

    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return ``secrets``: names to ``generate`` get 32 random bytes in hex.

        Names that a person has to give (``given``) are read from the environment, in capitals, where they are set there.
        What ``replace`` has is written over.

        Raises:
            AnsibleActionFail: the file can't be read (no vault password) or written.
        """
        result = super().run(tmp, task_vars)
        path = Path(self._task.args["file"])
        try:
            found = self._loader.load_from_file(str(path), cache="none") if path.exists() else {}
        except Exception as error:
            raise AnsibleActionFail(f"{path}: {error}. Is it encrypted? Give its password: --ask-vault-pass") from error
        if not isinstance(found or {}, Mapping):
            raise AnsibleActionFail(
                f"{path}: expected names and values, found a {type(found).__name__}; restore the file"
            )
        values = {str(key): str(value) for key, value in (found or {}).items()}
        wanted = dict(values)
        for name in map(str, self._task.args["generate"]):
            wanted.setdefault(name, secrets.token_hex(32))
        found_there = {str(name): os.environ.get(name.upper(), "") for name in self._task.args["given"]}
        wanted |= {name: value for name, value in found_there.items() if value}
        wanted |= {str(name): str(value) for name, value in (self._task.args.get("replace") or {}).items()}
        result["changed"] = wanted != values
        if result["changed"] and not self._task.check_mode:
            self._write(path, HEADER + yaml.safe_dump(wanted, sort_keys=True))
        result["secrets"] = wanted
        result["_ansible_no_log"] = True
        return result

    def _write(self, path: Path, text: str) -> None:
        data = text.encode()
        vault: VaultLib = self._loader._vault
        if vault.secrets:
            data = VaultEditor(vault).vault.encrypt(data)
        beside = path.with_name(f".{path.name}.new")
        beside.unlink(missing_ok=True)
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.rename(path)
