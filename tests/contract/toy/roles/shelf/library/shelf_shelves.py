#!/usr/bin/python3
"""Have shelves, each with a token of its own, or remove them."""

from __future__ import annotations

DOCUMENTATION = """
module: shelf_shelves
short_description: Create, change or remove shelves
options:
  url: {description: The server., type: str, required: true}
  token: {description: The administrator's., type: str, required: true}
  shelves: {description: 'By name: keep (7d), colour, and the C(pipeline) that asks.', type: dict, required: true}
  state: {description: C(absent) removes those that exist., choices: [present, absent], type: str, default: present}
author: [Berny (@berny)]
"""
EXAMPLES = """
- name: Have a shelf
  shelf_shelves:
    url: http://worker-0:7600
    token: "{{ secrets.shelf_admin_token }}"
    shelves: {toy_latest: {keep: 90d, colour: blue, pipeline: toy}}
"""
RETURN = """
granted: {description: By pipeline, what its stages that write here get., type: dict, returned: with C(present)}
changes: {description: What was changed in words., type: list, returned: always}
"""

import json
import sys
import urllib.error
import urllib.request
from typing import Any

from ansible.module_utils.basic import AnsibleModule

sys.path[:0] = ["/opt/berny/berny/python", "/opt/berny/runtime/python"]
TIMEOUT = 30


def call(module: AnsibleModule, method: str, path: str, body: Any = None) -> Any:
    """Return the server's response; an error ends the module."""
    url, headers = f"{module.params['url']}/{path}", {"Authorization": f"Bearer {module.params['token']}"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
            return json.loads(response.read())
    except urllib.error.HTTPError as error:
        said = f"{error.code} {error.read()[:200].decode(errors='replace')}"
    except OSError as error:
        said = str(error)
    return module.fail_json(msg=f"{method} {url}: {said}. berny-probe shelf says what is missing.")


def provide(module: AnsibleModule, found: dict[str, Any]) -> dict[str, Any]:
    """Create and change shelves; return changes and grants."""
    from berny.model.component import seconds

    changes, granted = [], {}
    wanted = module.params["shelves"]
    for name, shelf in wanted.items():
        facts = {"keep": seconds(shelf["keep"]), "colour": shelf["colour"]}
        if {key: found.get(name, {}).get(key) for key in facts} != facts:
            changes.append(f"{name}: {facts}")
            if not module.check_mode:
                call(module, "PUT", f"shelves/{name}", facts)
    if changes and not module.check_mode:
        found = call(module, "GET", "shelves")
    for name, shelf in wanted.items():
        if name in found:
            granted[shelf["pipeline"]] = {"SHELF_TOKEN": found[name]["token"], "SHELF_ID": found[name]["id"]}
    return {"changes": changes, "granted": granted}


def withdraw(module: AnsibleModule, found: dict[str, Any]) -> dict[str, Any]:
    """Remove the shelves that exist; return changes."""
    there = [name for name in module.params["shelves"] if name in found]
    for name in there if not module.check_mode else []:
        call(module, "DELETE", f"shelves/{name}")
    return {"changes": [f"{name}: removed" for name in there]}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "url": {"type": "str", "required": True},
            "token": {"type": "str", "required": True, "no_log": True},
            "shelves": {"type": "dict", "required": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        supports_check_mode=True,
    )
    found = call(module, "GET", "shelves")
    result = (provide if module.params["state"] == "present" else withdraw)(module, found)
    module.exit_json(changed=bool(result["changes"]), **result)


if __name__ == "__main__":
    main()
