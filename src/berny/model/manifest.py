"""Pipelines as data: the manifests ``src/berny/pipelines/<pipeline>/pipeline.yml``.

A manifest says which resources a pipeline has and what each of its stages reads and writes. What a stage waits for, its dead
letters and what it may write to follow from that. A key, kind or name that is not known is an error with file and key.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from berny.model import names
from berny.model.catalog import Catalog, CatalogError, check_resources, load_catalog, parse, read_yaml
from berny.model.component import BySize, Name, Port, Strict, User

PIPELINES = Path(__file__).resolve().parents[1] / "pipelines"
"""A folder for each pipeline."""
SOURCE = "source"
"""What a stage reads that reads from outside of the cluster."""

Names = Annotated[list[str], BeforeValidator(lambda given: [given] if isinstance(given, str) else given)]


class Stage(Strict):
    """A program of a pipeline, run as ``berny-<pipeline>-<stage>`` on each node of the group ``on``."""

    kind: Literal["stream", "timer", "serve"]
    """It runs for ever, at times of a calendar, or listens."""
    on: str
    run: str = Field(pattern=r"^[a-z][a-z0-9_]*\.py$")
    """A file beside the manifest."""
    engine: str = ""
    """The component that runs it; Python itself without one."""
    reads: Names = []
    writes: Names = []
    metrics_port: Port
    calendar: str = ""
    """Of a timer, as systemd.time(7) writes it."""
    ports: dict[str, Port] = {}
    """Of a stage that listens."""
    secrets: list[str] = []
    """What a person gives, once."""
    memory: BySize = BySize(small=128, large=256)
    """MiB of its process."""
    data: BySize | None = None
    """GiB of the data disk at ``/data/berny-<pipeline>``."""
    environment: dict[str, str] = {}
    checkpoint: str = Field("", pattern=r"^([a-z][a-z0-9_-]*)?$")
    """Of what an engine runs: the name of its directory; the stage's own without one."""
    needs: list[str] = []
    """Components, in the catalog's order; they follow from the rest."""

    @model_validator(mode="after")
    def _of_its_kind(self) -> Stage:
        if (self.kind == "timer") != bool(self.calendar):
            raise ValueError("calendar: a timer has one, and nothing else has")
        if (self.kind == "serve") != bool(self.ports):
            raise ValueError("ports: a stage that serves has some, and nothing else has")
        return self


class Pipeline(Strict):
    """A pipeline's manifest."""

    title: str
    user: User
    resources: dict[str, dict[str, dict[str, Any]]] = {}
    """By kind and name."""
    stages: dict[Name, Stage]
    """In the order that they are started in."""
    dashboard: str = ""
    """A file below the manifest's folder that Grafana shows."""
    name: Name

    @property
    def requires(self) -> set[str]:
        """The components that its stages need."""
        return {component for stage in self.stages.values() for component in stage.needs}

    def kind(self, resource: str) -> str:
        """Return the kind of a resource of this pipeline.

        Raises:
            KeyError: it has none of that name.
        """
        return next(kind for kind, named in self.resources.items() if resource in named) if resource else ""

    def reads(self, stage: str, kind: str) -> list[str]:
        """Return what a stage reads of a kind."""
        return [name for name in self.stages[stage].reads if name in self.resources.get(kind, {})]

    def writes(self, stage: str, kind: str) -> list[str]:
        """Return what a stage writes to of a kind."""
        return [name for name in self.stages[stage].writes if name in self.resources.get(kind, {})]


def _resolved(given: Pipeline, catalog: Catalog, file: Path) -> Pipeline:
    """Return a manifest with defaults, dead letters and needs.

    Raises:
        CatalogError: it asks for what there is not; the message names the file and all of the keys.
    """
    problems = list(check_resources(given.resources, catalog.kinds))
    known = {name: kind for kind, named in given.resources.items() for name in named}
    if doubled := sorted(name for name in known if sum(name in named for named in given.resources.values()) > 1):
        problems.append(f"resources: {', '.join(doubled)} is of two kinds: names are what stages refer to")
    groups = {group for component in catalog.components.values() for group in component.groups}
    for name, stage in given.stages.items():
        problems += [
            f"stages.{name}.{key}: {other!r} is no resource of this pipeline; there are {', '.join([*known, SOURCE])}"
            for key in ("reads", "writes")
            for other in getattr(stage, key)
            if other not in known and not (key == "reads" and other == SOURCE)
        ]
        engine = catalog.components.get(stage.engine)
        if stage.engine and not (engine and engine.engine):
            engines = [component.name for component in catalog.components.values() if component.engine]
            problems.append(f"stages.{name}.engine: {stage.engine!r} runs no stages; there are {', '.join(engines)}")
        if stage.on not in groups:
            problems.append(f"stages.{name}.on: there is no group {stage.on!r}")
        if not (file.parent / stage.run).is_file():
            problems.append(f"stages.{name}.run: there is no {stage.run} beside it")
        if stage.needs:
            problems.append(f"stages.{name}.needs: follows from what it reads and writes")
    if given.dashboard and not (file.parent / given.dashboard).is_file():
        problems.append(f"dashboard: there is no {given.dashboard}")
    if problems:
        raise CatalogError(f"{file}: {'; '.join(problems)}")
    resources = {
        kind: {name: catalog.kinds[kind].complete(keys) for name, keys in named.items()}
        for kind, named in given.resources.items()
    }
    for stage in given.stages.values():
        for read in stage.reads:
            beside = catalog.kinds[known[read]].dead_letters if read in known else None
            if beside is not None:
                resources[known[read]].setdefault(names.dead_letters(read), catalog.kinds[known[read]].complete(beside))
    stages = {
        name: stage.model_copy(update={"needs": _needs(stage, known, catalog)}) for name, stage in given.stages.items()
    }
    return given.model_copy(update={"resources": resources, "stages": stages})


def _needs(stage: Stage, known: Mapping[str, str], catalog: Catalog) -> list[str]:
    """Return the components that a stage needs: those of what it reads and writes, and of what runs it."""
    found = {catalog.kinds[known[name]].component for name in [*stage.reads, *stage.writes] if name in known}
    if stage.engine:
        found |= {stage.engine, *catalog.components[stage.engine].requires}
    return [name for name in catalog.components if name in found]


@cache
def load_pipelines(folder: Path | None = None) -> dict[str, Pipeline]:
    """Read the manifest of every pipeline.

    Raises:
        CatalogError: a manifest is malformed, asks for what there is not, or two of them share what they may not.
    """
    folder, catalog = folder or PIPELINES, load_catalog()
    pipelines = {}
    for file in sorted(folder.glob("*/pipeline.yml")):
        entry = read_yaml(file)
        if "name" in entry:
            raise CatalogError(f"{file}: name: is that of its folder")
        given = parse(Pipeline, {**entry, "name": file.parent.name}, file)
        pipelines[given.name] = _resolved(given, catalog, file)
    _check_shared(pipelines, catalog, folder)
    return pipelines


def _check_shared(pipelines: Mapping[str, Pipeline], catalog: Catalog, folder: Path) -> None:
    """Refuse users, units and resources that two pipelines, or one and a component, would share."""
    taken: dict[tuple[str, object], str] = {}
    for component in catalog.components.values():
        taken |= {fact: component.name for user in component.users for fact in user.facts}
        taken |= {("unit", service): component.name for service in component.services}
        for kind, named in component.resources.items():
            taken |= {(kind, name): component.name for name in named}
    for pipeline in pipelines.values():
        own = pipeline.user.facts
        own += [("unit", names.unit(pipeline.name, stage)) for stage in pipeline.stages]
        own += [(kind, name) for kind, named in pipeline.resources.items() for name in named]
        for word, value in own:
            if other := taken.get((word, value)):
                raise CatalogError(f"{folder / pipeline.name / 'pipeline.yml'}: {word} {value} is that of {other}")
            taken[word, value] = pipeline.name
