"""Gather what a node tells for a support bundle; a node that does not answer is told, and no failure."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    """See modules/berny_support.py; what it returns has secrets in it and is never shown."""

    _requires_connection = True
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the node's files, or ``reason``: why there are none."""
        result = super().run(tmp, task_vars)
        try:
            found = self._execute_module(module_args=dict(self._task.args), task_vars=task_vars)
        except AnsibleConnectionFailure as error:
            found = {"reason": f"not reached: {error}"}
        if found.get("unreachable") or found.get("failed"):
            said = found.get("module_stderr") or found.get("msg") or "no reason told"
            found = {"reason": f"could not be asked: {str(said).strip()[-400:]}"}
        result.update(found, changed=False, _ansible_no_log=True)
        return result
