"""Roles' options against what the roles really read.

The convention: an option of ``meta/argument_specs.yml`` has a default in ``defaults/main.yml``, or it is required and the
inventory (or another role, for the role ``service``) gives it. Variables that begin with ``_`` are private.
``<service>_heap`` is an option of every service, made out of the catalog's heaps by the role ``service``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from berny.model.catalog import load_catalog

ROLES = Path(__file__).resolve().parents[2] / "roles"
WITH_SPECS = sorted(file.parents[1].name for file in ROLES.glob("*/meta/argument_specs.yml"))
REREAD = {("rotate.yml", "_secrets")}
"""Results of the play itself that a role reads again: whoever follows has the new ones."""
TYPES = {"str": str, "path": str, "int": int, "bool": bool, "list": list, "dict": dict}


def options(role: str) -> dict[str, dict[str, Any]]:
    """Return the options of a role by name."""
    specs = yaml.safe_load((ROLES / role / "meta" / "argument_specs.yml").read_text())
    found: dict[str, dict[str, Any]] = specs["argument_specs"]["main"]["options"]
    return found


def variables(role: str, folder: str = "defaults") -> dict[str, Any]:
    """Return the variables of a role's ``defaults`` or ``vars``."""
    file = ROLES / role / folder / "main.yml"
    return (yaml.safe_load(file.read_text()) or {}) if file.exists() else {}


def texts(*roles: str, but: str = "") -> str:
    """Return all that roles' tasks, templates, defaults and vars say."""
    files = [file for role in roles for file in sorted((ROLES / role).rglob("*")) if file.is_file()]
    return "\n".join(file.read_text() for file in files if but not in file.parts)


def test_every_role_has_specs() -> None:
    assert {"node", "service", "pipeline", *load_catalog().components} <= set(WITH_SPECS)
    assert {path.name for path in ROLES.iterdir()} == set(WITH_SPECS)


@pytest.mark.parametrize("role", WITH_SPECS)
def test_options_are_the_defaults(role: str) -> None:
    """Both ways: an option that nothing defaults to fails late, a default without an option is told to nobody."""
    public = {name for name in variables(role) if not name.startswith("_")}
    required = {name for name, option in options(role).items() if option.get("required")}
    assert public & required == set()
    assert public | required == set(options(role))


@pytest.mark.parametrize("role", WITH_SPECS)
def test_defaults_agree(role: str) -> None:
    """What the documentation of an option tells is what holds; a default that is computed is told nowhere."""
    for name, option in options(role).items():
        default = variables(role).get(name)
        computed = isinstance(default, str) and "{{" in default
        if isinstance(default, list | dict) or computed or option.get("required"):
            assert "default" not in option, name
        else:
            assert option["default"] == default, name


@pytest.mark.parametrize("role", WITH_SPECS)
def test_options_are_typed_and_described(role: str) -> None:
    """A type refuses what a template would only garble."""
    for name, option in options(role).items():
        assert option["description"].strip().endswith("."), name
        kind = TYPES[option["type"]]
        if "default" in option:
            assert type(option["default"]) is kind, name
            assert option["default"] in option.get("choices", [option["default"]]), name
        if option["type"] == "list":
            assert "elements" in option, name


@pytest.mark.parametrize("role", WITH_SPECS)
def test_options_are_read(role: str) -> None:
    """An option that nothing reads promises something that never happens."""
    said = texts(*WITH_SPECS, "service", but="meta")
    read = [*(ROLES.parent / "playbooks").rglob("*.yml"), ROLES.parent / "ansible/plugins/action/berny_converge.py"]
    playbooks = "\n".join(file.read_text() for file in read)
    for name in options(role):
        reads = re.findall(rf"(?<![\w]){name}(?![\w])(?!:\s)", said + playbooks)
        assert reads, name


@pytest.mark.parametrize("role", sorted(path.name for path in ROLES.iterdir()))
def test_names_begin_with_the_role(role: str) -> None:
    """``<component>_<thing>``, private ones with ``_``: whoever reads a name knows its home."""
    for folder in ("defaults", "vars"):
        for name in variables(role, folder):
            # The role ``service`` runs several: services, services_configured.
            assert re.match(rf"{role}(_|s$|s_)", name.lstrip("_")), f"{role}/{folder}: {name}"


@pytest.mark.parametrize("role", sorted(path.name for path in ROLES.iterdir()))
def test_registered_results_are_private(role: str) -> None:
    """A registered result lives as long as the play: its name must be nobody's option."""
    for file in sorted((ROLES / role / "tasks").glob("*.yml")):
        for name in re.findall(r"^\s*register: (\S+)$", file.read_text(), re.M):
            assert name.startswith(f"_{role}") or (file.name, name) in REREAD, f"{file}: {name}"


def test_no_two_roles_share_a_variable() -> None:
    """The later role would silently take the earlier one's value."""
    homes: dict[str, str] = {}
    for role in sorted(path.name for path in ROLES.iterdir()):
        for name in {*variables(role), *variables(role, "vars")}:
            assert homes.setdefault(name, role) == role, name


def test_heaps_are_options_of_every_service() -> None:
    """Documented by the catalog, read by the role ``service`` under the name that the preflight knows."""
    heap = variables("service")["service_heap"]
    assert "service_name | replace('-', '_') ~ '_heap'" in heap
    names = {f"{name.replace('-', '_')}_heap" for name, one in load_catalog().services.items() if one.heap}
    given = {name for role in WITH_SPECS for name in options(role)}
    assert not names & given


INCLUDES = ("ansible.builtin.include_tasks", "ansible.builtin.import_tasks")


def imports(file: Path, outer: dict[str, Any], tasks: list[dict[str, Any]] | None = None) -> Iterator[dict[str, Any]]:
    """Yield the uses of the role ``service``, with the variables of the blocks and files that they are in as well."""
    for task in (yaml.safe_load(file.read_text()) or []) if tasks is None else tasks:
        given = {**outer, **task.get("vars", {})}
        role = task.get("ansible.builtin.import_role") or task.get("ansible.builtin.include_role") or {}
        if role.get("name") == "service" and role.get("tasks_from", "main") in ("main", "configure"):
            yield {"role": role, "vars": given}
        yield from imports(file, given, task.get("block", []))
        for other in (task[word] for word in INCLUDES if word in task):
            name = other if isinstance(other, str) else other["file"]
            if "{{" not in name:
                yield from imports(file.with_name(name), given)


def handed(given: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the variables of each service that a use of the role runs; those beside them are all services'."""
    beside = {name: value for name, value in given.items() if name.startswith("service")}
    services = beside.pop("services", None)
    for name in ("services_configured", "services_archives", "services_clients"):
        beside.pop(name, None)
    if isinstance(services, dict):
        yield from ({**beside, "service_name": name, **own} for name, own in services.items())
    else:
        # Computed: their names are as well.
        yield {**beside, **({"service_name": "{{ computed }}"} if services else {})}


def test_what_is_handed_to_service_is_in_its_specification() -> None:
    """Held here once, not on every node at each of its uses in every run (``rolespec_validate``): that took seconds."""
    known, found = options("service"), set()
    required = {name for name, option in known.items() if option.get("required")}
    for file in sorted(ROLES.glob("*/tasks/main.yml")):
        for task in imports(file, {}):
            assert task["role"]["rolespec_validate"] is False, file
            assert {name for name in task["vars"] if name.startswith("service")} <= known.keys(), file
            for given in handed(task["vars"]):
                found.add(given["service_name"])
                assert given.keys() <= known.keys() and required <= given.keys(), (file, given.keys() ^ known.keys())
                for name, value in given.items():
                    computed = isinstance(value, str) and "{{" in value
                    assert computed or type(value) is TYPES[known[name]["type"]], (file, name)
    assert found == {*load_catalog().services, "{{ computed }}"}


def test_no_password_in_defaults() -> None:
    """Secrets are generated beside the inventory and never stand in a role."""
    for role in sorted(path.name for path in ROLES.iterdir()):
        for name in variables(role):
            assert not re.search(r"password|token|api_key", name), name
