"""Hold the inventory against the catalog before a node is touched, and report everything at once."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase

from berny.controller.addresses import is_loopback, is_private, shared
from berny.controller.placement import clashes
from berny.controller.settings import Setting, check, load_settings
from berny.model import names as naming
from berny.model.catalog import Catalog, CatalogError, load_catalog
from berny.model.topology import chosen, selected, selection_problems

SSH_PORT = 22
MACHINE_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


def check_groups(catalog: Catalog, groups: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the groups that are of no service."""
    known = {group for component in catalog.components.values() for group in component.groups}
    return [
        f"group {group} is no service of the catalog{naming.nearest(group, known)}"
        for group in sorted(set(groups) - known - {"all", "ungrouped"})
    ]


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
            problems.append(f"the role {role} knows no variable {name}{naming.nearest(name, known[role])}")
    return problems


def heap_names(services: Iterable[str]) -> list[str]:
    """Return the variables that set the heap of one service each."""
    return [naming.heap(name) for name in services]


def known_variables(
    settings: Mapping[str, Setting], services: Iterable[str], everybodys: Iterable[str]
) -> dict[str, set[str]]:
    """Return, for each role (and the preflight), the variables that its settings and the catalog give it."""
    heaps, roles = heap_names(services), {setting.role for setting in settings.values() if setting.role}
    known = {role: {name for name, one in settings.items() if one.role == role} for role in sorted(roles)}
    known = {role: {*names, *heaps, *everybodys} for role, names in known.items()}
    return known | {"preflight": {name for name in settings if name.startswith("preflight_")}}


def check_addresses(connect: Mapping[str, tuple[str, Any]], private: Mapping[str, str]) -> list[str]:
    """Return the nodes that are another one under a second name, or that the others do not reach.

    Args:
        connect: ``ansible_host`` and ``ansible_port`` by node.
        private: ``private_address`` of those that are given one.
    """
    problems = []
    for number in sorted({str(port) for _, port in connect.values()}):
        same = {host: address for host, (address, port) in connect.items() if str(port) == number}
        problems += [
            f"{host}: has the address of {home} ({connect[host][0]}), so it is that machine: set its own ansible_host "
            f"or ansible_port, or remove one of the two from hosts.yml"
            for host, home in shared(same)
        ]
    reached = {host: address for host, (address, _) in connect.items() if is_private(address)} | dict(private)
    told = {problem.partition(":")[0] for problem in problems}
    problems += [
        f"{host}: others reach it by {reached[host]}, which is the address of {home}: set a private_address of its own"
        for host, home in shared(reached)
        if host not in told
    ]
    if len(connect) > 1:
        problems += [
            f"{host}: {address} is every machine's own address, so no other node reaches it: set its private_address"
            for host, (address, _) in connect.items()
            if is_loopback(address) and host not in private
        ]
    return problems


def values(own: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Return what a node's variables are. One that can't be computed yet (it needs the secrets) is left to who uses it."""
    found = {}
    for name in names:
        with suppress(AnsibleError):
            found[name] = plain(own[name])
    return found


def plain(value: Any) -> Any:
    """Return a value with all that is in it computed: Ansible computes parts when they are looked at."""
    if isinstance(value, Mapping):
        return {key: plain(part) for key, part in value.items()}
    return [plain(part) for part in value] if isinstance(value, list | tuple) else value


class ActionModule(ActionBase):
    """Runs on the controller only, and touches nothing. With ``report_only`` it leaves what is wrong to the preflight."""

    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Fail with a list of everything that is wrong; return it as ``problems``."""
        result = super().run(tmp, task_vars)
        variables = task_vars or {}
        groups, catalog = variables["groups"], load_catalog()
        wanted = chosen(self._templar.template(variables["pipelines"]))
        try:
            problems = list(selection_problems(catalog, groups, wanted))
            problems += clashes(*selected(groups, wanted), groups)
        except CatalogError as error:
            problems = [str(error)]
        problems += check_groups(catalog, groups)
        # A process without a heap has no variable for one.
        services = [name for name, service in catalog.services.items() if service.heap]
        problems += check_machines(self._templar.template(variables["machine_names"]))
        roles = Path(self._task.args["roles"])
        everybodys = set(yaml.safe_load((roles.parent / "ansible" / "cluster.yml").read_text()))
        everybodys |= {name.lower() for one in catalog.components.values() for name in one.endpoints}
        settings, heaps = load_settings(roles, roles.parent / "ansible" / "settings.yml"), heap_names(services)
        hosts: dict[str, Sequence[str]] = {host: list(variables["hostvars"][host]) for host in sorted(groups["all"])}
        given, connect = {}, {}
        for host, names in hosts.items():
            own = variables["hostvars"][host]
            given[host] = values(own, [name for name in names if name in settings or name in heaps])
            if not own.get("ansible_host"):
                problems.append(f"{host}: has no address; set its ansible_host, or take it out of its groups")
            else:
                connect[host] = (str(own["ansible_host"]), own.get("ansible_port") or SSH_PORT)
        private = {host: str(own["private_address"]) for host, own in given.items() if own.get("private_address")}
        problems += check(settings, heaps, given, groups)
        problems += check_addresses(connect, private)
        problems += check_variables(
            {name for names in hosts.values() for name in names}, known_variables(settings, services, everybodys)
        )
        result["problems"] = problems
        if problems and not self._task.args.get("report_only"):
            result["failed"] = True
            result["msg"] = "Nothing was touched. Correct the inventory: " + " | ".join(problems)
        return result
