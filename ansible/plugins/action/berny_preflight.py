"""Look at one node before anything is touched; see modules/berny_preflight.py and src/berny/controller/preflight."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.plugins.action import ActionBase

from berny.controller.placement import need, placed, units
from berny.controller.settings import Setting, integer, load_settings
from berny.model import names as naming
from berny.model.catalog import Catalog
from berny.model.topology import selected

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
    return str(address), integer(own.get("ansible_port")) or SSH_PORT if address == connect else SSH_PORT


def drivers(catalog: Catalog, groups: Any) -> list[str]:
    """Return the nodes whose scripts start and stop services on all nodes."""
    first = [order[0] for component in catalog.components.values() for order in component.control.values()]
    return sorted({groups[group][0] for group in (catalog.services[name].group for name in first) if groups.get(group)})


class ActionModule(ActionBase):
    """One module call and one question for the time. A node that does not answer is a finding, not the end."""

    _requires_connection = True
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return what ``berny_preflight_report`` needs of the node."""
        result = super().run(tmp, task_vars)
        variables = task_vars or {}
        host, groups = variables["inventory_hostname"], variables["groups"]
        catalog, pipelines = selected(variables["groups"], self._templar.template(variables["pipelines"]))
        size = self._templar.template(variables["node_size"])
        names = {name: naming.heap(name) for name, service in catalog.services.items() if service.heap}
        given = {
            name: integer(self._templar.template(variables[key])) for name, key in names.items() if key in variables
        }
        # What is no number is a finding of the inventory's.
        heaps = {name: heap for name, heap in given.items() if heap is not None}
        wanted = need(catalog, pipelines, groups, host, size if size == "small" else "large", heaps)
        shown = placed(catalog, pipelines, groups, host)
        roles = Path(self._task.args["roles"])
        nofile = yaml.safe_load((roles / "service" / "defaults" / "main.yml").read_text())["service_limit_nofile"]
        result["need"] = {"memory": wanted.memory, "jobs": wanted.jobs, "disks": wanted.disks, "ports": wanted.ports}
        settings = load_settings(roles, roles.parent / "ansible" / "settings.yml")
        result["settings"] = self._kept(settings, roles, variables)
        own = ssh_endpoint(variables["hostvars"][host])
        result["address"] = own[0] if own else ""
        result |= {"placed": sorted(shown), "nofile": integer(variables.get("service_limit_nofile")) or nofile}
        users = [user for component in catalog.components.values() for user in component.users]
        users += [pipeline.user for pipeline in pipelines.values()]
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
            "units": sorted(shown & units(catalog, pipelines).keys()),
            "users": self._users(settings, roles, variables) | {user.name: user.uid for user in users},
            "kept": {name: settings[name].kept.model_dump() for name in result["settings"]},  # type: ignore[union-attr]
            "logins": self._logins(settings, catalog, variables),
            "scratch": self._connection._shell.get_option("remote_tmp"),
        }
        try:
            said = self._execute_module(module_name="berny_preflight", module_args=args, task_vars=task_vars)
            if "facts" in said:
                result |= {"facts": said["facts"], "clock": self._clock()}
            else:
                words = [said.get("msg"), said.get("module_stderr")]
                result["failure"] = " ".join(str(word).strip() for word in words if word) or "its module said nothing"
        except AnsibleConnectionFailure as error:
            address = variables["hostvars"][host].get("ansible_host") or "an address that the inventory does not tell"
            result["failure"] = (
                f"{str(error).strip()}. Is it on, does {address} answer SSH, and are user and key the inventory's?"
            )
        return result

    def _value(self, name: str, setting: Setting, roles: Path, variables: dict[str, Any]) -> Any:
        """Return what a role's setting is here, or None where that can't be computed: set, or the role's default."""
        own = variables["hostvars"][variables["inventory_hostname"]]
        with suppress(AnsibleError):
            if name in own:
                return own[name]
            file = roles / setting.role / "defaults" / "main.yml"
            defaults = self._loader.load_from_file(str(file), cache="all", trusted_as_template=True) or {}
            return self._templar.template(defaults.get(name))
        return None

    def _kept(self, settings: Mapping[str, Setting], roles: Path, variables: dict[str, Any]) -> dict[str, str]:
        """Return the settings that data has on record, with their values here."""
        names = [name for name, setting in settings.items() if setting.kept]
        found = {name: self._value(name, settings[name], roles, variables) for name in names}
        return {name: str(value) for name, value in found.items() if value is not None}

    def _users(self, settings: Mapping[str, Setting], roles: Path, variables: dict[str, Any]) -> dict[str, int]:
        """Return the users whose uid is a setting."""
        found = {
            one.user: integer(self._value(name, one, roles, variables)) for name, one in settings.items() if one.user
        }
        return {user: uid for user, uid in found.items() if uid is not None}

    def _logins(
        self, settings: Mapping[str, Setting], catalog: Catalog, variables: dict[str, Any]
    ) -> list[dict[str, str]]:
        """Return who is to log in on every node, and from where."""
        machines = self._templar.template(variables["machine_names"])
        nodes = {node: ssh_endpoint(variables["hostvars"][node]) for node in drivers(catalog, variables["groups"])}
        return [
            {"user": one.user, "machine": machines[node], "address": endpoint[0]}
            for one in settings.values()
            if one.user
            for node, endpoint in nodes.items()
            if endpoint
        ]

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
