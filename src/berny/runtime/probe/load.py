"""The probes of components. Each component has a file of its own, ``roles/COMPONENT/probe.py``; the archive ``berny`` has it
as the module ``berny_probes.COMPONENT``.

A probe file has:

- ``SERVICES: dict[str, Probe]``: how an instance of each service is asked;
- ``component: Probe``, where the component as a whole is asked in another way than its first service;
- ``resources: Resources``, where pipelines keep something in the component.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass

from berny.runtime.probe import NotServing, Probe, Resources

PACKAGE = "berny_probes"


@dataclass(frozen=True)
class Probes:
    """What a probe file has."""

    services: dict[str, Probe]
    component: Probe | None
    resources: Resources | None


def load(component: str) -> Probes:
    """Import the probe file of a component, and no other.

    Raises:
        NotServing: it is missing or broken. The probes of other components work all the same.
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
            raise NotServing(f"the probe of {component} can't be loaded: {error}") from None
        raise NotServing(f"{component} has no probe: the module {name} is missing") from None
    except Exception as error:  # whatever is wrong in a file that is executed
        raise NotServing(f"the probe of {component} can't be loaded: {type(error).__name__}: {error}") from None


def service_probe(component: str, service: str) -> Probe:
    """Return the probe of an instance of a service.

    Raises:
        NotServing: there is none.
    """
    try:
        return load(component).services[service]
    except KeyError:
        raise NotServing(f"the probe file of {component} has no service {service}") from None


def component_probe(component: str) -> Probe:
    """Return the probe of a component as a whole: its own, or that of its first service.

    Raises:
        NotServing: there is none.
    """
    probes = load(component)
    return probes.component or next(iter(probes.services.values()))
