"""Install operating system packages; where another program has the package manager's lock, wait for it and say so."""

from __future__ import annotations

import re
import time
from typing import Any

from ansible.plugins.action import ActionBase

WAIT_SECONDS = 600
# After so long it is told who is waited for, and then from time to time.
FIRST_SECONDS, TURN_SECONDS = 3, 15
LOCK = re.compile(r"\block\b|lock-frontend", re.I)
HOLDER = re.compile(r"held by process (\d+(?: \([^)]*\))?)")


class ActionModule(ActionBase):
    """The module apt. The lists of packages are fetched only where something is missing: an unchanged node asks nobody."""

    _requires_connection = True
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return what apt says; fail where packages can't be had, or the lock can't within ``wait`` seconds."""
        result = super().run(tmp, task_vars)
        wait = int(self._task.args.get("wait") or WAIT_SECONDS)
        return result | self.install(self._task.args["names"], task_vars, wait)

    def install(self, names: list[str], task_vars: dict[str, Any] | None, wait: int = WAIT_SECONDS) -> dict[str, Any]:
        """Install packages; return what apt says, with what to do where the lock can't be had within ``wait`` seconds."""
        args: dict[str, Any] = {"name": names, "install_recommends": False, "lock_timeout": FIRST_SECONDS}
        node = (task_vars or {}).get("inventory_hostname")
        begun = time.monotonic()
        while True:
            said = self._execute_module(module_name="ansible.builtin.apt", module_args=args, task_vars=task_vars)
            if not said.get("failed"):
                break
            words = f"{said.get('msg', '')} {said.get('stderr', '')}"
            waited = int(time.monotonic() - begun)
            if LOCK.search(words):
                holder = HOLDER.search(words)
                who = f"process {holder[1]}" if holder else "another program"
                if waited >= wait:
                    said["msg"] = (
                        f"{who} has held the package manager's lock for {waited} s: see what it does on {node} (ps, "
                        f"journalctl -u unattended-upgrades), and run the play again. {said.get('msg', '')}"
                    )
                    break
                text = f"{node}: waiting for the package manager, {who} has its lock ({waited} of {wait} s)"
                self._display.display(text)
                args["lock_timeout"] = min(TURN_SECONDS, wait - waited)
            elif "update_cache" in args:
                break
            else:
                args["update_cache"] = True
        return dict(said)
