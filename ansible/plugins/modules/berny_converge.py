#!/usr/bin/python3
"""A service on one host in one round trip: its packages or its archive, its files, and what runs."""

from __future__ import annotations

DOCUMENTATION = """
module: berny_converge
short_description: Install, configure and run a service
description: Each part is left out where its arguments are; files wait for packages and archives that are missing.
options:
  phase:
    description:
      - Read by the action, which makes the other arguments of the variables of the role C(service).
      - C(configure) is for packages, archive and files; C(all) starts the service as well.
    choices: [configure, all]
    type: str
    required: true
  packages: {description: 'Names and masks of packages, and the owner that is recorded for the masks.', type: dict}
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
packages: {description: 'Packages that are missing, and units that were masked.', type: dict, returned: with packages}
archive: {description: What berny_archive returns., type: dict, returned: with archive}
files: {description: What berny_files returns., type: dict, returned: with files}
service: {description: What berny_service returns., type: dict, returned: with service}
"""

from ansible.module_utils import berny_archive, berny_files, berny_packages, berny_service
from ansible.module_utils.basic import AnsibleModule

PARTS = {"packages": berny_packages, "archive": berny_archive, "files": berny_files, "service": berny_service}


def main() -> None:
    spec = {name: {"type": "dict", "options": part.ARGUMENTS} for name, part in PARTS.items()}
    module = AnsibleModule(argument_spec=spec, supports_check_mode=True)
    found = {}
    for name, part in PARTS.items():
        if module.params[name]:
            found[name] = part.have(module, module.params[name])
            if found[name].get("missing") and not module.check_mode:
                break
    module.exit_json(changed=any(part["changed"] for part in found.values()), **found)


if __name__ == "__main__":
    main()
