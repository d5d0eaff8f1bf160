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
GRACE_SECONDS = 10


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
            kept, said = self._confirm(
                {"digest": digest, "unit": args["unit"], "watch": args.get("watch", "")},
                int(args["seconds"]),
                task_vars,
            )
            if kept.get("rolled_back"):
                raise AnsibleActionFail(
                    f"no new connection came through within {args['seconds']} s of loading the new rules, so they were "
                    "rolled back: the former rules hold, and nothing is changed. Is the address that new connections "
                    f"come from in firewall_operators? {said}"
                )
            if kept.get("failed"):
                raise AnsibleActionFail(f"the new rules could not be kept for the next boot: {kept['msg']}")
        return result

    def _confirm(
        self, args: dict[str, Any], seconds: int, task_vars: dict[str, Any] | None
    ) -> tuple[dict[str, Any], str]:
        """Return what the node says through a new connection, or else through the one that is there; and the last error."""

        def tell(phase: str) -> dict[str, Any]:
            module_args = args | {"phase": phase}
            return dict(
                self._execute_module(module_name="berny_firewall", module_args=module_args, task_vars=task_vars)
            )

        options = {}
        if self._connection.transport == "ssh":
            options = {name: self._connection.get_option(name) for name in ("ssh_args", "timeout")}
            self._connection.set_option("ssh_args", f"{NEW_CONNECTION} {options['ssh_args'] or ''}")
            self._connection.set_option("timeout", CONNECT_SECONDS)
        deadline, said = time.monotonic() + seconds + GRACE_SECONDS, ""
        while time.monotonic() < deadline:
            try:
                return tell("confirm"), said
            except AnsibleConnectionFailure as error:
                said = str(error).strip().splitlines()[-1]
            time.sleep(1)
        for name, value in options.items():
            self._connection.set_option(name, value)
        try:
            return tell("ask"), said
        except AnsibleConnectionFailure:
            raise AnsibleActionFail(
                f"no new connection came through since the new rules were loaded. They roll themselves back after "
                f"{seconds} s, but the node still does not answer: look at it from its console. {said}"
            ) from None
