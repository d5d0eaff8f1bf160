#!/usr/bin/python3
"""Write files atomically with mode and owner, and keep on the node who has what, so that it can be removed again."""

from __future__ import annotations

DOCUMENTATION = """
module: berny_files
short_description: Write a service's files in one go
options:
  folder: {description: Where C(files) and C(secret_files) go (read by the action plugin)., type: path}
  user: {description: Owner of the secret files (read by the action plugin)., type: str}
  inputs: {description: The list of what a service is started from (read by the action plugin)., type: path}
  started_from: {description: First lines of C(inputs) (read by the action plugin)., type: list, elements: str}
  commands: {description: Commands in /usr/local/bin and their templates (read by the action plugin)., type: dict}
  secret_files: {description: Names and templates of secret files (read by the action plugin)., type: dict}
  others: {description: Other destinations and their templates, or template and mode (read by the action plugin)., type: dict}
  files: {description: Names and templates; after the action plugin dest with mode and owner., type: raw}
  owner: {description: 'Who has the files: the last part of C(folder), else the role (set by the action plugin).', type: str}
  state: {description: Where the node keeps what was written for whom., type: path, default: /var/lib/berny}
  contents: {description: Text by destination., type: dict}
  secret_contents: {description: Text by destination of files that are in no diff and no log., type: dict, no_log: true}
author: [Berny (@berny)]
"""
EXAMPLES = """
- name: Configure ZooKeeper
  berny_files:
    folder: /etc/berny/zookeeper
    files: {zoo.cfg: zoo.cfg.j2}
"""
RETURN = """
written: {description: The files that differed., type: list, returned: always}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.berny_files import ARGUMENTS, have


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    module.exit_json(**have(module, module.params))


if __name__ == "__main__":
    main()
