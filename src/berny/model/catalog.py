"""The distribution as data: components of ``roles`` and manifests of ``src/berny/pipelines``.

Every fact (version, port, user, heap, data disk) has its one home there; roles, probes, the lab, the README's mapping
table and the tests read it through these models. A misspelt key is an error that names the file.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

NodeSize = Literal["small", "large"]

ROLES = Path(__file__).resolve().parents[3] / "roles"
"""Of the checkout that this package runs from: a folder for each component, beside those of the core."""
PIPELINES = Path(__file__).resolve().parents[1] / "pipelines"
"""A folder for each pipeline."""
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


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class User(_Strict):
    """A system user; the uid is the same on every node, so that a data disk can move."""

    name: str
    uid: int = Field(ge=6000, lt=7000)


class BySize(_Strict):
    """A number for each node size (``node_size`` of the inventory)."""

    small: int = Field(gt=0)
    large: int = Field(gt=0)


class Service(_Strict):
    """A long-running process: one inventory group, one systemd unit, one data disk."""

    group: str
    instances: Literal["one", "many"] = "many"
    """How many nodes the group may have."""
    ports: dict[str, int]
    pages: list[str] = []
    """Names of ports that are web pages for people: the firewall opens them to operators as well."""
    heap: BySize
    """MiB."""
    overhead: int = 160
    """MiB that its process takes beyond the heap: code, threads, buffers."""
    jobs: BySize | None = None
    """MiB that it hands out to applications, in processes of their own."""
    disk: BySize | None = None
    """GiB of the data disk at ``/data/<service>``."""
    keeps: str
    """What it keeps and for how long."""
    name: str = ""
    component: str = ""

    @model_validator(mode="after")
    def _pages_are_ports(self) -> Service:
        if unknown := set(self.pages) - set(self.ports):
            raise ValueError(f"pages: {', '.join(sorted(unknown))}: no such port")
        return self


class JavaLine(_Strict):
    """What the command lines of a component's Java commands share; the shell expands it."""

    classpath: str
    options: str
    begin: str = ""
    """Lines before."""


class Call(_Strict):
    """A command line as a login user types it; tests run it."""

    run: str
    """``@GROUP@`` is the machine of that inventory group's first node."""
    shows: str
    """What it prints among other things, which proves that it worked."""


class Commands(_Strict):
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


class Component(_Strict):
    """A product of the distribution and the services it runs as."""

    title: str
    version: str
    archive: str
    user: User
    needs: list[str]
    services: dict[str, Service]
    commands: Commands = Commands()
    control: dict[str, list[str]] = {}
    """``dfs`` has ``start-dfs.sh`` and ``stop-dfs.sh`` drive these services, in this order, from the first one's node."""
    secrets: list[str] = []
    """Generated on the first run, beside the inventory."""
    optional: bool = False
    """Where the store has no archive of it, the rest goes on without it."""
    ephemeral_ports: tuple[int, int] | None = None
    name: str = ""

    @property
    def scripts(self) -> list[str]:
        """The scripts that drive its services on all nodes; they are on the node of the first."""
        return [f"{verb}-{name}.sh" for name in self.control for verb in ("start", "stop")]


class Topic(_Strict):
    """A Kafka topic of a pipeline."""

    partitions: int = Field(gt=0)
    replication: int = Field(gt=0)
    keep: str
    keep_bytes: str
    """At most so much per partition."""

    @field_validator("keep")
    @classmethod
    def _span(cls, value: str) -> str:
        seconds(value)
        return value

    @field_validator("keep_bytes")
    @classmethod
    def _size(cls, value: str) -> str:
        size_in_bytes(value)
        return value


class Stage(_Strict):
    """A program of a pipeline, run as ``berny-<pipeline>-<stage>.service`` on each node of the group ``on``."""

    on: str
    run: str
    needs: list[str]
    metrics_port: int
    submit: bool = False
    """Run by ``spark-submit`` instead of Python."""
    secrets: list[str] = []
    memory: BySize = BySize(small=128, large=256)
    """MiB of its process."""
    data: BySize | None = None
    """GiB of the data disk at ``/data/berny-<pipeline>``."""
    environment: dict[str, str] = {}


class Pipeline(_Strict):
    """A pipeline's manifest."""

    title: str
    user: User
    topics: dict[str, Topic]
    stages: dict[str, Stage]
    sinks: dict[str, dict[str, Any]]
    dashboard: str = ""
    """A file beside the manifest that Grafana shows."""
    name: str = ""


class Catalog(_Strict):
    """All components, and their services by name."""

    components: dict[str, Component]

    @property
    def services(self) -> dict[str, Service]:
        """All services by name, in the catalog's order."""
        return {name: service for component in self.components.values() for name, service in component.services.items()}


class _Yaml12Loader(yaml.SafeLoader):
    """Only ``true`` and ``false`` are booleans, as in YAML 1.2: manifests have a key ``on``."""


_Yaml12Loader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in resolvers if tag != "tag:yaml.org,2002:bool"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Yaml12Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^(?:true|false)$"), list("tf"))


def _read(file: Path) -> dict[str, Any]:
    try:
        data = yaml.load(file.read_text(), Loader=_Yaml12Loader)
    except yaml.YAMLError as error:
        raise CatalogError(f"{file}: {error}") from None
    if not isinstance(data, dict):
        raise CatalogError(f"{file}: expected a mapping, found {type(data).__name__}")
    return data


def _parse(model: type[Any], data: Any, file: Path) -> Any:
    try:
        return model.model_validate(data)
    except ValidationError as error:
        lines = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise CatalogError(f"{file}: {lines}") from None


@cache
def load_catalog(roles: Path = ROLES) -> Catalog:
    """Read every component with its commands, ordered so that each comes after what it needs.

    Raises:
        CatalogError: a file is malformed, or a component needs one that is missing or that needs it.
    """
    found: dict[str, Component] = {}
    for file in sorted(roles.glob("*/component.yml")):
        component, entry = file.parent.name, _read(file)
        services = {
            name: {**service, "name": name, "component": component}
            for name, service in entry.get("services", {}).items()
        }
        entry = {**entry, "name": component, "services": services}
        commands = file.with_name("commands.yml")
        if commands.is_file():
            entry["commands"] = _parse(Commands, _read(commands), commands)
        found[component] = _parse(Component, entry, file)
    ordered: dict[str, Component] = {}

    def add(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            raise CatalogError(f"{roles}: components need each other in a circle: {' -> '.join([*path, name])}")
        if name not in found:
            raise CatalogError(f"{roles / path[-1] / 'component.yml'}: needs {name!r}, which is not in the catalog")
        for need in found[name].needs:
            add(need, (*path, name))
        ordered.setdefault(name, found[name])

    for name in found:
        add(name, ())
    return Catalog(components=ordered)


@cache
def load_pipelines(folder: Path | None = None) -> dict[str, Pipeline]:
    """Read the manifest of every pipeline.

    Raises:
        CatalogError: a manifest is malformed.
    """
    folder = folder or PIPELINES
    pipelines = {}
    for file in sorted(folder.glob("*/pipeline.yml")):
        name = file.parent.name
        data = _read(file)
        pipelines[name] = _parse(Pipeline, {**data, "name": name}, file)
    return pipelines
