"""How a lab runs a pipeline with a simulator of its source: ``src/berny/pipelines/NAME/controller/simulation.yml``."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from berny.lab.errors import LabError
from berny.model.manifest import PIPELINES

URL = "{url}"
"""Placeholder for the simulator's address in a setting."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SourceFault(_Strict):
    """A kind of fault that a simulator supports (``/_simulator/faults``)."""

    about: str
    quiet: bool = False
    """Nothing is acknowledged during the fault."""
    refused: bool = False
    """As ``quiet``, and the stage that polls the source stops until an operator starts it again."""


class Simulation(_Strict):
    """A pipeline in a lab."""

    port: int = Field(gt=1023, lt=65536)
    """The simulator's port; each has its own, at the same address."""
    harness: str
    """The inventory group on whose first node the pipeline's harness runs."""
    settings: dict[str, str] = {}
    """The environment of its stages when it polls its simulator."""
    calendars: dict[str, str] = {}
    """Calendars of timers in a lab by stage, which override the manifest's: usually shorter."""
    secret: str = ""
    """If the operator has set it, the pipeline polls the real source instead."""
    faults: dict[str, SourceFault] = {}
    default: bool = False
    """Whether a lab runs it by default."""

    def describe(self, address: str) -> dict[str, Any]:
        """Return the variables for the inventory ``lab``, for a simulator that listens on an address."""
        url = f"http://{address}:{self.port}"
        return {
            "url": url,
            "secret": self.secret,
            "secrets": {self.secret: "simulated"} if self.secret else {},
            "settings": {name: value.replace(URL, url) for name, value in self.settings.items()},
            "calendars": self.calendars,
        }


@cache
def load_simulations(folder: Path = PIPELINES) -> dict[str, Simulation]:
    """Return the simulation of each pipeline that has one.

    Raises:
        LabError: a file is malformed, or two simulators have one port; the message names the file.
    """
    found: dict[str, Simulation] = {}
    for file in sorted(folder.glob("*/controller/simulation.yml")):
        try:
            made = Simulation.model_validate(yaml.safe_load(file.read_text()))
        except ValidationError as error:
            lines = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
            raise LabError(f"{file}: {lines}") from None
        except yaml.YAMLError as error:
            raise LabError(f"{file}: {error}") from None
        if taken := [name for name, other in found.items() if other.port == made.port]:
            raise LabError(f"{file}: port: {made.port} is that of {taken[0]}")
        found[file.parents[1].name] = made
    return found


def select(words: str) -> tuple[str, ...]:
    """Return the pipelines that names or ``all`` stand for; without names, those that a lab runs by default.

    Raises:
        LabError: there is no such pipeline; the message lists the existing ones.
    """
    known = load_simulations()
    names = words.replace(",", " ").split()
    if not names:
        return tuple(name for name, simulation in known.items() if simulation.default)
    if names == ["all"]:
        return tuple(known)
    _refuse(set(names) - known.keys(), known)
    return tuple(name for name in known if name in names)


def _refuse(unknown: set[str], known: Iterable[str]) -> None:
    if unknown:
        there = ", ".join(known)
        raise LabError(f"there is no simulated pipeline {', '.join(sorted(unknown))}: there are {there}; or all")
