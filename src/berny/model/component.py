"""What a component is: the models of ``roles/<component>/component.yml`` and ``commands.yml``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from berny.model import names

NodeSize = Literal["small", "large"]

_UNITS = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_SPANS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


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

    @property
    def facts(self) -> list[tuple[str, object]]:
        """What no other user may have."""
        return [("uid", self.uid), ("user", self.name)]


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
    metrics_path: str = Field(default="/metrics", pattern=r"^/\S+$")
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
    user: User | None = None
    """Who it runs as, where that is not its component's user."""
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
    part: Literal["", "host", "port"] = ""
    """This alone, for clients that are given the two apart."""
    text: str = ""
    """For stages alone: ``{user}``, ``{pipeline}`` and ``{stage}`` are the stage's."""

    @model_validator(mode="after")
    def _service_or_text(self) -> Endpoint:
        if bool(self.text) == bool(self.service and self.port):
            raise ValueError("service and port, or text")
        if self.part and (self.scheme or self.every):
            raise ValueError("part: of one address without a scheme")
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
    listing: dict[str, str] = {}
    """The same of all that it writes to, with commas between."""
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
    files: dict[Annotated[str, Field(pattern=r"^/etc(/[\w.-]+)+$")], str] = {}
    """Texts by path that are there before they are installed: what their installation does depends on them."""


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
    gives: list[Name] = []
    """What it has for those that take it, by the name of the template of its role."""
    takes: list[Name] = []
    """What it takes from all that give it: it comes after them."""
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
    on_demand: bool = False
    """A lab runs it only for pipelines that need it."""
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
    def users(self) -> list[User]:
        """Its own user and those of its services."""
        return [self.user, *(service.user for service in self.services.values() if service.user)]

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
        facts = [fact for user in self.users for fact in user.facts]
        if len({*facts}) < len(facts):
            raise ValueError("services: two of its users have one name or uid")
        if self.optional and not self.archive:
            raise ValueError("optional: only what is installed from an archive can be missing from the store")
        ports = {name: service.ports for name, service in self.services.items()}
        for name, endpoint in self.endpoints.items():
            if endpoint.service and endpoint.port not in ports.get(endpoint.service, {}):
                raise ValueError(f"endpoints.{name}: there is no port {endpoint.port} of {endpoint.service}")
        return self
