#!/usr/bin/python3
"""Creates an organisation, buckets with retention, a write-only token for each pipeline and one read-only token."""

from __future__ import annotations

DOCUMENTATION = """
module: influxdb_setup
short_description: Set up InfluxDB 2 through its API
options:
  url: {description: The server., type: str, required: true}
  organisation: {description: The organisation's name., type: str, required: true}
  admin_password: {description: Password of the first user., type: str, required: true}
  admin_token: {description: Token of the first user., type: str, required: true}
  buckets: {description: 'By bucket, its retention C(keep) (90d) and its C(pipeline).', type: dict, required: true}
  read_token_file: {description: 'File on the node that has the read-only token, for the probe.', type: path, required: true}
  phase:
    description:
      - C(have) creates what is missing. If there are several tokens of a kind, the newest is used.
      - C(renew) creates another token of each kind, including the first user's, unless there are two already.
      - C(revoke) removes all tokens but the newest of each kind, after verifying that these work.
    choices: [have, renew, revoke]
    type: str
    default: have
author: [Berny (@berny)]
"""
EXAMPLES = """
- name: Set up
  influxdb_setup:
    url: http://localhost:8086
    organisation: berny
    admin_password: "{{ secrets.influxdb_admin_password }}"
    admin_token: "{{ secrets.influxdb_admin_token }}"
    buckets: {idfm_metrics: {keep: 90d, pipeline: idfm}}
    read_token_file: /etc/berny/influxdb/read.token
"""
RETURN = """
granted:
  description: By pipeline, the variables of its stages that write here. Its token can only write to its own buckets.
  type: dict
  returned: always
organisation: {description: As given., type: str, returned: always}
read_token: {description: A token that can only read the buckets., type: str, returned: always}
new_admin_token: {description: The first user's newest token., type: str, returned: if it differs from C(admin_token)}
changes: {description: Descriptions of the changes., type: list, returned: always}
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
# The setup of a server requires a bucket: this one is used if no pipeline has any.
NOBODYS = {"berny": {"keep": "1d", "pipeline": ""}}


class Refused(Exception):
    """The server returned an error."""


class Influx:
    """The API. Source: the OpenAPI description of InfluxDB OSS 2.7."""

    def __init__(self, url: str, token: str) -> None:
        self.url, self.token = url, token

    def call(self, method: str, path: str, body: dict[str, Any] | None = None, **query: str) -> dict[str, Any]:
        """Return the response.

        Raises:
            Refused: the server returned an error or does not respond.
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

    def write_nothing(self, bucket: str, org: str) -> None:
        """Check that the token is permitted to write to a bucket, by a write without points.

        Raises:
            Refused: it is not.
        """
        try:
            self.call("POST", "write", {}, bucket=bucket, org=org)
        except Refused as error:
            # An invalid body is refused with 400, but only after the token was accepted.
            if " 400 " not in f" {error} ":
                raise


def converge(module: AnsibleModule, influx: Influx) -> dict[str, Any]:
    """Create what is missing; return tokens and changes."""
    from berny.model.component import seconds

    words = module.params
    organisation, changes = words["organisation"], []
    wanted = words["buckets"] or NOBODYS
    buckets = {name: seconds(bucket["keep"]) for name, bucket in wanted.items()}
    if influx.call("GET", "setup")["allowed"]:
        if module.check_mode:
            return {"changes": ["set up"], "organisation": organisation, "read_token": "", "granted": {}}
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
            changes.append(f"bucket {name}: keep {wanted[name]['keep']}")
            if not module.check_mode:
                influx.call("PATCH", f"buckets/{found[name]['id']}", {"retentionRules": rules})
    known = influx.call("GET", "authorizations", org=organisation)["authorizations"]

    def token(action: str, own: list[str]) -> str:
        """Return the newest token for an action on buckets."""
        resources = [{"type": "buckets", "id": found[name]["id"], "orgID": org_id} for name in own if name in found]
        ids = {resource["id"] for resource in resources}
        # A token for a removed bucket does not apply to a new bucket of the same name.
        here = [a for a in known if ids <= {permission["resource"].get("id") for permission in a["permissions"]}]
        permissions = [{"action": action, "resource": resource} for resource in resources]
        kind = Kind(f"berny {action} {' '.join(sorted(own))}", f"berny {action} ", permissions)
        return have_token(module, influx, org_id, kind, here, changes)

    tokens: dict[str, Any] = {"read_token": token("read", list(buckets)), "granted": {}}
    for pipeline in sorted({bucket["pipeline"] for bucket in wanted.values()} - {""}):
        own = [name for name, bucket in wanted.items() if bucket["pipeline"] == pipeline]
        tokens["granted"][pipeline] = {
            "INFLUX_ORG": organisation,
            "INFLUX_TOKEN": token("write", own),
            "INFLUX_BUCKET_ID": {name: found[name]["id"] if name in found else "" for name in own},
        }
    if words["phase"] != "have":
        # The permissions of the first user, as the server has them.
        first = next(a for a in known if a["token"] == words["admin_token"])
        kind = Kind("berny admin", "berny admin", first["permissions"], first="admin's Token")
        newest = have_token(module, influx, org_id, kind, known, changes)
        # A known token is not returned: Ansible masks results that equal a secret parameter.
        if newest != words["admin_token"]:
            tokens["new_admin_token"] = newest
    if words["phase"] == "revoke":
        own_buckets = {name: (found[name], bucket["pipeline"]) for name, bucket in wanted.items()}
        revoke(module, influx, own_buckets, known, tokens, changes)
    return {"changes": changes, "organisation": organisation, **tokens}


class Kind:
    """Tokens of one kind, identified by their descriptions: NAME, then NAME #2, NAME #3, ..."""

    def __init__(self, name: str, prefix: str, permissions: list[Any], first: str = "") -> None:
        self.name, self.prefix, self.permissions, self.first = name, prefix, permissions, first or name

    def number(self, description: str) -> int:
        """Return the number of a token, or 0 if it is of another kind."""
        if description == self.first:
            return 1
        number = description.removeprefix(f"{self.name} #")
        return int(number) if number != description and number.isdigit() else 0


def have_token(
    module: AnsibleModule, influx: Influx, org_id: str, kind: Kind, known: list[Any], changes: list[str]
) -> str:
    """Return the newest token of a kind; create one if there is none, or if there is only one and it has to be renewed."""
    own = sorted((a for a in known if kind.number(a["description"])), key=lambda a: kind.number(a["description"]))
    if own and (module.params["phase"] != "renew" or len(own) > 1):
        return str(own[-1]["token"])
    changes.append(f"token {kind.prefix.strip()}")
    if module.check_mode:
        return str(own[-1]["token"]) if own else ""
    description = f"{kind.name} #{kind.number(own[-1]['description']) + 1}" if own else kind.first
    body = {"orgID": org_id, "description": description, "permissions": kind.permissions}
    known.append(influx.call("POST", "authorizations", body))
    return str(known[-1]["token"])


def revoke(
    module: AnsibleModule,
    influx: Influx,
    buckets: dict[str, tuple[dict[str, Any], str]],
    known: list[Any],
    tokens: dict[str, Any],
    changes: list[str],
) -> None:
    """Remove the older tokens of each kind. The newest must work, and the secrets file must have the first user's newest."""
    if "new_admin_token" in tokens:
        module.fail_json(
            msg="The secrets file does not have the newest admin token: run playbooks/rotate.yml from its beginning."
        )
    writers = {pipeline: granted["INFLUX_TOKEN"] for pipeline, granted in tokens["granted"].items()}
    for bucket, pipeline in buckets.values():
        Influx(influx.url, tokens["read_token"]).call("GET", f"buckets/{bucket['id']}")
        if pipeline:
            Influx(influx.url, writers[pipeline]).write_nothing(bucket["id"], bucket["orgID"])
    old = [
        authorization
        for authorization in known
        if authorization["description"].startswith(("berny write ", "berny read ", "berny admin", "admin's Token"))
        and authorization["token"] not in (module.params["admin_token"], tokens["read_token"], *writers.values())
    ]
    for authorization in old:
        changes.append(f"revoked {authorization['description']}")
        if not module.check_mode:
            influx.call("DELETE", f"authorizations/{authorization['id']}")


def keep_token(module: AnsibleModule, token: str) -> bool:
    """Write the token to its file with mode 0600; return whether the file differed."""
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
            "phase": {"type": "str", "choices": ["have", "renew", "revoke"], "default": "have"},
        },
        supports_check_mode=True,
    )
    os.umask(0o022)
    try:
        result = converge(module, Influx(module.params["url"], module.params["admin_token"]))
    except Refused as error:
        hint = ""
        if " 401 " in f" {error} ":
            hint = (
                " The secrets file beside the inventory does not belong to this server: restore it, or reset InfluxDB."
            )
        module.fail_json(msg=f"InfluxDB at {module.params['url']} refused {error}.{hint}")
    if keep_token(module, result["read_token"]):
        result["changes"].append("token file")
    module.exit_json(changed=bool(result["changes"]), **result)


if __name__ == "__main__":
    main()
