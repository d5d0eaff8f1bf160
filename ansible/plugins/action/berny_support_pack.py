"""Pack what all nodes told into one archive, without secrets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

from berny.controller.support.archive import Answer, write_archive


class ActionModule(ActionBase):
    """Runs on the controller only."""

    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Write the archive into ``folder``; ``secrets`` are what the cluster's secrets file has."""
        result = super().run(tmp, task_vars)
        args, variables = self._task.args, task_vars or {}
        answers = {}
        for node in args["nodes"]:
            found = variables["hostvars"][node].get("_support") or {"reason": "was not asked (--limit)"}
            files = {str(name): str(text) for name, text in (found.get("files") or {}).items()}
            answers[str(node)] = Answer(
                files, {str(name) for name in found.get("private") or []}, str(found.get("reason", ""))
            )
        secrets = {str(value) for value in args["secrets"].values()}
        write_archive(Path(args["folder"]), str(args["cluster"]), answers, secrets)
        return result
