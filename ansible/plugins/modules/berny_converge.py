#!/usr/bin/python3
"""Services on one host in one round trip: packages or archive, files, and what runs, one service after the other."""

from __future__ import annotations

DOCUMENTATION = """
module: berny_converge
short_description: Install, configure and start services
description:
  - Each part is left out where its arguments are.
  - Where packages have to be installed or an archive has to be sent, that service and those after it wait.
options:
  phase:
    description:
      - Read by the action, which makes the other arguments of the variables of the role C(service).
      - C(configure) has the archive and the files; C(all) starts the service as well. Without it there are no services.
    choices: [configure, all]
    type: str
  only: {description: Read by the action; these services alone., type: list, elements: str}
  packages: {description: Read by the action; packages of the operating system that a host gets., type: list, elements: str}
  archives: {description: Read by the action; archives of the store that a host gets., type: list, elements: str}
  clients: {description: Read by the action; files that a host gets, as C(berny_files) is given them., type: dict}
  services:
    description: In their order, C(name) and the arguments of each part, such as those of C(berny_files).
    type: list
    elements: dict
  secrets: {description: Text by destination of the secret files of all services; in no diff and no log., type: dict}
author: [Berny (@berny)]
"""
EXAMPLES = """
- name: Converge the services of a role
  berny_converge: {phase: all}
"""
RETURN = """
archives:
  description: The folders of C(archives) by name.
  type: dict
  returned: always
services:
  description: By name, C(changed) and what each part returns that was asked for.
  type: dict
  returned: always
missing:
  description: The C(name) of the service that something has to be installed for before the rest, and which C(part) misses it.
  type: dict
  returned: where there is one
"""

from typing import Any

from ansible.module_utils import berny_archive, berny_files, berny_packages, berny_service
from ansible.module_utils.basic import AnsibleModule

PARTS = {"packages": berny_packages, "archive": berny_archive, "files": berny_files, "service": berny_service}
UNITS = "/etc/systemd/system/"
SECRETS = "secret_contents"


def would_differ(params: dict[str, Any], found: dict[str, Any]) -> bool:
    """Return whether a service that runs would run from something old once the files of a dry run were written."""
    service = found.get("service", {})
    # A timer's next run is from what is written by then.
    if service.get("down", True) or service.get("held") or params["service"]["timer"]:
        return False
    contents = params["files"]["contents"]
    inputs = {line for path, text in contents.items() if path.endswith("/inputs") for line in text.splitlines()}
    written = set(found.get("files", {}).get("written", []))
    return bool(written & {*inputs, f"{UNITS}{params['name']}.service"}) or bool(
        found.get("archive", {}).get("changed")
    )


def converge(module: AnsibleModule, params: dict[str, Any]) -> dict[str, Any]:
    """Converge one service; return what each part returns, without C(changed) where the last of them misses something."""
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
    # Ansible masks an option of an option in no log: secrets are an option of their own.
    own = {
        name: {key: value for key, value in part.ARGUMENTS.items() if key != SECRETS} for name, part in PARTS.items()
    }
    options = {
        "name": {"type": "str", "required": True},
        **{name: {"type": "dict", "options": own[name]} for name in own},
    }
    spec = {
        "services": {"type": "list", "elements": "dict", "options": options, "required": True},
        "secrets": {"type": "dict", "default": {}, "no_log": True},
    }
    module = AnsibleModule(argument_spec=spec, supports_check_mode=True)
    done: dict[str, Any] = {}
    for params in module.params["services"]:
        if params["files"]:
            params["files"][SECRETS] = module.params["secrets"]
        found = converge(module, params)
        if "changed" not in found:
            changed = any(one["changed"] for one in done.values())
            missing = {"name": params["name"], "part": list(found)[-1]}
            module.exit_json(changed=changed, services=done, missing=missing, found=found)
        done[params["name"]] = found
    module.exit_json(changed=any(one["changed"] for one in done.values()), services=done)


if __name__ == "__main__":
    main()
