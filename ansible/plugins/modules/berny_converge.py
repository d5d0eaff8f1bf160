#!/usr/bin/python3
"""A service on one host in one round trip: its archive, its files, and what runs."""

from __future__ import annotations

DOCUMENTATION = """
module: berny_converge
short_description: Have a service unpacked, configured and running
description: Each part is left out where its arguments are; files wait for an archive that has to be sent.
options:
  phase:
    description:
      - Read by the action, which makes the other arguments of the variables of the role C(service).
      - C(configure) has the archive and the files; C(all) starts the service as well.
    choices: [configure, all]
    type: str
    required: true
  archive: {description: Arguments of the module berny_archive., type: dict}
  files: {description: Arguments of the module berny_files., type: dict}
  service: {description: Arguments of the module berny_service., type: dict}
author: [Berny (@berny)]
"""
EXAMPLES = """
- name: Have Kafka unpacked, configured and running
  berny_converge: {phase: all}
"""
RETURN = """
archive: {description: What berny_archive returns., type: dict, returned: with archive}
files: {description: What berny_files returns., type: dict, returned: with files}
service: {description: What berny_service returns., type: dict, returned: with service}
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


def main() -> None:
    spec = {name: {"type": "dict", "options": part.ARGUMENTS} for name, part in PARTS.items()}
    module = AnsibleModule(argument_spec=spec, supports_check_mode=True)
    found = {}
    for name, part in PARTS.items():
        if module.params[name]:
            found[name] = part.have(module, module.params[name])
            if found[name].get("missing") and not module.check_mode:
                break
    if module.check_mode and found.get("service") and would_differ(module.params, found):
        found["service"]["differs"] = True
    module.exit_json(changed=any(part["changed"] for part in found.values()), **found)


if __name__ == "__main__":
    main()
