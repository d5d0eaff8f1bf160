"""Say by which address each node is reached by the others: as given, or as the machines themselves know it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml
from ansible.plugins.action import ActionBase

from berny.controller.addresses import resolve

HEADER = "# What machines said of their own addresses, for plays that do not ask all of them (--limit).\n"


class ActionModule(ActionBase):
    """Runs on the controller only; ``asked`` is the register of the task that asked the machines before."""

    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return ``addresses`` of nodes that are not given one; fail where it is not known."""
        result = super().run(tmp, task_vars)
        variables = task_vars or {}
        hosts = variables["hostvars"]
        given, said = {}, {}
        for node in map(str, variables["groups"]["all"]):
            own = hosts[node]
            given[node] = (str(own.get("private_address") or ""), str(own.get("ansible_host") or ""))
            answer = (own.get(self._task.args["asked"]) or {}).get("stdout")
            if answer:
                said[node] = str(answer)
        file = Path(self._task.args["file"])
        known = (yaml.safe_load(file.read_text()) or {}) if file.exists() else {}
        result["addresses"], unknown, keep = resolve(given, said, known)
        if unknown and not self._task.args.get("report_only"):
            result["failed"] = True
            result["msg"] = (
                f"Nothing was touched. How the others reach {', '.join(unknown)} is not known: run the play once without "
                f"--limit, or set private_address beside ansible_host"
            )
        elif keep != known and not self._task.check_mode:
            self._write(file, keep)
        return result

    @staticmethod
    def _write(file: Path, keep: dict[str, Any]) -> None:
        if not keep:
            file.unlink(missing_ok=True)
            return
        beside = file.with_name(f".{file.name}.{os.getpid()}")
        beside.write_text(HEADER + yaml.safe_dump(keep))
        beside.rename(file)
