"""Load firewall rules and confirm them through a new connection; see modules/berny_firewall.py."""

from __future__ import annotations

import time
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure
from ansible.plugins.action import ActionBase

# The connection that the play has had all along passes any rules. First words win with ssh.
NEW_CONNECTION = "-o ControlMaster=no -o ControlPath=none"
CONNECT_SECONDS = 5
# By then the rules are rolled back, and a connection that was on its way is through.
GRACE_SECONDS = 15


class ActionModule(ActionBase):
    """Rules that no new connection confirms in time roll themselves back, whatever becomes of this play."""

    _requires_connection = True
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return ``changed`` and ``diff``.

        Raises:
            AnsibleActionFail: new rules let no new connection in; the message says what holds now.
        """
        result = super().run(tmp, task_vars)
        args = dict(self._task.args)
        result.update(self._execute_module(module_name="berny_firewall", module_args=args, task_vars=task_vars))
        digest = result.pop("unconfirmed", None)
        if digest:
            self._confirm({"confirm": digest, "unit": args["unit"]}, int(args["seconds"]), task_vars)
        return result

    def _confirm(self, args: dict[str, Any], seconds: int, task_vars: dict[str, Any] | None) -> None:
        if self._connection.transport == "ssh":
            usual = self._connection.get_option("ssh_args") or ""
            self._connection.set_option("ssh_args", f"{NEW_CONNECTION} {usual}")
            self._connection.set_option("timeout", CONNECT_SECONDS)
        deadline = time.monotonic() + seconds + GRACE_SECONDS
        said = ""
        while True:
            try:
                kept = self._execute_module(module_name="berny_firewall", module_args=args, task_vars=task_vars)
                break
            except AnsibleConnectionFailure as error:
                said = str(error).strip().splitlines()[-1]
            if time.monotonic() > deadline:
                raise AnsibleActionFail(
                    f"no new connection came through since the new rules were loaded ({said}). They roll themselves "
                    f"back after {seconds} s, but the node still does not answer: look at it from its console"
                )
            time.sleep(1)
        if kept.get("rolled_back"):
            raise AnsibleActionFail(
                f"no new connection came through within {seconds} s of loading the new rules ({said}), so they were "
                "rolled back: the former rules hold, and nothing is changed. Is the address that new connections come "
                "from in firewall_operators?"
            )
        if kept.get("failed"):
            raise AnsibleActionFail(f"the new rules hold, but could not be kept for the next boot: {kept.get('msg')}")
