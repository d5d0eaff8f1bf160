"""The probes of components. Each component has its own file, ``roles/COMPONENT/probe.py``; the archive ``berny`` has it as
the module ``berny_probes.COMPONENT``.

A probe file has:

- ``SERVICES: dict[str, Probe]``: the probe of an instance, for each service;
- ``component: Probe``, if the component as a whole is probed differently from its first service;
- ``resources: Resources``, if pipelines have resources in the component.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass

from berny.runtime.probe import NotReady, Probe, Resources

PACKAGE = "berny_probes"


@dataclass(frozen=True)
class Probes:
    """The contents of a probe file."""

    services: dict[str, Probe]
    component: Probe | None
    resources: Resources | None


def load(component: str) -> Probes:
    """Import the probe file of a component, and no other.

    Raises:
        NotReady: it is missing or broken. The probes of other components are not affected.
    """
    name = f"{PACKAGE}.{component}"
    try:
        module = importlib.import_module(name)
        probes = Probes(dict(module.SERVICES), getattr(module, "component", None), getattr(module, "resources", None))
        if not probes.services:
            raise ValueError("SERVICES is empty")
        return probes
    except ModuleNotFoundError as error:
        if error.name not in (PACKAGE, name):
            raise NotReady(f"the probe of {component} can't be loaded: {error}") from None
        raise NotReady(f"{component} has no probe: the module {name} is missing") from None
    except Exception as error:  # the file is executed: any error is possible
        raise NotReady(f"the probe of {component} can't be loaded: {type(error).__name__}: {error}") from None


def service_probe(component: str, service: str) -> Probe:
    """Return the probe of an instance of a service.

    Raises:
        NotReady: there is none.
    """
    try:
        return load(component).services[service]
    except KeyError:
        raise NotReady(f"the probe file of {component} has no service {service}") from None


def component_probe(component: str) -> Probe:
    """Return the probe of a component as a whole: its own, or that of its first service.

    Raises:
        NotReady: there is none.
    """
    probes = load(component)
    return probes.component or next(iter(probes.services.values()))
