"""Run a module that returns secrets, and keep what it returns out of what Ansible prints."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    """A module can't hide its own result, and ``no_log`` of a task hides its errors too."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return what the module ``module`` returns, given all other arguments."""
        result = super().run(tmp, task_vars)
        args = dict(self._task.args)
        # Else -vvv shows what the connection brings back.
        self._connection._play_context.no_log = True
        result.update(self._execute_module(module_name=args.pop("module"), module_args=args, task_vars=task_vars))
        if not result.get("failed"):
            result["_ansible_no_log"] = True
        return dict(result)
