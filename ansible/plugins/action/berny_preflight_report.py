"""Hold inventory and nodes against the catalog and report everything at once; see src/berny/controller/preflight."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

from berny.controller.placement import Need, packaged, units
from berny.controller.preflight import Node, find, report
from berny.model.topology import selected


class ActionModule(ActionBase):
    """Runs on the controller only, once, on what ``berny_preflight`` read of every node."""

    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Fail with a list of everything that is wrong; tell what is doubtful."""
        result = super().run(tmp, task_vars)
        variables = task_vars or {}
        words = self._task.args
        catalog, pipelines = selected(variables["groups"], self._templar.template(variables["pipelines"]))
        groups = units(catalog, pipelines)
        nodes = {}
        for host in variables["ansible_play_hosts_all"]:
            said = variables["hostvars"][host].get("_preflight") or {}
            if "need" not in said:
                result |= {
                    "failed": True,
                    "msg": f"Nothing was touched. {host}: {said.get('msg', 'was not looked at')}",
                }
                return result
            ports = {int(port): unit for port, unit in said["need"]["ports"].items()}
            nodes[host] = Node(
                need=Need(said["need"]["memory"], said["need"]["jobs"], said["need"]["disks"], ports),
                placed=set(said["placed"]),
                groups=groups,
                nofile=said["nofile"],
                packaged=packaged(catalog),
                settings=said["settings"],
                address=said["address"],
                facts=said.get("facts") or {},
                failure=said.get("failure", ""),
                clock=tuple(said["clock"]) if said.get("clock") else None,
            )
        folders = {folder.name for folder in Path(words["roles"]).iterdir()}
        found = find(nodes, words["inventory"], folders - set(catalog.components))
        fatal, told = report(found, words["allow"])
        result["warnings"] = told
        if fatal:
            problems = f"{len(fatal)} problem{'s' if len(fatal) > 1 else ''}"
            lines = "\n".join(f"- {problem}" for problem in fatal)
            result |= {"failed": True, "msg": f"Nothing was touched. {problems}:\n{lines}"}
        return result
