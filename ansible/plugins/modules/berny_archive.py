#!/usr/bin/python3
"""Unpack an archive beside its folder and rename it last, so that a half unpacked tree is never current.

With it goes a list of what was unpacked, in ``.manifest``. What is there is held against it in each run: other modes and
owners are mended, and an archive with a file that is missing or another is unpacked again.
"""

from __future__ import annotations

DOCUMENTATION = """
module: berny_archive
short_description: Have an archive of the store unpacked in a folder named version and digest
options:
  name: {description: Name of the archive in the store (read by the action plugin)., type: str}
  archive: {description: A path or address instead of the vendor's archive (read by the action plugin)., type: str}
  archive_sha256: {description: Its digest (read by the action plugin)., type: str}
  home: {description: The folder that holds the unpacked archive; without it the module tells the current one., type: path}
  link: {description: A symbolic link kept on the current folder., type: path, required: true}
  source: {description: The transferred archive; without it the module only looks., type: path}
  sha256: {description: What the transferred archive must hash to., type: str}
author: [Berny (@berny)]
"""
EXAMPLES = """
- name: Unpack Kafka
  berny_archive:
    name: kafka
"""
RETURN = """
home: {description: The folder; empty where an optional archive is in neither store nor node., type: str, returned: always}
missing: {description: 'The archive has to be unpacked: its folder is not there, or damaged.', type: bool, returned: always}
damage: {description: What was not as it had been unpacked., type: list, returned: with home}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.berny_archive import ARGUMENTS, have


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    module.exit_json(**have(module, module.params))


if __name__ == "__main__":
    main()
