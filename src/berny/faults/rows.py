"""The rows of the bench: each one fault, what it does, how it is healed, and what has to be acknowledged meanwhile.

Rows of daemons and stages follow from the catalog, the manifests and the mapping: a new service has its rows at once.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from berny.controller.progress import Say
from berny.faults import inject, network
from berny.lab.lab import Lab
from berny.model.catalog import load_catalog
from berny.model.manifest import load_pipelines
from berny.model.topology import read_mapping

Do = Callable[[Lab], None]
Draw = Callable[[Lab, random.Random, Say], tuple[list[str], int]]
"""Breaks what it draws; returns what that was, and how many answers may not be kept for it (see ``Row.unspooled``)."""
HOLD_SECONDS = 30.0
# A disk that refuses keeps none of all the answers meanwhile.
MANY = 10**6
# Fresh points again: after a process was killed, after a worker is back, after master or everybody is back.
PROCESS_SECONDS, WORKER_SECONDS, MASTER_SECONDS = 30.0, 60.0, 120.0


def to(do: Callable[..., object], *words: object, **options: object) -> Do:
    """Return what does something to a lab."""

    def done(lab: Lab) -> None:
        do(lab, *words, **options)

    return done


def nothing(lab: Lab) -> None:
    """Heal what heals by itself."""


@dataclass(frozen=True)
class Row:
    """One fault."""

    name: str
    about: str
    inject: Do
    heal: Do = nothing
    hold: float = HOLD_SECONDS
    """Seconds from the end of the injection to the beginning of the healing."""
    fresh: float = WORKER_SECONDS
    """Seconds within which points are to be fresh again: from the healing, or from the injection where nobody heals."""
    minimum: int = 1
    """Observations that have to be acknowledged during the fault; 0 where the spool is away as well, or nothing is served."""
    unspooled: int = 0
    """How many answers may be served whole and yet not be kept: the producer, which asks one after the other, or its disk is
    the fault. What was not kept was never acknowledged."""
    gives_up: str = ""
    """What can't be had again by the mapping: only what was broken had it. Such a row is healed by a remedy for people."""
    gentle: bool = False
    """May be one of many in a random run: it destroys nothing."""
    draws: Draw | None = None
    """The injection, where it draws from the run's seed."""

    @property
    def heals_itself(self) -> bool:
        """Tell whether nobody mends anything."""
        return self.heal is nothing


def _stage_units() -> set[str]:
    return {f"berny-{pipeline.name}-{stage}" for pipeline in load_pipelines().values() for stage in pipeline.stages}


def _processes() -> Iterator[Row]:
    """Kill and freeze each daemon and each stage, one at a time."""
    for unit, nodes in inject.placed_units().items():
        producer = unit.endswith("-producer")
        for node in nodes:
            yield Row(
                f"kill-{unit}-{node}",
                f"`kill -9` of {unit} on {node}",
                to(inject.kill_unit, unit, node),
                hold=15,
                fresh=PROCESS_SECONDS,
                minimum=0 if producer else 1,
                unspooled=int(producer),
                gentle=True,
            )
            yield Row(
                f"freeze-{unit}-{node}",
                f"all processes of {unit} on {node} stand still for {HOLD_SECONDS:.0f} s",
                to(inject.freeze_unit, unit, node),
                to(inject.thaw_unit, unit, node),
                minimum=0 if producer else 1,
                unspooled=int(producer),
                gentle=True,
            )


def _machines(nodes: list[str]) -> Iterator[Row]:
    for node in nodes:
        spool = node in read_mapping()[load_pipelines()["idfm"].stages["producer"].on]
        # The spool is on it: while it is away, nothing is polled.
        fresh, least, lost = (MASTER_SECONDS, 0, 1) if spool else (WORKER_SECONDS, 1, 0)
        back = to(inject.boot, node)
        yield Row(
            f"off-{node}", f"{node} ends at once, and is booted after {HOLD_SECONDS:.0f} s",
            to(inject.kill, node), back, fresh=fresh, minimum=least, unspooled=lost, gentle=True,
        )  # fmt: skip
        yield Row(
            f"power-{node}", f"{node} loses its power, and all that its disks had not synced; it is booted after 10 s",
            to(inject.power_cut, node), back, hold=10, fresh=fresh, minimum=least, unspooled=lost,
        )  # fmt: skip
        yield Row(
            f"reboot-{node}", f"`systemctl reboot` of {node}",
            to(inject.reboot, node), hold=0, fresh=fresh, minimum=0, unspooled=lost,
        )  # fmt: skip
    for turn in range(len(nodes)):
        order = [*nodes[turn:], *nodes[:turn]]
        yield Row(
            f"power-all-{order[0]}-first",
            f"all machines lose their power at once; booted in the order {', '.join(order)}, 5 s apart",
            to(inject.power_cut, *nodes),
            to(inject.boot, *order, between=5),
            hold=5,
            fresh=MASTER_SECONDS,
            minimum=0,
            unspooled=1,
        )


def _networks(nodes: list[str]) -> Iterator[Row]:
    spool = read_mapping()[load_pipelines()["idfm"].stages["producer"].on]
    for node in nodes:
        # Cut off from the source nothing is polled.
        least, fresh = (0, MASTER_SECONDS) if node in spool else (1, WORKER_SECONDS)
        ways: dict[str, dict[str, bool]] = {"": {}, "-in": {"outgoing": False}, "-out": {"incoming": False}}
        words = {"": "both ways", "-in": "what is sent to it", "-out": "what it sends"}
        for way, options in ways.items():
            yield Row(
                f"cut-{node}{way}", f"{node}'s network is cut: {words[way]}",
                to(network.cut, node, **options),
                network.heal, fresh=fresh, minimum=least, unspooled=int(node in spool), gentle=True,
            )  # fmt: skip
        yield Row(
            f"loss-{node}", f"5 % of what {node} sends and is sent is lost",
            to(network.lose, node, 5), network.heal, gentle=True,
        )  # fmt: skip
        yield Row(
            f"delay-{node}", f"what {node} sends and is sent is delayed by {network.DELAY} ± {network.JITTER} ms",
            to(network.delay, node), network.heal, gentle=True,
        )  # fmt: skip
        yield Row(
            f"narrow-{node}", f"{node} has a line of {network.RATE.replace('mbit', ' Mbit/s')}",
            to(network.narrow, node), network.heal, gentle=True,
        )  # fmt: skip
    yield Row(
        "cut-master-worker_2", "master and worker_2 are cut from each other alone",
        to(network.cut_pair, "master", "worker_2"), network.heal, gentle=True,
    )  # fmt: skip
    port = load_catalog().services["zookeeper"].ports["client"]
    yield Row(
        "session-zookeeper",
        "the broker on worker_2 does not reach ZooKeeper for 30 s: its session expires",
        to(network.cut_pair, "master", "worker_2", port),
        network.heal,
        gentle=True,
    )


def _disks() -> Iterator[Row]:
    full = [("kafka", "master"), ("kafka", "worker_2"), ("hdfs-datanode", "worker_0"), ("influxdb", "worker_2")]
    full += [("berny-idfm", "master"), ("hdfs-namenode", "master")]
    for service, node in full:
        spool = service == "berny-idfm"
        yield Row(
            f"full-{service}-{node}", f"the disk of {service} on {node} is full",
            to(inject.fill, node, service), inject.empty_disks,
            minimum=0 if spool else 1, unspooled=MANY if spool else 0,
        )  # fmt: skip
    for service, node in (("hdfs-datanode", "worker_0"), ("kafka", "worker_2")):
        yield Row(
            f"wipe-{service}-{node}", f"{node} comes back with an empty disk for {service}",
            to(inject.wipe, node, service),
            to(inject.boot, node), hold=10,
        )  # fmt: skip


def _sources() -> Iterator[Row]:
    quiet = {"400", "401", "429", "500", "cut", "malformed", "empty", "slow"}
    refused = {"400", "401"}
    for kind, about in {
        "400": "the source knows no such line at this stop",
        "401": "the source refuses the key",
        "429": "the source says that there were too many calls",
        "500": "the source fails",
        "slow": "the source answers after 30 s",
        "cut": "the source's answers are cut short",
        "malformed": "the source answers garbage",
        "bad_parts": "the source's answers have visits that are none, and an error, beside good ones",
        "expired": "the source tells what is older than the bucket keeps",
        "empty": "the source has no train to tell of",
        "twice": "the source tells everything twice",
        "out_of_order": "the source tells the newest first",
    }.items():
        yield Row(
            f"source-{kind}", about, to(inject.source, kind),
            inject.heal_refused if kind in refused else inject.heal_source, minimum=0 if kind in quiet else 1,
            gentle=kind not in refused,
        )  # fmt: skip
    yield Row(
        "garbage", "no JSON, half of it, nothing, 3 MB and a point of 1999 on both topics", inject.garbage, hold=10
    )


def _others() -> Iterator[Row]:
    yield Row(
        "safemode-hdfs", "HDFS is in safe mode",
        to(inject.safe_mode, "enter"), to(inject.safe_mode, "leave"),
    )  # fmt: skip
    yield Row(
        "restart-all", "`systemctl restart` of everything, in an order that is drawn", nothing, hold=0,
        fresh=MASTER_SECONDS, minimum=0, draws=inject.restart_all,
    )  # fmt: skip
    for component in ("kafka", "hdfs", "spark", "influxdb"):
        yield Row(
            f"rolling-{component}", f"`site.yml` restarts {component}, whose configuration has changed",
            to(inject.rolling_restart, component), hold=0, minimum=1,
        )  # fmt: skip
    yield Row(
        "converge-killed", "`site.yml` is killed at ten moments that are drawn, and run again", nothing, hold=0,
        minimum=1, draws=inject.killed_convergence,
    )  # fmt: skip
    yield Row("none", "nothing at all", nothing, hold=15)


def _beyond() -> Iterator[Row]:
    """What this mapping can't hold without a person: the one copy of something was lost."""
    yield Row(
        "lost-influxdb-worker_2",
        "worker_2 comes back with an empty disk for InfluxDB; then `playbooks/restore.yml -e data=CLUSTER`",
        to(inject.lose_disks, "worker_2", "influxdb"),
        inject.restore,
        hold=10,
        gives_up="points older than the topics keep",
    )
    yield Row(
        "lost-disks-master",
        "master comes back with empty disks for everything; then `playbooks/restore.yml -e data=CLUSTER`",
        to(inject.lose_disks, "master"),
        inject.restore,
        hold=10,
        fresh=MASTER_SECONDS,
        minimum=0,
        unspooled=MANY,
        gives_up="files of HDFS since the last checkpoint, and what only the spool had",
    )


RANDOM_SECONDS = (5.0, 20.0)


def random_row(seconds: float, seed: int) -> Row:
    """Return a row that breaks, every few seconds, a machine, a process, a line and the source, each of them or none."""
    nodes = read_mapping()["all"]
    kinds = [list(_machines(nodes)), list(_processes()), list(_networks(nodes)), list(_sources())]

    def draw_all(lab: Lab, draw: random.Random, say: Say) -> tuple[list[str], int]:
        steps, unspooled, until = [], 0, time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            drawn: list[Row] = []
            for kind in kinds:
                # Nothing else is broken on a machine that is off: it could be neither broken nor healed.
                off = [node for node in nodes if drawn and drawn[0].name == f"off-{node}"]
                free = [row for row in kind if row.gentle and not any(node in row.name for node in off)]
                drawn += [draw.choice(free)] if draw.random() < 0.5 else []
            steps.append(" and ".join(row.name for row in drawn) or "none")
            unspooled += sum(row.unspooled for row in drawn)
            say(f"{steps[-1]}; {left:.0f} s left")
            for row in drawn:
                row.inject(lab)
            time.sleep(draw.uniform(*RANDOM_SECONDS))
            for row in drawn:
                row.heal(lab)
        return steps, unspooled

    about = "what was drawn of machines, processes, lines and the source, another every few seconds, then healed"
    return Row(f"random-{seed}", about, nothing, inject.heal_all, hold=0, fresh=MASTER_SECONDS, draws=draw_all)


def rows() -> dict[str, Row]:
    """Return all rows by name, in the order in which they are run."""
    nodes = read_mapping()["all"]
    groups = (_others(), _processes(), _sources(), _networks(nodes), _disks(), _machines(nodes), _beyond())
    found = {row.name: row for group in groups for row in group}
    return {"none": found.pop("none"), **found}
