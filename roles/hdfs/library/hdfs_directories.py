#!/usr/bin/python3
"""Creates directories in HDFS with owner and mode, through WebHDFS as the superuser."""

from __future__ import annotations

DOCUMENTATION = """
module: hdfs_directories
short_description: Create or delete directories in HDFS, with owner and mode
options:
  url: {description: The NameNode's web address., type: str, required: true}
  directories:
    description: 'By path: owner, and mode (octal digits). Without a mode, the owner may change it; it is created as 755.'
    type: dict
    required: true
  state: {description: C(absent) deletes them recursively., choices: [present, absent], type: str, default: present}
  user: {description: HDFS's superuser., type: str, default: hdfs}
author: [Berny (@berny)]
"""
EXAMPLES = """
- name: Create a home directory
  hdfs_directories:
    url: http://master:9870
    directories: {/user/idfm: {owner: idfm, mode: "755"}}
"""
RETURN = """
changes: {description: Descriptions of the changes., type: list, returned: always}
"""

import json
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

TIMEOUT = 30
HELD = Path("/etc/berny/hdfs-namenode/stopped")


class WebHdfs:
    """A client of WebHDFS.

    Source of the format: "WebHDFS REST API" in the Hadoop documentation.
    """

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.url = module.params["url"]

    def call(self, method: str, path: str, operation: str, **query: str) -> dict[str, Any] | None:
        """Return the response, or None if the path does not exist."""
        words = urllib.parse.urlencode({"op": operation, "user.name": self.module.params["user"], **query})
        request = urllib.request.Request(f"{self.url}/webhdfs/v1{urllib.parse.quote(path)}?{words}", method=method)
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
                return json.loads(answer.read() or b"{}")
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            self.fail(path, operation, error.read().decode(errors="replace")[:400])
        except OSError as error:
            self.fail(path, operation, str(error))
        return None

    def fail(self, path: str, operation: str, said: str) -> None:
        """Fail with address, operation, path and error."""
        remedy = "See berny-probe hdfs."
        if HELD.exists():
            remedy = f"HDFS was stopped by an operator ({HELD}): sudo start-dfs.sh starts it."
        self.module.fail_json(msg=f"{self.url}: {operation} {path} was refused: {said}. {remedy}")


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "url": {"type": "str", "required": True},
            "directories": {"type": "dict", "required": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "user": {"type": "str", "default": "hdfs"},
        },
        supports_check_mode=True,
    )
    hdfs = WebHdfs(module)
    changes = []
    for path, wanted in module.params["directories"].items():
        owner, mode = wanted["owner"], str(wanted.get("mode", "755"))
        status = (hdfs.call("GET", path, "GETFILESTATUS") or {}).get("FileStatus")
        if module.params["state"] == "absent":
            if status is not None:
                changes.append(f"{path}: deleted")
                if not module.check_mode:
                    hdfs.call("DELETE", path, "DELETE", recursive="true", skiptrash="true")
            continue
        if status is None:
            changes.append(f"{path}: created")
            if not module.check_mode:
                hdfs.call("PUT", path, "MKDIRS", permission=mode)
        if status is None or status["owner"] != owner:
            changes.append(f"{path}: owner {owner}")
            if not module.check_mode:
                hdfs.call("PUT", path, "SETOWNER", owner=owner, group=owner)
        if status is None or ("mode" in wanted and status["permission"] != mode):
            changes.append(f"{path}: mode {mode}")
            if not module.check_mode:
                hdfs.call("PUT", path, "SETPERMISSION", permission=mode)
    module.exit_json(changed=bool(changes), changes=changes)


if __name__ == "__main__":
    main()
