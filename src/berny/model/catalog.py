"""Components as data: ``roles/<component>/component.yml`` and ``commands.yml``.

Every fact (version, port, user, heap, data disk, endpoint, kind of resource) has its one home there; roles, probes, the lab,
the mapping table and the tests read it through these models. A misspelt key is an error that names the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from berny.model import names

NodeSize = Literal["small", "large"]

ROLES = Path(__file__).resolve().parents[3] / "roles"
"""Of the checkout that this package runs from: a folder for each component, beside those of the core."""
SHARED = ROLES.parent / "ansible"
"""What all inventories and roles share."""

_UNITS = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_SPANS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class CatalogError(ValueError):
    """A catalog file or manifest is wrong; the message names the file and the key."""


def seconds(span: str) -> int:
    """Return the seconds of a span such as ``7d``, ``12h``, ``30m`` or ``45s``.

    Raises:
        ValueError: the span has another form.
    """
    match = re.fullmatch(r"(\d+)([smhd])", span)
    if not match:
        raise ValueError(f"{span!r} is not a time span such as 7d, 12h, 30m or 45s")
    return int(match[1]) * _SPANS[match[2]]


def size_in_bytes(size: str) -> int:
    """Return the bytes of a size such as ``256MiB``.

    Raises:
        ValueError: the size has another form.
    """
    match = re.fullmatch(r"(\d+)(KiB|MiB|GiB)", size)
    if not match:
        raise ValueError(f"{size!r} is not a size such as 512KiB, 256MiB or 4GiB")
    return int(match[1]) * _UNITS[match[2]]


class Strict(BaseModel):
    """Unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _named(text: str) -> str:
    if not names.is_name(text):
        raise ValueError(
            f"{text!r} can't be a name: use up to {names.NAME_LENGTH} characters, words of a to z and 0 to 9 joined by '-', "
            "a letter first"
        )
    return text


Name = Annotated[str, AfterValidator(_named)]
"""Of a component, a service, a pipeline or a stage."""
Port = Annotated[int, Field(gt=0, lt=65536)]


class User(Strict):
    """A system user; the uid is the same on every node, so that a data disk can move."""

    name: Name
    uid: int = Field(ge=names.UIDS.start, lt=names.UIDS.stop)


class BySize(Strict):
    """A number for each node size (``node_size`` of the inventory)."""

    small: int = Field(gt=0)
    large: int = Field(gt=0)


class Service(Strict):
    """A long-running process: one inventory group, one systemd unit, one data disk."""

    group: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    instances: Literal["one", "many"] = "many"
    """How many nodes the group may have."""
    ports: dict[str, Port]
    pages: list[str] = []
    """Names of ports that are web UIs: the firewall opens them to operators as well."""
    metrics: str = ""
    """The name of the port that serves metrics in Prometheus' format."""
    heap: BySize | None = None
    """MiB, of a process whose heap is set."""
    memory: BySize | None = None
    """MiB that another process takes."""
    overhead: int = 160
    """MiB that a process takes beyond its heap: code, threads, buffers."""
    jobs: BySize | None = None
    """MiB that it hands out to applications, in processes of their own."""
    disk: BySize | None = None
    """GiB of the data disk at ``/data/<service>``."""
    keeps: str
    """What it keeps and for how long."""
    name: Name
    component: Name

    @model_validator(mode="after")
    def _pages_are_ports(self) -> Service:
        if unknown := set(self.pages) - set(self.ports):
            raise ValueError(f"pages: {', '.join(sorted(unknown))}: no such port")
        if self.metrics and self.metrics not in self.ports:
            raise ValueError(f"metrics: {self.metrics}: no such port")
        if bool(self.heap) == bool(self.memory):
            raise ValueError("heap: either this or memory")
        return self

    def resident(self, size: NodeSize, heap: int | None = None) -> int:
        """Return the MiB that its process takes, with another heap where one is given."""
        if self.memory:
            return int(getattr(self.memory, size))
        return (heap or int(getattr(self.heap, size))) + self.overhead


class JavaLine(Strict):
    """What the command lines of a component's Java commands share; the shell expands it."""

    classpath: str
    options: str
    begin: str = ""
    """Lines before."""


class Call(Strict):
    """A command line as a login user types it; tests run it."""

    run: str
    """``@GROUP@`` is the machine of that inventory group's first node."""
    shows: str
    """What it prints among other things, which proves that it worked."""


class Commands(Strict):
    """Commands on nodes: ``roles/<component>/commands.yml``."""

    archive: str = ""
    """An optional archive that they are from: without it they are not there."""
    java: JavaLine | None = None
    names: dict[str, str | dict[str, str] | None] = {}
    """By name the class (with its first arguments), or that of each subcommand, or nothing where a role has a template of
    its own; an empty class is the user's first argument."""
    calls: list[Call] = []
    """In this order: some use what others made."""

    @model_validator(mode="after")
    def _calls_are_of_names(self) -> Commands:
        called = " ".join(call.run for call in self.calls)
        word = r"(^|[\s;|&(]){}($|[\s;|&)])"
        if missing := [name for name in self.names if not re.search(word.format(re.escape(name)), called)]:
            raise ValueError(f"calls: nothing calls {', '.join(missing)}")
        if not self.java and any(line is not None for line in self.names.values()):
            raise ValueError("java: is missing, and a command has a class")
        return self


class Endpoint(Strict):
    """A variable that others get: the address of a service, or a text.

    As a variable of plays its name is in small letters; stages that use the component get it in capitals.
    """

    service: str = ""
    port: str = ""
    scheme: str = ""
    """``hdfs`` gives ``hdfs://HOST:PORT``; without one it is ``HOST:PORT``."""
    every: bool = False
    """Of all nodes, with commas between; else of the first."""
    text: str = ""
    """For stages alone: ``{user}``, ``{pipeline}`` and ``{stage}`` are the stage's."""

    @model_validator(mode="after")
    def _service_or_text(self) -> Endpoint:
        if bool(self.text) == bool(self.service and self.port):
            raise ValueError("service and port, or text")
        return self


class Key(Strict):
    """What a key of a resource in a manifest may be."""

    type: Literal["int", "str", "span", "size", "bool", "list"]
    default: Any = None
    required: bool = False
    minimum: int | None = None

    def problem(self, value: Any) -> str:
        """Return what is wrong with a value, or nothing."""
        kinds: dict[str, type[Any]]
        kinds = {"int": int, "str": str, "span": str, "size": str, "bool": bool, "list": list}
        if not isinstance(value, kinds[self.type]) or (self.type == "int" and isinstance(value, bool)):
            return f"{value!r} is no {self.type}"
        if self.type == "int" and self.minimum is not None and value < self.minimum:
            return f"{value} is less than {self.minimum}"
        try:
            if self.type == "span":
                seconds(value)
            elif self.type == "size":
                size_in_bytes(value)
        except ValueError as error:
            return str(error)
        return ""


class Kind(Strict):
    """A kind of resource that manifests ask for, and that the component's role creates and removes."""

    pattern: str
    """What a resource may be called."""
    says: str
    """The same in words."""
    keys: dict[str, Key] = {}
    dead_letters: dict[str, Any] | None = None
    """What is read has another resource beside it for what cannot be understood, with these keys."""
    environment: dict[str, str] = {}
    """What a stage that writes to one gets: ``{name}`` is the resource's."""
    component: str = ""

    def problems(self, name: str, given: Any) -> list[str]:
        """Return what is wrong with a resource of this kind."""
        if not re.fullmatch(self.pattern, name):
            return [f"{name}: can't be called so: {self.says}"]
        if not isinstance(given, dict):
            return [f"{name}: expected a mapping"]
        found = [f"{name}.{key}: unknown; there are {', '.join(self.keys)}" for key in given if key not in self.keys]
        for key, rule in self.keys.items():
            if key in given:
                found += [f"{name}.{key}: {problem}"] if (problem := rule.problem(given[key])) else []
            elif rule.required:
                found.append(f"{name}.{key}: is missing")
        return found

    def complete(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return a resource's keys with the defaults of those that are not given."""
        defaults = {key: rule.default for key, rule in self.keys.items() if rule.default is not None}
        return {**defaults, **given}


PackageName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.+-]+$")]


class Packages(Strict):
    """The operating system's packages that a component is installed from."""

    names: list[PackageName] = Field(min_length=1)
    """Those that have its programs: a start is a function of their content, not of what they depend on."""
    masks: list[Annotated[str, Field(pattern=r"^[\w@.-]+\.(service|socket|timer|path)$")]] = []
    """Units of theirs that never start: the service runs as a unit of the catalog's name."""


class Engine(Strict):
    """How a stage is run that a component runs (``engine`` of the manifest)."""

    command: str
    """The command line before the stage's program; ``{name}`` is the pipeline's and the stage's."""
    archive: bool = True
    """The component's archive is on the stage's node, and a start is a function of it."""
    restart_seconds: int = 5
    environment: dict[str, str] = {}
    """``{checkpoint}`` is the stage's; names of endpoints in small letters are their values."""


class Component(Strict):
    """A product of the distribution and the services it runs as."""

    title: str
    version: str
    install: Literal["archive", "packages", "venv"] = "archive"
    archive: str = ""
    """Of ``roles/*/archives``, for what is installed from one; a Python environment is one as well."""
    packages: Packages | None = None
    user: User
    requires: list[str] = []
    """Components that must be there for it to run."""
    restored_after: list[str] = []
    """Components that must be restored before it."""
    services: dict[str, Service]
    commands: Commands = Commands()
    control: dict[str, list[str]] = {}
    """``dfs`` has ``start-dfs.sh`` and ``stop-dfs.sh`` drive these services, in this order, from the first one's node."""
    secrets: list[str] = []
    """Generated on the first run, beside the inventory."""
    optional: bool = False
    """Where the store has no archive of it, the rest goes on without it."""
    ephemeral_ports: tuple[Port, Port] | None = None
    endpoints: dict[str, Endpoint] = {}
    kinds: dict[str, Kind] = {}
    """The kinds of resource that manifests may ask of it."""
    resources: dict[str, dict[str, dict[str, Any]]] = {}
    """What it asks of others itself, as a manifest does."""
    engine: Engine | None = None
    name: Name
    verbs: list[str] = []
    """What its role can do beside converging: the names of its ``tasks/*.yml``."""

    @property
    def scripts(self) -> list[str]:
        """The scripts that drive its services on all nodes; they are on the node of the first."""
        return [f"{verb}-{name}.sh" for name in self.control for verb in ("start", "stop")]

    @property
    def groups(self) -> list[str]:
        """The inventory groups of its services."""
        return [service.group for service in self.services.values()]

    @model_validator(mode="after")
    def _installed_from(self) -> Component:
        if (self.install == "packages") != bool(self.packages) or (self.install != "packages") != bool(self.archive):
            raise ValueError(
                "install: 'archive' and 'venv' need archive, 'packages' needs packages, and none the other"
            )
        if self.optional and not self.archive:
            raise ValueError("optional: only what is installed from an archive can be missing from the store")
        ports = {name: service.ports for name, service in self.services.items()}
        for name, endpoint in self.endpoints.items():
            if endpoint.service and endpoint.port not in ports.get(endpoint.service, {}):
                raise ValueError(f"endpoints.{name}: there is no port {endpoint.port} of {endpoint.service}")
        return self


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


class _Yaml12Loader(yaml.SafeLoader):
    """Only ``true`` and ``false`` are booleans, as in YAML 1.2: manifests have a key ``on``."""


_Yaml12Loader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in resolvers if tag != "tag:yaml.org,2002:bool"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
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
    """Read every component with its commands, ordered so that each comes after what it requires.

    Raises:
        CatalogError: a file is malformed, or a component requires one that is missing or that requires it.
    """
    found: dict[str, Component] = {}
    for file in sorted(roles.glob("*/component.yml")):
        component, entry = file.parent.name, read_yaml(file)
        services = {
            name: {**service, "name": name, "component": component}
            for name, service in entry.get("services", {}).items()
        }
        kinds = {name: {**kind, "component": component} for name, kind in entry.get("kinds", {}).items()}
        verbs = sorted(path.stem for path in file.parent.glob("tasks/*.yml"))
        entry = {**entry, "name": component, "services": services, "kinds": kinds, "verbs": verbs}
        commands = file.with_name("commands.yml")
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
        for other in found[name].requires:
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
        own: list[tuple[str, object]] = [("uid", component.user.uid), ("user", component.user.name)]
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
