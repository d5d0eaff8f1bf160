#!/usr/bin/python3
"""Sets the password of Grafana's admin, which is in Grafana's database: the environment sets it only at the first start."""

from __future__ import annotations

DOCUMENTATION = """
module: grafana_password
short_description: Set the password of Grafana's admin
description:
  - Logs in with the password. If Grafana refuses it, sets it with Grafana's command in the database of the running server.
options:
  url: {description: The server., type: str, required: true}
  password: {description: The wanted password., type: str, required: true}
  home: {description: Grafana's folder., type: path, required: true}
  config: {description: Its grafana.ini., type: path, required: true}
  user: {description: The system user that owns the database., type: str, required: true}
author: [Berny (@berny)]
"""
EXAMPLES = """
- name: Set the password
  grafana_password:
    url: http://localhost:3000
    password: "{{ secrets.grafana_admin_password }}"
    home: /opt/berny/grafana
    config: /etc/berny/grafana/grafana.ini
    user: grafana
"""
RETURN = """
"""

import base64
import urllib.error
import urllib.request

from ansible.module_utils.basic import AnsibleModule

ADMIN = "admin"
TIMEOUT = 10


def login_status(url: str, password: str) -> int:
    """Return the status of Grafana's response to a login.

    Raises:
        OSError: it does not respond.
    """
    words = base64.b64encode(f"{ADMIN}:{password}".encode()).decode()
    request = urllib.request.Request(f"{url}/api/user", headers={"Authorization": f"Basic {words}"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "url": {"type": "str", "required": True},
            "password": {"type": "str", "required": True, "no_log": True},
            "home": {"type": "path", "required": True},
            "config": {"type": "path", "required": True},
            "user": {"type": "str", "required": True},
        },
        supports_check_mode=True,
    )
    words = module.params
    try:
        status = login_status(words["url"], words["password"])
        if status == 401 and not module.check_mode:
            command = ["runuser", "-u", words["user"], "--", f"{words['home']}/bin/grafana", "cli"]
            command += ["--homepath", words["home"], "--config", words["config"]]
            command += ["admin", "reset-admin-password", "--password-from-stdin"]
            code, out, err = module.run_command(command, data=words["password"], cwd="/")
            if code:
                module.fail_json(msg=f"grafana cli can't set the admin's password: {(out + err).strip()[-400:]}")
            after = login_status(words["url"], words["password"])
            if after != 200:
                module.fail_json(
                    msg=f"{words['url']} still returns {after} for the admin's password that was just set. After five "
                    "logins with a wrong password Grafana refuses all for five minutes: run the play again then."
                )
            module.exit_json(changed=True)
        if status not in (200, 401):
            module.fail_json(msg=f"{words['url']}/api/user returned {status}: see journalctl -u grafana")
        module.exit_json(changed=status == 401)
    except OSError as error:
        if module.check_mode:  # it may not run yet
            module.exit_json(changed=True)
        module.fail_json(msg=f"{words['url']} does not respond: {error}")


if __name__ == "__main__":
    main()
