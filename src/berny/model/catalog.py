"""Components as data: ``roles/<component>/component.yml`` and ``commands.yml``.

Every fact (version, port, user, heap, data disk, endpoint, kind of resource) has its one home there; roles, probes, the lab,
the mapping table and the tests read it through models (``component.py``). A misspelt key is an error that names the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from berny.model import names
from berny.model.component import Commands, Component, Kind, Service, Strict

ROLES = Path(__file__).resolve().parents[3] / "roles"
"""Of the checkout that this package runs from: a folder for each component, beside those of the core."""
SHARED = ROLES.parent / "ansible"
"""What all inventories and roles share."""


class CatalogError(ValueError):
    """A catalog file or manifest is wrong; the message names the file and the key."""


class Catalog(Strict):
    """Components, and their services by name."""

    components: dict[str, Component]

    @property
    def services(self) -> dict[str, Service]:
        """All services by name, in the catalog's order."""
        return {name: service for component in self.components.values() for name, service in component.services.items()}

    @property
    def kinds(self) -> dict[str, Kind]:
        """All kinds of resources by name."""
        return {name: kind for component in self.components.values() for name, kind in component.kinds.items()}


class _Yaml12Loader(yaml.CSafeLoader):
    """Only ``true`` and ``false`` are booleans, as in YAML 1.2: manifests have a key ``on``."""


_Yaml12Loader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in resolvers if tag != "tag:yaml.org,2002:bool"]
    for first, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items()
}
_Yaml12Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^(?:true|false)$"), list("tf"))


def read_yaml(file: Path) -> dict[str, Any]:
    """Return the mapping that a file holds; only ``true`` and ``false`` are booleans.

    Raises:
        CatalogError: it is no YAML, or no mapping.
    """
    try:
        data = yaml.load(file.read_text(), Loader=_Yaml12Loader)
    except yaml.YAMLError as error:
        raise CatalogError(f"{file}: {error}") from None
    if not isinstance(data, dict):
        raise CatalogError(f"{file}: expected a mapping, found {type(data).__name__}")
    return data


def parse(model: type[Any], data: Any, file: Path) -> Any:
    """Return the model of what a file holds.

    Raises:
        CatalogError: keys are unknown, missing or malformed; the message names the file and all of them.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        lines = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise CatalogError(f"{file}: {lines}") from None


def check_resources(asked: Mapping[str, Any], kinds: Mapping[str, Kind]) -> Iterable[str]:
    """Yield what is wrong with resources that are asked for, by key."""
    for name, resources in asked.items():
        if name not in kinds:
            yield f"resources.{name}: no component has this kind; there are {', '.join(sorted(kinds))}"
            continue
        for resource, given in resources.items():
            yield from (f"resources.{name}.{problem}" for problem in kinds[name].problems(resource, given))


@cache
def load_catalog(roles: Path = ROLES) -> Catalog:
    """Read every component with its commands, ordered so that each comes after what it requires or takes from.

    Raises:
        CatalogError: a file is malformed, or a component requires one that is missing or that requires it.
    """
    found: dict[str, Component] = {}
    for file in sorted(roles.glob("*/component.yml")):
        component, entry = file.parent.name, read_yaml(file)
        if not names.COMPONENT.fullmatch(component):
            raise CatalogError(f"{file.parent}: a component's name becomes part of variables: use a to z and 0 to 9")
        commands = file.with_name("commands.yml")
        if made := sorted(entry.keys() & {"name", "verbs", *(["commands"] if commands.is_file() else [])}):
            raise CatalogError(f"{file}: {', '.join(made)}: follows from the folder")
        services = {
            name: {**service, "name": name, "component": component}
            for name, service in entry.get("services", {}).items()
        }
        kinds = {name: {**kind, "component": component} for name, kind in entry.get("kinds", {}).items()}
        verbs = sorted(path.stem for path in file.parent.glob("tasks/*.yml"))
        entry = {**entry, "name": component, "services": services, "kinds": kinds, "verbs": verbs}
        if commands.is_file():
            entry["commands"] = parse(Commands, read_yaml(commands), commands)
        found[component] = parse(Component, entry, file)
    catalog = Catalog(components=_ordered(found, roles))
    _check(catalog, roles)
    return catalog


def _ordered(found: Mapping[str, Component], roles: Path) -> dict[str, Component]:
    ordered: dict[str, Component] = {}

    def add(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            raise CatalogError(f"{roles}: components require each other in a circle: {' -> '.join([*path, name])}")
        if name not in found:
            raise CatalogError(f"{roles / path[-1] / 'component.yml'}: requires {name!r}, which is not in the catalog")
        givers = [other for other, one in found.items() if {*one.gives} & {*found[name].takes}]
        for other in [*found[name].requires, *givers]:
            add(other, (*path, name))
        ordered.setdefault(name, found[name])

    for name in found:
        add(name, ())
    return ordered


def _check(catalog: Catalog, roles: Path) -> None:
    """Refuse what two components share and may not, and resources that no component gives."""
    taken: dict[tuple[str, object], str] = {}
    for component in catalog.components.values():
        file = roles / component.name / "component.yml"
        own = [fact for user in component.users for fact in user.facts]
        own += [("service", name) for name in component.services] + [("group", group) for group in component.groups]
        own += [("kind", name) for name in component.kinds] + [("endpoint", name) for name in component.endpoints]
        for word, value in own:
            other = taken.setdefault((word, value), component.name)
            if other != component.name:
                raise CatalogError(f"{file}: {word} {value} is that of {other}")
        problems = list(check_resources(component.resources, catalog.kinds))
        owners = {catalog.kinds[kind].component for kind in component.resources if kind in catalog.kinds}
        problems += [
            f"resources: {owner} is not among requires"
            for owner in sorted(owners - {*component.requires, component.name})
        ]
        if problems:
            raise CatalogError(f"{file}: {'; '.join(problems)}")
