"""Hold the inventory against the catalog before a node is touched, and report everything at once."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from ansible.plugins.action import ActionBase

from berny.catalog import load_catalog, load_pipelines
from berny.placement import clashes

PREFLIGHT = {"preflight_allow"}
MACHINE_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


def nearest(word: str, known: Iterable[str]) -> str:
    """Return ``; did you mean …?`` with the nearest known word, or nothing."""
    found = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean {found[0]}?" if found else ""


def check_groups(services: Mapping[str, Any], groups: Mapping[str, list[str]]) -> list[str]:
    """Return what is wrong with the mapping: missing, doubled and unknown services."""
    problems = []
    known = {service["group"] for service in services.values()}
    for name, service in services.items():
        nodes = groups.get(service["group"], [])
        if not nodes:
            problems.append(f"no node runs {name}: put one into the group {service['group']}")
        elif service["instances"] == "one" and len(nodes) > 1:
            problems.append(
                f"{len(nodes)} nodes are to run {name} ({', '.join(sorted(nodes))}), which there can be one of: "
                f"keep one in the group {service['group']}"
            )
    for group in sorted(set(groups) - known - {"all", "ungrouped"}):
        problems.append(f"group {group} is no service of the catalog{nearest(group, known)}")
    return problems


def check_machines(machine_names: Mapping[str, str]) -> list[str]:
    """Return the machine names that an operating system, Hadoop or Spark would refuse."""
    return [
        f"{node}: the machine name {name!r} is not legal: use a to z, 0 to 9 and '-' (Hadoop and Spark find no host in "
        "any other)"
        for node, name in machine_names.items()
        if not MACHINE_NAME.fullmatch(name)
    ]


def check_variables(names: Iterable[str], known: Mapping[str, set[str]]) -> list[str]:
    """Return the variables with a role's prefix that the role does not know."""
    problems = []
    for name in sorted(names):
        role = next((role for role in known if name.startswith(f"{role}_")), None)
        if role and name not in known[role]:
            problems.append(f"the role {role} knows no variable {name}{nearest(name, known[role])}")
    return problems


def known_variables(roles: Path, services: Mapping[str, Any], shared: Iterable[str]) -> dict[str, set[str]]:
    """Return, for each role, the variables that its argument_specs and the catalog give it."""
    known = {}
    for specs in sorted(roles.glob("*/meta/argument_specs.yml")):
        role = specs.parent.parent.name
        options = yaml.safe_load(specs.read_text())["argument_specs"]["main"].get("options") or {}
        heaps = {f"{name.replace('-', '_')}_heap" for name in services}
        known[role] = {*options, *heaps, *shared}
    return known | {"preflight": PREFLIGHT}


def check_addresses(addresses: Mapping[str, Any]) -> list[str]:
    """Return the nodes that have another's address: everything would be installed there twice."""
    problems = []
    homes: dict[Any, str] = {}
    for host, address in addresses.items():
        if homes.setdefault(address, host) != host:
            problems.append(f"{host}: has the address of {homes[address]}; set its ansible_host, or its ansible_port")
    return problems


class ActionModule(ActionBase):
    """Runs on the controller only, and touches nothing. With ``report_only`` it leaves what is wrong to the preflight."""

    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Fail with a list of everything that is wrong; return it as ``problems``."""
        result = super().run(tmp, task_vars)
        variables = task_vars or {}
        groups, services = variables["groups"], self._templar.template(variables["catalog"])["services"]
        problems = check_groups(services, groups)
        problems += clashes(load_catalog(), load_pipelines(), groups)
        problems += check_machines(self._templar.template(variables["machine_names"]))
        shared = yaml.safe_load((Path(self._task.args["roles"]).parent / "ansible" / "cluster.yml").read_text())
        known = known_variables(Path(self._task.args["roles"]), services, shared)
        numbers: dict[Any, str] = {}
        names: set[str] = set()
        addresses: dict[str, Any] = {}
        for host in sorted(groups["all"]):
            own = variables["hostvars"][host]
            names |= set(own)
            if not own.get("ansible_host"):
                problems.append(f"{host}: has no address; set its ansible_host, or take it out of its groups")
            else:
                addresses[host] = (own["ansible_host"], own.get("ansible_port"))
            if own.get("node_size") not in ("small", "large"):
                problems.append(f"{host}: node_size is {own.get('node_size')}; set it to small or large")
            if host in groups.get("kafka", []):
                number = own.get("kafka_broker_id")
                if number is None or number in numbers:
                    problems.append(f"{host}: needs a kafka_broker_id of its own (found {number})")
                numbers[number] = host
        problems += check_addresses(addresses)
        problems += check_variables(names, known)
        result["problems"] = problems
        if problems and not self._task.args.get("report_only"):
            result["failed"] = True
            result["msg"] = "Nothing was touched. Correct the inventory: " + " | ".join(problems)
        return result
