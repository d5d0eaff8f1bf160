#!/usr/bin/python3
"""Services on one host in one round trip: archive, files, and what runs, one service after the other."""

from __future__ import annotations

DOCUMENTATION = """
module: berny_converge
short_description: Unpack, configure and start services
description:
  - Each part is left out where its arguments are.
  - Where an archive has to be sent, that service and those after it wait.
options:
  phase:
    description:
      - Read by the action, which makes the other arguments of the variables of the role C(service).
      - C(configure) has the archive and the files; C(all) starts the service as well.
    choices: [configure, all]
    type: str
    required: true
  only: {description: Read by the action; these services alone., type: list, elements: str}
  services:
    description: In their order, C(name) and the arguments of C(berny_archive), C(berny_files) and C(berny_service).
    type: list
    elements: dict
author: [Berny (@berny)]
"""
EXAMPLES = """
- name: Converge the services of a role
  berny_converge: {phase: all}
"""
RETURN = """
services:
  description: By name, what C(archive), C(files) and C(service) return, each where it was asked for, and C(changed).
  type: dict
  returned: always
missing: {description: The home of the archive that has to be sent before the rest., type: str, returned: where one has to}
"""

from typing import Any

from ansible.module_utils import berny_archive, berny_files, berny_service
from ansible.module_utils.basic import AnsibleModule

PARTS = {"archive": berny_archive, "files": berny_files, "service": berny_service}
UNITS = "/etc/systemd/system/"


def would_differ(params: dict[str, Any], found: dict[str, Any]) -> bool:
    """Return whether a service that runs would run from something old once the files of a dry run were written."""
    service = found.get("service", {})
    if service.get("down", True) or service.get("held"):
        return False
    contents = params["files"]["contents"]
    inputs = {line for path, text in contents.items() if path.endswith("/inputs") for line in text.splitlines()}
    written = set(found.get("files", {}).get("written", []))
    own = inputs | {path for path in written if path.startswith(UNITS) and path.endswith(".service")}
    return bool(written & own) or bool(found.get("archive", {}).get("changed"))


def converge(module: AnsibleModule, params: dict[str, Any]) -> dict[str, Any]:
    """Converge one service; return what each part returns."""
    found: dict[str, Any] = {}
    for name, part in PARTS.items():
        if params[name]:
            found[name] = part.have(module, params[name])
            if found[name].get("missing") and not module.check_mode:
                return found
    if module.check_mode and found.get("service") and would_differ(params, found):
        found["service"]["differs"] = True
    return {**found, "changed": any(part["changed"] for part in found.values())}


def main() -> None:
    parts = {name: {"type": "dict", "options": part.ARGUMENTS} for name, part in PARTS.items()}
    options = {"name": {"type": "str", "required": True}, **parts}
    spec = {"services": {"type": "list", "elements": "dict", "options": options, "required": True}}
    module = AnsibleModule(argument_spec=spec, supports_check_mode=True)
    done: dict[str, Any] = {}
    for params in module.params["services"]:
        found = converge(module, params)
        if "changed" not in found:
            changed = any(one["changed"] for one in done.values())
            module.exit_json(changed=changed, services=done, missing=params["archive"]["home"])
        done[params["name"]] = found
    module.exit_json(changed=any(one["changed"] for one in done.values()), services=done)


if __name__ == "__main__":
    main()
