#!/usr/bin/python3
"""Have an organisation, buckets with retention, and a write-only and a read-only token."""

from __future__ import annotations

DOCUMENTATION = """
module: influxdb_setup
short_description: Set up InfluxDB 2 through its API
options:
  url: {description: The server., type: str, required: true}
  organisation: {description: The organisation's name., type: str, required: true}
  admin_password: {description: Of the first user., type: str, required: true}
  admin_token: {description: Of the first user., type: str, required: true}
  buckets: {description: 'Retention (such as 90d) by bucket.', type: dict, required: true}
  read_token_file: {description: 'Where the read-only token is kept on the node, for the probe.', type: path, required: true}
author: [Berny (@berny)]
"""
EXAMPLES = """
- name: Set up
  influxdb_setup:
    url: http://localhost:8086
    organisation: berny
    admin_password: "{{ secrets.influxdb_admin_password }}"
    admin_token: "{{ secrets.influxdb_admin_token }}"
    buckets: {idfm_metrics: 90d}
    read_token_file: /etc/berny/influxdb/read.token
"""
RETURN = """
write_token: {description: Writes into every bucket and reads nothing., type: str, returned: always}
read_token: {description: Reads every bucket and writes nothing., type: str, returned: always}
changes: {description: What was changed in words., type: list, returned: always}
"""

import json
import os
import sys
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

sys.path[:0] = ["/opt/berny/berny/python", "/opt/berny/runtime/python"]
TIMEOUT = 30


class Refused(Exception):
    """The server answered with an error."""


class Influx:
    """The API. Source: the OpenAPI description of InfluxDB OSS 2.7."""

    def __init__(self, url: str, token: str) -> None:
        self.url, self.token = url, token

    def call(self, method: str, path: str, body: dict[str, Any] | None = None, **query: str) -> dict[str, Any]:
        """Return the answer.

        Raises:
            Refused: it was an error.
        """
        address = f"{self.url}/api/v2/{path}" + (f"?{urllib.parse.urlencode(query)}" if query else "")
        headers = {"Content-Type": "application/json", "Authorization": f"Token {self.token}"}
        if path == "setup":
            del headers["Authorization"]
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(address, data=data, headers=headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
                return json.loads(answer.read() or b"{}")
        except urllib.error.HTTPError as error:
            raise Refused(f"{method} {path}: {error.code} {error.read()[:300].decode(errors='replace')}") from None
        except OSError as error:
            raise Refused(f"{method} {path}: {error}") from None


def converge(module: AnsibleModule, influx: Influx) -> dict[str, Any]:
    """Make what is missing; return tokens and changes."""
    from berny.catalog import seconds

    words = module.params
    organisation, changes = words["organisation"], []
    buckets = {name: seconds(keep) for name, keep in words["buckets"].items()}
    if influx.call("GET", "setup")["allowed"]:
        if module.check_mode:
            return {"changes": ["set up"], "write_token": "", "read_token": ""}
        changes.append("set up")
        first, keep = next(iter(buckets.items()))
        body = {"username": "admin", "password": words["admin_password"], "token": words["admin_token"]}
        influx.call("POST", "setup", {**body, "org": organisation, "bucket": first, "retentionPeriodSeconds": keep})
    orgs = influx.call("GET", "orgs", org=organisation)["orgs"]
    org_id = orgs[0]["id"]
    found = {b["name"]: b for b in influx.call("GET", "buckets", org=organisation, limit="100")["buckets"]}
    for name, keep in buckets.items():
        rules = [{"type": "expire", "everySeconds": keep}]
        if name not in found:
            changes.append(f"bucket {name}")
            if not module.check_mode:
                found[name] = influx.call("POST", "buckets", {"orgID": org_id, "name": name, "retentionRules": rules})
        elif [rule["everySeconds"] for rule in found[name]["retentionRules"]] != [keep]:
            changes.append(f"bucket {name}: keep {words['buckets'][name]}")
            if not module.check_mode:
                influx.call("PATCH", f"buckets/{found[name]['id']}", {"retentionRules": rules})
    tokens = {}
    known = {a["description"]: a for a in influx.call("GET", "authorizations", org=organisation)["authorizations"]}
    for action in ("write", "read"):
        description = f"berny {action} {' '.join(sorted(buckets))}"
        if description not in known:
            changes.append(f"token to {action}")
            if module.check_mode:
                continue
            resources = [{"type": "buckets", "id": found[name]["id"], "orgID": org_id} for name in buckets]
            permissions = [{"action": action, "resource": resource} for resource in resources]
            body = {"orgID": org_id, "description": description, "permissions": permissions}
            known[description] = influx.call("POST", "authorizations", body)
        tokens[f"{action}_token"] = known[description]["token"]
    return {"changes": changes, **tokens}


def keep_token(module: AnsibleModule, token: str) -> bool:
    """Keep the token in its file, 0600; return whether the file differed."""
    path = Path(module.params["read_token_file"])
    if path.exists() and path.read_text() == token and path.stat().st_mode & 0o777 == 0o600:
        return False
    if not module.check_mode:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}")
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(token)
        beside.rename(path)
    return True


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "url": {"type": "str", "required": True},
            "organisation": {"type": "str", "required": True},
            "admin_password": {"type": "str", "required": True, "no_log": True},
            "admin_token": {"type": "str", "required": True, "no_log": True},
            "buckets": {"type": "dict", "required": True},
            "read_token_file": {"type": "path", "required": True, "no_log": False},
        },
        supports_check_mode=True,
    )
    try:
        result = converge(module, Influx(module.params["url"], module.params["admin_token"]))
    except Refused as error:
        hint = ""
        if " 401 " in f" {error} ":
            hint = " The secrets file beside the inventory is not this server's: restore it, or reset InfluxDB."
        module.fail_json(msg=f"InfluxDB at {module.params['url']} refused {error}.{hint}")
    if keep_token(module, result["read_token"]):
        result["changes"].append("token file")
    module.exit_json(changed=bool(result["changes"]), _ansible_no_log=True, **result)


if __name__ == "__main__":
    main()
