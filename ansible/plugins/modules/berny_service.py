#!/usr/bin/python3
"""Convergence of one service on one host: restart is state, not an event.

A unit records, as it starts, a digest of all that it was started from (see record-start in the role ``node``). This module
compares it with what is on disk, starts what is down, and restarts what it is told to.
"""

from __future__ import annotations

DOCUMENTATION = """
module: berny_service
short_description: Start a service that is down, tell whether a running one differs from its files, or restart it
options:
  name: {description: The service and its unit., type: str, required: true}
  phase:
    description:
      - C(start) starts the service where it is down and waits until it is ready; a running one is only compared.
      - C(restart) waits until the component is healthy, restarts, and waits until the instance is ready.
    choices: [start, restart]
    type: str
    required: true
  probe: {description: What berny-probe is asked; empty for nothing., type: str}
  gate: {description: What must be healthy before an instance that is ready is taken down; defaults to C(probe)., type: str}
  component: {description: The component that must be ready for the gate to hold., type: str}
  target: {description: 'The target that it is part of: enabled and started with it.', type: str}
  beside: {description: Units that are enabled and run beside it., type: list, elements: str}
  wait: {description: Seconds to wait for a probe., type: int, default: 180}
author: [Berny (@berny)]
"""
EXAMPLES = """
- name: Start Kafka where it is down
  berny_service: {name: kafka, phase: start, probe: kafka}
"""
RETURN = """
mended: {description: The first in its directories that its user could not use; else empty., type: str, returned: with start}
differs: {description: The service runs from something else than what is on disk., type: bool, returned: always}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.berny_service import ARGUMENTS, have


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    module.exit_json(**have(module, module.params))


if __name__ == "__main__":
    main()
