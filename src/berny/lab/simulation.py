"""How a lab runs a pipeline on a simulator of its source: ``src/berny/pipelines/NAME/controller/simulation.yml``."""

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
"""Stands for the simulator's address in a setting."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SourceFault(_Strict):
    """A kind of fault that a simulator knows (``/_simulator/faults``)."""

    about: str
    quiet: bool = False
    """Nothing is acknowledged meanwhile."""
    refused: bool = False
    """Nothing either, and the stage that asks the source stops until a person starts it again."""


class Simulation(_Strict):
    """A pipeline in a lab."""

    port: int = Field(gt=1023, lt=65536)
    """Of the simulator; each has its own, the address is the same."""
    harness: str
    """The inventory group on whose first node the pipeline's harness is asked."""
    settings: dict[str, str] = {}
    """The environment of its stages when it watches its simulator."""
    secret: str = ""
    """Where the operator has given it, the pipeline watches the real source instead."""
    faults: dict[str, SourceFault] = {}
    default: bool = False
    """A lab runs it unless told otherwise."""

    def describe(self, address: str) -> dict[str, Any]:
        """Return what the inventory ``lab`` needs, for a simulator that listens at an address."""
        url = f"http://{address}:{self.port}"
        return {
            "url": url,
            "secret": self.secret,
            "secrets": {self.secret: "simulated"} if self.secret else {},
            "settings": {name: value.replace(URL, url) for name, value in self.settings.items()},
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
    """Return the pipelines that are meant by names, or by ``all``; those that a lab runs by itself where there is none.

    Raises:
        LabError: there is no such pipeline; the message names those that there are.
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
        raise LabError(f"no simulated pipeline is called {', '.join(sorted(unknown))}: there are {there}; or all")
