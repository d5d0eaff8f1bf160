"""Say what a reset removes, or refuse it before anything is touched; see src/berny/controller/removal.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

from berny.controller.removal import Refused, Request, plan
from berny.model.catalog import load_catalog
from berny.model.topology import chosen, is_selected, selected_pipelines

# Their tasks are called by name.
SHARED = {"node", "pipeline", "service"}


class ActionModule(ActionBase):
    """Runs on the controller only, once, on what each node has installed (``_reset_installed``)."""

    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the plan, or fail with everything that stands against it."""
        result = super().run(tmp, task_vars)
        variables = task_vars or {}
        words = self._task.args
        request = Request(
            component=str(words.get("component") or ""),
            pipeline=str(words.get("pipeline") or ""),
            everything=bool(words.get("everything")),
            data=str(words.get("data") or ""),
        )
        hosts = variables["ansible_play_hosts"]
        said = {host: variables["hostvars"][host]["_reset_installed"] for host in hosts}
        installed, remembered, unrecorded = (
            {host: facts[kind] for host, facts in said.items()} for kind in ("owners", "remembered", "unrecorded")
        )
        stages = {owner: pipeline for facts in said.values() for owner, pipeline in facts["stages"].items()}
        groups, wanted = variables["groups"], chosen(self._templar.template(variables["pipelines"]))
        # Of what is not selected there may be something left, and it is known by its record. Records go before data: where a
        # removal was cut off in between, the pipeline is known by the name that is given again.
        named = [*wanted, *stages.values(), *([request.pipeline] if request.data else [])]
        catalog, pipelines = load_catalog(), selected_pipelines(named)
        try:
            cluster = str(words["cluster"])
            found = plan(request, cluster, catalog, pipelines, groups, installed, remembered, unrecorded, stages)
        except Refused as refused:
            result |= {"failed": True, "msg": "Nothing was touched. " + " | ".join(refused.problems)}
            return result
        result |= {"owners": found.owners, "hosts": found.hosts, "data": found.data, "everything": found.everything}
        removers = {path.parents[1].name for path in Path(words["roles"]).glob("*/tasks/remove.yml")}
        withdraws = [
            one.name for one in catalog.components.values() if "withdraw" in one.verbs and is_selected(one, groups)
        ]
        result["withdraws"] = withdraws if found.pipeline_data else []
        result["roles"] = sorted(removers - SHARED) if found.everything else []
        result["pipeline_data"] = found.pipeline_data
        result["warnings"] = found.kept
        return result
