"""Generate what is missing of the cluster's secrets beside the inventory."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from ansible import constants
from ansible.errors import AnsibleActionFail
from ansible.parsing.vault import VaultLib, is_encrypted, match_encrypt_secret, parse_vaulttext_envelope
from ansible.plugins.action import ActionBase

HEADER = "# Secrets of this cluster, made on the first run. Losing this file means losing access; it is never in git.\n"


class ActionModule(ActionBase):
    """Runs on the controller only. With a vault password given, the file is written encrypted.

    With passwords of several vault identities it is written back with its own.
    """

    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return ``secrets``: names to ``generate`` get 32 random bytes in hex, those to ``renew`` others than they have.

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
        # A name without a value is no secret called None.
        values = {str(key): value for key, value in (found or {}).items() if value not in (None, "")}
        if odd := sorted(key for key, value in values.items() if not isinstance(value, str)):
            raise AnsibleActionFail(f"{path}: {', '.join(odd)}: expected text; put the value in quotes")
        values = {key: str(value) for key, value in values.items()}
        wanted = dict(values)
        for name in map(str, self._task.args["generate"]):
            wanted.setdefault(name, secrets.token_hex(32))
        wanted |= {str(name): secrets.token_hex(32) for name in self._task.args.get("renew") or ()}
        found_there = {str(name): os.environ.get(name.upper(), "") for name in self._task.args["given"]}
        wanted |= {name: value for name, value in found_there.items() if value}
        wanted |= {str(name): str(value) for name, value in (self._task.args.get("replace") or {}).items()}
        result["changed"] = wanted != values
        if result["changed"] and not self._task.check_mode:
            self._write(path, HEADER + yaml.safe_dump(wanted, sort_keys=True))
        result["secrets"] = wanted
        result["_ansible_no_log"] = True
        return result

    def _encrypt(self, path: Path, data: bytes) -> bytes:
        """Return what a file is to hold: encrypted by the identity that it is encrypted by, or a new one by the play's."""
        vault: VaultLib = self._loader._vault
        if not vault.secrets:
            return data
        before = path.read_bytes() if path.exists() else b""
        if is_encrypted(before):
            _, _, secret = vault.decrypt_and_get_vault_id(before)
            identity = parse_vaulttext_envelope(before)[3]
        else:
            named = constants.config.get_config_value("DEFAULT_VAULT_ENCRYPT_IDENTITY")
            identity, secret = match_encrypt_secret(vault.secrets, encrypt_vault_id=named)
        return bytes(vault.encrypt(data, secret, vault_id=identity))

    def _write(self, path: Path, text: str) -> None:
        data = self._encrypt(path, text.encode())
        beside = path.with_name(f".{path.name}.new")
        beside.unlink(missing_ok=True)
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.rename(path)
