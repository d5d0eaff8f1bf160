"""Allowed values of settings: types and choices of ``roles/ROLE/meta/argument_specs.yml``, and ``settings.yml`` beside it.

Ansible's format for a role's options has neither ranges nor patterns, and is checked only when the role runs, in the middle
of a play. ``meta/settings.yml`` adds them by option. ``ansible/settings.yml`` has both for settings that belong to no role.
All of it is checked before a node is touched. Nothing here knows a role by name.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from berny.controller.addresses import is_usable
from berny.model.catalog import CatalogError, read_yaml

HEAP = "service_heap"
"""The option whose rule applies to the heap of each service (``SERVICE_heap``)."""
BOOLEANS = {"yes", "no", "true", "false", "on", "off", "y", "n", "t", "f", "1", "0"}
MEMORY = {"m": 1, "g": 1024}


class Kept(BaseModel):
    """Where data records a setting that can't change: a line ``KEY=VALUE`` of a file on the node."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    key: str
    files: list[str]


class Setting(BaseModel):
    """The allowed values of a setting."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    type: Literal["str", "path", "int", "bool", "list", "dict"]
    elements: Literal["str", "path", "dict"] | None = None
    choices: list[Any] | None = None
    """For a list, they apply to its elements; so do ``pattern`` and ``form``."""
    minimum: int | None = None
    """MiB for the form ``memory``."""
    maximum: int | None = None
    pattern: str | None = None
    """A regular expression that the whole value matches."""
    form: Literal["network", "address", "memory"] | None = None
    says: str = ""
    """A description of what the pattern allows."""
    nodes_of: str = ""
    """At most the number of nodes of this inventory group."""
    one_per: str = ""
    """Each node of this inventory group has its own, unique value."""
    kept: Kept | None = None
    user: str = ""
    """It is the uid and gid of this user."""
    role: str = ""


def load_settings(roles: Path, shared: Path) -> dict[str, Setting]:
    """Return all settings by name: options of all roles, and those in ``shared``.

    Raises:
        CatalogError: a rule is malformed, or of an option that the role does not have; the message names the file.
    """
    found = {name: _setting(shared, name, facts) for name, facts in read_yaml(shared).items()}
    for specs in sorted(roles.glob("*/meta/argument_specs.yml")):
        options = read_yaml(specs)["argument_specs"]["main"].get("options") or {}
        file = specs.with_name("settings.yml")
        rules = read_yaml(file) if file.exists() else {}
        if unknown := sorted(rules.keys() - options.keys()):
            raise CatalogError(f"{file}: {', '.join(unknown)}: no option of argument_specs.yml")
        for name, option in options.items():
            given = {key: option[key] for key in ("type", "elements", "choices") if key in option}
            found[name] = _setting(file, name, {**given, **rules.get(name, {}), "role": specs.parents[1].name})
    return found


def _setting(file: Path, name: str, facts: Any) -> Setting:
    try:
        return Setting.model_validate(facts)
    except ValidationError as error:
        lines = "; ".join(f"{'.'.join(map(str, (name, *e['loc'])))}: {e['msg']}" for e in error.errors())
        raise CatalogError(f"{file}: {lines}") from None


def find_setting(settings: Mapping[str, Setting], heaps: Sequence[str], name: str) -> Setting | None:
    """Return the setting of a variable, or None if there is none; ``heaps`` are the names of services' heaps."""
    return settings.get(HEAP if name in heaps else name)


def integer(value: Any) -> int | None:
    """Return a value as an integer, also if it is given as text (``-e NAME=1``), or None if it is not one."""
    if isinstance(value, bool):
        return None
    return int(value) if isinstance(value, int) or re.fullmatch(r"-?[0-9]+", str(value)) else None


def allowed(setting: Setting, groups: Mapping[str, Sequence[str]]) -> str:
    """Return a description of a setting's allowed values."""
    if setting.choices is not None:
        one = ", ".join(map(str, setting.choices))
        return f"a list of any of {one}" if setting.type == "list" else f"one of {one}"
    if setting.form == "network":
        text = "addresses and networks such as 203.0.113.7 or 203.0.113.0/24 (no host names, no bits behind the prefix)"
        return f"a list of {text}" if setting.type == "list" else text
    if setting.form == "address":
        return "an IPv4 address of the machine's own, such as 10.0.0.4, which the other nodes reach"
    if setting.form == "memory":
        least = f", at least {setting.minimum}m" if setting.minimum else ""
        return f"memory such as 512m or 2g{least}"
    if setting.type == "int":
        most = maximum(setting, groups)
        text = f"an integer, at least {setting.minimum}"
        if most is not None:
            text = f"an integer from {setting.minimum} to {most}"
        return f"{text} (nodes in the group {setting.nodes_of})" if setting.nodes_of else text
    if setting.says or setting.pattern:
        return setting.says or f"text like {setting.pattern}"
    names = {"str": "text", "path": "an absolute path", "bool": "true or false", "list": "a list", "dict": "a mapping"}
    return f"a list of {names[setting.elements]}s" if setting.elements == "path" else names[setting.type]


def maximum(setting: Setting, groups: Mapping[str, Sequence[str]]) -> int | None:
    """Return the maximum of a number; a group without nodes is reported elsewhere, and is no bound."""
    return (len(groups.get(setting.nodes_of, ())) or None) if setting.nodes_of else setting.maximum


def fits(setting: Setting, value: Any, groups: Mapping[str, Sequence[str]]) -> bool:
    """Return whether a value is allowed."""
    if setting.type == "list":
        # As Ansible reads it: a text is a comma-separated list.
        items = value.split(",") if isinstance(value, str) else value
        if not isinstance(items, Sequence):
            return False
        element = setting.model_copy(update={"type": setting.elements or "str"})
        return all(fits(element, item.strip() if isinstance(item, str) else item, groups) for item in items)
    if setting.type == "dict":
        return isinstance(value, Mapping)
    if setting.type == "bool":
        return isinstance(value, bool) or str(value).lower() in BOOLEANS
    if setting.type == "int":
        number, most = integer(value), maximum(setting, groups)
        return number is not None and _between(number, setting.minimum, most) and _chosen(setting, number)
    if value is None or isinstance(value, Mapping | list | tuple | set):
        return False
    text = str(value)
    if setting.form and not _formed(setting, text):
        return False
    if setting.type == "path" and not text.startswith("/"):
        return False
    return _chosen(setting, text) and (not setting.pattern or bool(re.fullmatch(setting.pattern, text)))


def _between(number: int, least: int | None, most: int | None) -> bool:
    return (least is None or number >= least) and (most is None or number <= most)


def _chosen(setting: Setting, value: Any) -> bool:
    return setting.choices is None or value in setting.choices


def _formed(setting: Setting, text: str) -> bool:
    if setting.form == "memory":
        match = re.fullmatch(r"([1-9][0-9]*)([mg])", text)
        return match is not None and _between(int(match[1]) * MEMORY[match[2]], setting.minimum, setting.maximum)
    if setting.form == "address":
        return is_usable(text)
    try:
        ipaddress.ip_network(text)
    except ValueError:
        return False
    return True


def check(
    settings: Mapping[str, Setting],
    heaps: Sequence[str],
    values: Mapping[str, Mapping[str, Any]],
    groups: Mapping[str, Sequence[str]],
) -> list[str]:
    """Return the problems of the values that an inventory sets, by host and name; what all hosts share is reported once."""
    problems: dict[str, list[str]] = {}
    for host, own in values.items():
        for name, value in sorted(own.items()):
            setting = find_setting(settings, heaps, name)
            if setting and not fits(setting, value, groups):
                shown = f"{name} is {shown_value(setting, value)}: allowed is {allowed(setting, groups)}"
                problems.setdefault(shown, []).append(host)
    found = []
    for text, hosts in problems.items():
        found += [text] if len(hosts) == len(values) > 1 else [f"{host}: {text}" for host in hosts]
    return found + [problem for name, setting in settings.items() for problem in _each(name, setting, values, groups)]


def shown_value(setting: Setting, value: Any) -> str:
    """Return a value as people write it, shortened; never one that should be a mapping, as of secrets."""
    if value is None or value == "":
        return "empty"
    if setting.type == "dict":
        return "no mapping"
    text = str(value)
    return text if len(text) <= 120 else f"{text[:117]}..."


def _each(
    name: str, setting: Setting, values: Mapping[str, Mapping[str, Any]], groups: Mapping[str, Sequence[str]]
) -> Iterator[str]:
    """Yield the problems of nodes of a group that have no value of their own."""
    if not setting.one_per:
        return
    homes: dict[Any, str] = {}
    for host in sorted(set(groups.get(setting.one_per, ())) & values.keys()):
        value = values[host].get(name)
        if name not in values[host]:
            yield f"{host}: needs a {name} of its own (found None), {allowed(setting, groups)}"
        elif not fits(setting, value, groups):
            continue  # reported already
        else:
            # "1" and 1 are the same number.
            key = integer(value) if setting.type == "int" else str(value)
            if homes.setdefault(key, host) != host:
                yield f"{host}: needs a {name} of its own (found {value}, which is that of {homes[key]})"
