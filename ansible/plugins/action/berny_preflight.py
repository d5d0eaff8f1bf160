"""Look at one node before anything is touched; see modules/berny_preflight.py and src/berny/preflight.py."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import yaml
from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase

from berny.catalog import load_catalog, load_pipelines
from berny.placement import need, placed

SSH_PORT = 22
# A round trip that was this quick tells the clock well enough.
QUICK_SECONDS = 0.2


def ssh_endpoint(own: Any) -> tuple[str, int] | None:
    """Return where other nodes find a node's SSH, or None where the inventory does not say."""
    connect = own.get("ansible_host")
    try:
        address = own["node_address"]
    except Exception:  # what an address is made of may be missing: the inventory's findings tell
        address = connect
    if not address:
        return None
    # A port that leads to another address belongs to whatever stands before the node.
    return str(address), int(own.get("ansible_port") or SSH_PORT) if address == connect else SSH_PORT


class ActionModule(ActionBase):
    """One module call and one question for the time. A node that does not answer is a finding, not the end."""

    _requires_connection = True
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return what ``berny_preflight_report`` needs of the node."""
        result = super().run(tmp, task_vars)
        variables = task_vars or {}
        host, groups = variables["inventory_hostname"], variables["groups"]
        catalog, pipelines = load_catalog(), load_pipelines()
        size = self._templar.template(variables["node_size"])
        names = {name: f"{name.replace('-', '_')}_heap" for name in catalog.services}
        heaps = {name: int(self._templar.template(variables[key])) for name, key in names.items() if key in variables}
        wanted = need(catalog, pipelines, groups, host, size if size == "small" else "large", heaps)
        shown = placed(catalog, pipelines, groups, host)
        roles = Path(self._task.args["roles"])
        nofile = yaml.safe_load((roles / "service" / "defaults" / "main.yml").read_text())["service_limit_nofile"]
        result["need"] = {"memory": wanted.memory, "jobs": wanted.jobs, "disks": wanted.disks, "ports": wanted.ports}
        result |= {"placed": sorted(shown), "nofile": int(variables.get("service_limit_nofile", nofile))}
        peers = {}
        for other in groups["all"]:
            endpoint = ssh_endpoint(variables["hostvars"][other])
            if other != host and endpoint:
                ports = need(catalog, pipelines, groups, other, "small", {}).ports
                peers[other] = {"address": endpoint[0], "ssh": endpoint[1], "ports": list(ports)}
        args = {
            "ports": sorted(wanted.ports),
            "directories": sorted(wanted.disks),
            "mounts": self._templar.template(variables.get("node_data_disks", {})),
            "peers": peers,
            "placed": sorted(shown),
        }
        try:
            said = self._execute_module(module_name="berny_preflight", module_args=args, task_vars=task_vars)
            if "facts" in said:
                result |= {"facts": said["facts"], "clock": self._clock()}
            else:
                words = [said.get("msg"), said.get("module_stderr")]
                result["failure"] = " ".join(str(word).strip() for word in words if word) or "its module said nothing"
        except AnsibleConnectionFailure as error:
            address = variables.get("ansible_host", "an address that the inventory does not tell")
            result["failure"] = (
                f"{str(error).strip()}. Is it on, does {address} answer SSH, and are user and key the inventory's?"
            )
        return result

    def _clock(self) -> list[float] | None:
        """Return the quickest of a few questions for the node's time: asked, said, answered."""
        best: list[float] | None = None
        for _ in range(3):
            asked = time.time()
            said = self._low_level_execute_command("date +%s.%N", sudoable=False)
            answered = time.time()
            if said.get("rc") == 0 and (best is None or answered - asked < best[2] - best[0]):
                best = [asked, float(said["stdout"].split()[-1]), answered]
            if best and best[2] - best[0] < QUICK_SECONDS:
                break
        return best
