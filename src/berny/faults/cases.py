"""The fault cases: what each one breaks, how it is healed, and what has to be acknowledged during it.

Cases of daemons, stages and machines follow from the catalog, the manifests and the mapping, so a new service has its cases
automatically. Cases of a single component are in ``roles/COMPONENT/faults.py``: ``fault_cases(targets)`` yields them, and the
optional ``heal(lab, targets)`` removes what they may have left.
"""

from __future__ import annotations

import importlib.util
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from types import ModuleType

from berny.controller.progress import Say
from berny.faults import inject, network
from berny.faults.targets import Targets, load_targets, targets_of
from berny.lab.lab import Lab
from berny.lab.simulation import SourceFault, load_simulations
from berny.model import names
from berny.model.catalog import ROLES

Do = Callable[[Lab], None]
Draw = Callable[[Lab, random.Random, Say], tuple[list[str], Mapping[str, int]]]
"""Injects random faults; returns their names, and by pipeline how many responses may stay unspooled."""
HOLD_SECONDS = 30.0
# On a full disk no response can be stored.
MANY = 10**6
# Limits for fresh points: after a process was killed, a node returns, a node with a spool or all nodes return.
PROCESS_SECONDS, NODE_SECONDS, SPOOL_SECONDS = 30.0, 60.0, 120.0


def to(do: Callable[..., object], *words: object, **options: object) -> Do:
    """Return an injection that calls ``do`` with a lab and these arguments."""

    def done(lab: Lab) -> None:
        do(lab, *words, **options)

    return done


def nothing(lab: Lab) -> None:
    """Do nothing: the fault heals by itself."""


@dataclass(frozen=True)
class FaultCase:
    """One fault."""

    name: str
    about: str
    inject: Do
    heal: Do = nothing
    hold: float = HOLD_SECONDS
    """Seconds from the end of the injection to the start of the healing."""
    fresh: float = NODE_SECONDS
    """Seconds within which points have to be fresh again: from the healing, or from the injection if nothing is healed."""
    minimum: int = 1
    """Observations that have to be acknowledged during the fault; 0 if the spool is down as well, or nothing is served."""
    unspooled: int = 0
    """How many responses may be served completely but not stored, if the fault hits the stage with the spool, which makes one
    request at a time, or its disk. They were never acknowledged."""
    pipelines: frozenset[str] | None = None
    """Pipelines that ``minimum`` and ``unspooled`` apply to; the others have to store every response. None: all."""
    minimum_of_others: int = 1
    gives_up: str = ""
    """Data that can't be restored, since only the broken node had it. The operator's procedure heals such a case."""
    gives_up_in: str = ""
    """The component whose sinks may lose it."""
    gentle: bool = False
    """Whether random runs may include it: it destroys nothing."""
    draws: Draw | None = None
    """The injection, if it makes random choices."""

    @property
    def heals_itself(self) -> bool:
        """Return whether the fault heals without intervention."""
        return self.heal is nothing

    def minimum_of(self, pipeline: str) -> int:
        """Return how many observations of a pipeline have to be acknowledged."""
        return self.minimum if self.pipelines is None or pipeline in self.pipelines else self.minimum_of_others

    def unspooled_of(self, pipeline: str) -> int:
        """Return how many responses a pipeline may fail to store."""
        return self.unspooled if self.pipelines is None or pipeline in self.pipelines else 0


def _processes(targets: Targets) -> Iterator[FaultCase]:
    """Kill and freeze each daemon and each stage, one at a time."""
    spooling = {
        names.unit(pipeline, stage): pipeline for pipeline, stages in targets.spools().items() for stage in stages
    }
    for unit, nodes in targets.units.items():
        owner = spooling.get(unit)
        least, lost = (0, 1) if owner else (1, 0)
        own = frozenset({owner}) if owner else None
        for node in nodes:
            yield FaultCase(
                f"kill-{unit}-{node}", f"`kill -9` of {unit} on {node}",
                to(inject.kill_unit, unit, node),
                hold=15, fresh=PROCESS_SECONDS, minimum=least, unspooled=lost, pipelines=own, gentle=True,
            )  # fmt: skip
            yield FaultCase(
                f"freeze-{unit}-{node}",
                f"all processes of {unit} on {node} are frozen for {HOLD_SECONDS:.0f} s",
                to(inject.freeze_unit, unit, node), to(inject.thaw_unit, unit, node),
                minimum=least, unspooled=lost, pipelines=own, gentle=True,
            )  # fmt: skip


def _machines(targets: Targets) -> Iterator[FaultCase]:
    nodes = targets.nodes
    for node in nodes:
        # While the spool is down, nothing is polled.
        own = targets.spooled_on(node)
        fresh, least, lost = (SPOOL_SECONDS, 0, 1) if own else (NODE_SECONDS, 1, 0)
        back = to(inject.boot, node)
        yield FaultCase(
            f"off-{node}", f"{node} is killed, and booted after {HOLD_SECONDS:.0f} s",
            to(inject.kill, node), back,
            fresh=fresh, minimum=least, unspooled=lost, pipelines=own or None, gentle=True,
        )  # fmt: skip
        yield FaultCase(
            f"power-{node}", f"{node} loses power and all data not synced to its disks; it is booted after 10 s",
            to(inject.power_cut, node), back,
            hold=10, fresh=fresh, minimum=least, unspooled=lost, pipelines=own or None,
        )  # fmt: skip
        yield FaultCase(
            f"reboot-{node}", f"`systemctl reboot` of {node}", to(inject.reboot, node), hold=0,
            fresh=fresh, minimum=0, unspooled=lost, pipelines=own or None, minimum_of_others=0,
        )  # fmt: skip
    for turn in range(len(nodes)):
        order = [*nodes[turn:], *nodes[:turn]]
        yield FaultCase(
            f"power-all-{order[0]}-first",
            f"all machines lose power at once; they are booted in the order {', '.join(order)}, 5 s apart",
            to(inject.power_cut, *nodes),
            to(inject.boot, *order, between=5),
            hold=5,
            fresh=SPOOL_SECONDS,
            minimum=0,
            unspooled=1,
        )


def _networks(targets: Targets) -> Iterator[FaultCase]:
    for node in targets.nodes:
        # Without a connection to the source nothing is polled.
        own = targets.spooled_on(node)
        least, fresh = (0, SPOOL_SECONDS) if own else (1, NODE_SECONDS)
        ways: dict[str, dict[str, bool]] = {"": {}, "-in": {"outgoing": False}, "-out": {"incoming": False}}
        words = {"": "in both directions", "-in": "incoming traffic", "-out": "outgoing traffic"}
        for way, options in ways.items():
            yield FaultCase(
                f"cut-{node}{way}", f"{node}'s network is cut: {words[way]}",
                to(network.cut, node, **options), network.heal,
                fresh=fresh, minimum=least, unspooled=int(bool(own)), pipelines=own or None, gentle=True,
            )  # fmt: skip
        yield FaultCase(
            f"loss-{node}", f"5 % of the packets that {node} sends and receives are lost",
            to(network.lose, node, 5), network.heal, gentle=True,
        )  # fmt: skip
        yield FaultCase(
            f"delay-{node}", f"packets that {node} sends and receives are delayed by {network.DELAY} ± {network.JITTER} ms",
            to(network.delay, node), network.heal, gentle=True,
        )  # fmt: skip
        yield FaultCase(
            f"narrow-{node}", f"{node}'s bandwidth is {network.RATE.replace('mbit', ' Mbit/s')}",
            to(network.narrow, node), network.heal, gentle=True,
        )  # fmt: skip
    if len(targets.nodes) > 1:
        one, other = sorted(targets.busiest[:2], key=targets.nodes.index)
        yield FaultCase(
            f"cut-{one}-{other}", f"{one} and {other} can't reach each other",
            to(network.cut_pair, one, other), network.heal, gentle=True,
        )  # fmt: skip


def full(service: str, node: str) -> FaultCase:
    """Return the case of a service whose data disk is full."""
    return FaultCase(
        f"full-{service}-{node}", f"the disk of {service} on {node} is full",
        to(inject.fill, node, service), inject.empty_disks,
    )  # fmt: skip


def wiped(service: str, node: str) -> FaultCase:
    """Return the case of a service that returns with an empty data disk, of which others have replicas."""
    return FaultCase(
        f"wipe-{service}-{node}", f"{node} comes back with an empty disk for {service}",
        to(inject.wipe, node, service), to(inject.boot, node), hold=10,
    )  # fmt: skip


def rolling(component: str, setting: str) -> FaultCase:
    """Return the case of a play that restarts a component; ``setting`` is a harmless change of its configuration."""
    return FaultCase(
        f"rolling-{component}", f"`site.yml` restarts {component}, whose configuration has changed",
        to(inject.rolling_restart, component, setting), hold=0,
    )  # fmt: skip


def killed_convergence(setting: str, value: int) -> FaultCase:
    """Return the case of killed plays, each with another value of a setting, so it has something to change."""

    def draws(lab: Lab, draw: random.Random, say: Say) -> tuple[list[str], Mapping[str, int]]:
        return inject.killed_convergence(lab, draw, say, setting, value), {}

    about = "`site.yml` is killed at ten random times, and run again"
    return FaultCase("converge-killed", about, nothing, hold=0, draws=draws)


def _spool_disks(targets: Targets) -> Iterator[FaultCase]:
    for pipeline, stages in targets.spools().items():
        for node in sorted({node for nodes in stages.values() for node in nodes}):
            yield FaultCase(
                f"full-berny-{pipeline}-{node}", f"the disk of berny-{pipeline} on {node} is full",
                to(inject.fill, node, names.disk(pipeline)), inject.empty_disks,
                minimum=0, unspooled=MANY, pipelines=frozenset({pipeline}),
            )  # fmt: skip


def _sources(targets: Targets) -> Iterator[FaultCase]:
    """Yield the cases of failing sources; each affects all sources that support the kind."""
    known: dict[str, dict[str, SourceFault]] = {}
    for pipeline, simulation in load_simulations().items():
        for kind, fault in simulation.faults.items() if pipeline in targets.pipelines else []:
            known.setdefault(kind, {})[pipeline] = fault
    for kind, faults in known.items():
        refused = {pipeline for pipeline, fault in faults.items() if fault.refused}
        silent = refused | {pipeline for pipeline, fault in faults.items() if fault.quiet}
        yield FaultCase(
            f"source-{kind}",
            "; ".join(dict.fromkeys(fault.about for fault in faults.values())),
            to(inject.source, kind),
            to(inject.heal_refused, *sorted(refused)) if refused else inject.heal_source,
            minimum=0 if silent else 1,
            pipelines=frozenset(silent) if silent else None,
            gentle=not refused,
        )


@cache
def component_faults(component: str) -> ModuleType | None:
    """Return the module ``faults`` of a component's role, or None if it has none."""
    file = ROLES / component / "faults.py"
    if not file.is_file():
        return None
    spec = importlib.util.spec_from_file_location(f"berny_faults_{component}", file)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def faulty(targets: Targets) -> Iterator[ModuleType]:
    """Yield the modules ``faults`` of the components that run."""
    for component in targets.catalog.components:
        module = component_faults(component)
        if module and targets.runs(component):
            yield module


def _of_components(targets: Targets) -> list[FaultCase]:
    return [case for module in faulty(targets) for case in module.fault_cases(targets)]


def _all_at_once(targets: Targets) -> Iterator[FaultCase]:
    def draws(lab: Lab, draw: random.Random, say: Say) -> tuple[list[str], Mapping[str, int]]:
        return inject.restart_all(lab, draw, say, targets), {}

    yield FaultCase(
        "restart-all", "`systemctl restart` of everything, in a random order", nothing, hold=0,
        fresh=SPOOL_SECONDS, minimum=0, draws=draws,
    )  # fmt: skip


RANDOM_SECONDS = (5.0, 20.0)


def random_case(seconds: float, seed: int, targets: Targets | None = None) -> FaultCase:
    """Return a case that injects faults every few seconds, each time any of: a machine, a process, a link, the sources."""
    targets = targets or load_targets()
    nodes = targets.nodes
    kinds = [list(make(targets)) for make in (_machines, _processes, _networks, _sources)]

    def draw_all(lab: Lab, draw: random.Random, say: Say) -> tuple[list[str], Mapping[str, int]]:
        steps, until = [], time.monotonic() + seconds
        unspooled: Counter[str] = Counter()
        while (left := until - time.monotonic()) > 0:
            drawn: list[FaultCase] = []
            for kind in kinds:
                # No other fault can be injected into a machine that is off.
                off = [node for node in nodes if drawn and drawn[0].name == f"off-{node}"]
                free = [case for case in kind if case.gentle and not any(node in case.name for node in off)]
                drawn += [draw.choice(free)] if draw.random() < 0.5 else []
            steps.append(" and ".join(case.name for case in drawn) or "none")
            unspooled.update({name: sum(case.unspooled_of(name) for case in drawn) for name in targets.pipelines})
            say(f"{steps[-1]}; {left:.0f} s left")
            for case in drawn:
                case.inject(lab)
            time.sleep(draw.uniform(*RANDOM_SECONDS))
            for case in drawn:
                case.heal(lab)
        return steps, unspooled

    about = "random faults of machines, processes, links and sources, healed after a few seconds each"
    return FaultCase(f"random-{seed}", about, nothing, heal_all, hold=0, fresh=SPOOL_SECONDS, draws=draw_all)


def fault_cases(targets: Targets | None = None) -> dict[str, FaultCase]:
    """Return all cases by name, in the order in which they run; those that give up data are last."""
    targets = targets or load_targets()
    own = _of_components(targets)
    groups = [
        [FaultCase("none", "no fault", nothing, hold=15)],
        _all_at_once(targets),
        [case for case in own if not case.gives_up],
        _processes(targets),
        _sources(targets),
        _networks(targets),
        _spool_disks(targets),
        _machines(targets),
        [case for case in own if case.gives_up],
    ]
    return {case.name: case for group in groups for case in group}


def heal_all(lab: Lab) -> None:
    """Remove everything that a bench, even a killed one, may have left, and restore the lab.

    Raises:
        LabError: a machine does not come up.
    """
    targets = targets_of(lab.plan)
    inject.heal(lab, targets)
    for module in faulty(targets):
        if hasattr(module, "heal"):
            module.heal(lab, targets)
