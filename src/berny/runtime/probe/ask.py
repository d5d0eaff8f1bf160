"""Probe by name: a service, a component, a pipeline's stage or the firewall."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from berny.runtime.probe import Cluster, Health, NotReady, Probe, get_json
from berny.runtime.probe.firewall import UNIT as FIREWALL
from berny.runtime.probe.firewall import WATCH, firewall
from berny.runtime.probe.load import component_probe, load, service_probe
from berny.runtime.timer import read_state

CONFIGURATION = Path("/etc/berny")


def names_here(cluster: Cluster) -> list[str]:
    """Return the names of everything on this node: services (optional ones if installed), stages, and an active firewall."""
    services = [
        name
        for name, facts in cluster.facts["services"].items()
        if cluster.here in facts["nodes"]
        and (not facts.get("optional") or Path(f"/etc/systemd/system/{name}.service").exists())
    ]
    stages = [
        stage["unit"]
        for pipeline in cluster.facts["pipelines"].values()
        for stage in pipeline["stages"].values()
        if cluster.here in stage["nodes"] and Path(f"/etc/systemd/system/{stage['unit']}.service").exists()
    ]
    return services + stages + ([FIREWALL] if WATCH.exists() else [])


def ask(cluster: Cluster, name: str) -> Health:
    """Return the health of a service, component or stage, or of this node's firewall.

    Raises:
        KeyError: nothing has that name.
    """
    stages = {
        stage["unit"]: (pipeline, stage)
        for pipeline in cluster.facts["pipelines"].values()
        for stage in pipeline["stages"].values()
    }
    if name in stages:
        return _ask_stage(cluster, name, *stages[name])
    if name == FIREWALL:
        return _ask_firewall(cluster)
    services = cluster.facts["services"]
    here = name in services and cluster.here in cluster.nodes(name)
    member = name if name in services else _asked_for(cluster, name)
    nodes = [cluster.here] if here else cluster.nodes(member)
    if name in components(cluster) and not here:
        return _ask_nodes(cluster, name, member, lambda: component_probe(name), nodes, here)
    return _ask_nodes(cluster, name, member, lambda: service_probe(services[name]["component"], name), nodes, here)


def ask_component(cluster: Cluster, name: str) -> Health:
    """Return the health of a component, which is ready if it is ready on any node. This node is probed first if it runs it.

    Raises:
        KeyError: no component has that name.
    """
    member = _asked_for(cluster, name)
    nodes = sorted(cluster.nodes(member), key=lambda node: node != cluster.here)
    return _ask_nodes(cluster, name, member, lambda: component_probe(name), nodes, False)


def components(cluster: Cluster) -> set[str]:
    """Return the components of the cluster."""
    return {str(facts["component"]) for facts in cluster.facts["services"].values()}


def _asked_for(cluster: Cluster, component: str) -> str:
    """Return the service on whose nodes a component is probed.

    Raises:
        KeyError: no component has that name.
    """
    members = [name for name, facts in cluster.facts["services"].items() if facts["component"] == component]
    if not members:
        raise KeyError(component)
    with suppress(NotReady):
        probes = load(component)
        return members[0] if probes.component else next(iter(probes.services))
    return members[0]


def _ask_nodes(
    cluster: Cluster, name: str, member: str, find: Callable[[], Probe], asked: Iterable[str], here: bool
) -> Health:
    """Return the health that the first ready node reports; without a probe no node is ready."""
    version = cluster.facts["services"][member]["version"]
    memory = memory_bytes(f"{name}.service") if here else None
    asked = list(asked)
    failure = ""
    for node in asked:
        try:
            healthy, detail = find()(cluster, node)
            return Health(name, cluster.here if here else node, version, True, healthy, detail, here, memory)
        except NotReady as error:
            failure = failure or str(error)
        except Exception as error:  # malformed responses make a service not ready, too
            failure = failure or f"{type(error).__name__}: {error}"
    return Health(name, cluster.here if here else asked[0], version, False, False, failure, here, memory)


def _ask_firewall(cluster: Cluster) -> Health:
    ready, memory = True, memory_bytes(f"{FIREWALL}.service")
    try:
        healthy, detail = firewall()
    except NotReady as error:
        ready, healthy, detail = False, False, str(error)
    return Health(FIREWALL, cluster.here, "", ready, healthy, detail, True, memory)


def _ask_stage(cluster: Cluster, name: str, pipeline: dict[str, Any], stage: dict[str, Any]) -> Health:
    """Return a stage's health: ready if its metrics say so, healthy if its resources exist and it missed nothing."""
    nodes = stage["nodes"]
    here = cluster.here in nodes
    node = cluster.here if here else nodes[0]
    memory = memory_bytes(f"{name}.service") if here else None
    if here and (CONFIGURATION / name / "stopped").exists():
        start = f"ansible-playbook playbooks/pipelines.yml -e pipeline={pipeline['name']} -e do=start"
        detail = f"stopped by a person; start it: {start}"
        return Health(name, node, "", False, False, detail, here, memory, stopped=True)
    lacking = _lacking(cluster, pipeline, stage)
    if stage.get("kind") == "timer":
        return _ask_timer(name, node, Path(str(stage["state"])) if here else None, lacking, memory)
    try:
        text = str(get_json(cluster.machine(node), int(str(stage["metrics_port"])), "/metrics"))
    except NotReady as error:
        state = _systemctl(f"{name}.service", "ActiveState", "SubState") if here else []
        return Health(name, node, "", False, False, "; ".join([" ".join([*state, str(error)]), *lacking]), here, memory)
    samples = dict(line.rsplit(" ", 1) for line in text.splitlines() if line and not line.startswith("#"))
    ready, overdue = float(samples.get("berny_ready", 1)), float(samples.get("berny_overdue_seconds", 0))
    words = [
        f"{float(samples.get('berny_records_out_total', 0)):.0f} out since its start" if ready else "not ready yet",
        *(f"waits for {what}" for name in samples for what in re.findall(r'^berny_waits{what="([^"]*)"}', name)),
    ]
    wrong = [f"its next work is {overdue:.0f} s overdue"] if overdue else []
    wrong += [*lacking, *_skipped(samples, pipeline["name"])]
    return Health(name, node, "", bool(ready), bool(ready) and not wrong, "; ".join(words + wrong), here, memory)


def _ask_timer(name: str, node: str, state: Path | None, lacking: list[str], memory: int | None) -> Health:
    """Return a timer's health: ready while its timer is active, healthy if its last run succeeded."""
    if not state:
        return Health(name, node, "", False, False, f"is a timer: run berny-probe on {node}", False, memory)
    (timer,) = _systemctl(f"{name}.timer", "ActiveState") or ["unknown"]
    result = (_systemctl(f"{name}.service", "Result") or ["unknown"])[0]
    done = read_state(state).completed_at
    words = [f"its last complete run ended at {done}" if done else "it has not completed a run yet"]
    wrong = [f"its timer is {timer}"] if timer != "active" else []
    wrong += [f"its last run failed ({result}): journalctl -u {name}"] if result != "success" else []
    wrong += lacking
    return Health(name, node, "", timer == "active", not wrong, "; ".join(words + wrong), True, memory)


def _lacking(cluster: Cluster, pipeline: dict[str, Any], stage: dict[str, Any]) -> list[str]:
    """Return the pipeline's resources that are missing in the components that a stage needs."""
    found = []
    for component in stage["needs"]:
        try:
            resources = load(component).resources
            found += resources(cluster, pipeline) if resources else []
        except NotReady as error:
            found.append(str(error))
        except Exception as error:  # a malformed response, or a mistake in one component's probe
            found.append(f"{component}: {type(error).__name__}: {error}")
    return [f"{words}; site.yml creates it" if words.endswith(" does not exist") else words for words in found]


def _skipped(samples: dict[str, str], pipeline: str) -> list[str]:
    """Return what a stage has missed and nobody has acknowledged."""
    found = []
    for name, value in samples.items():
        if name.startswith("berny_skipped_records{"):
            of = dict(re.findall(r'(\w+)="([^"]*)"', name))
            found.append(
                f"{float(value):.0f} records of {of['topic']} were gone before they were read (partition "
                f"{of['partition']}, offsets {of['first']} to {of['last']})"
            )
    if found:
        found.append(
            f"to acknowledge: ansible-playbook playbooks/pipelines.yml -e pipeline={pipeline} -e do=acknowledge"
        )
    return found


def _systemctl(unit: str, *properties: str) -> list[str]:
    command = ["systemctl", "show", unit, f"--property={','.join(properties)}", "--value"]
    return subprocess.run(command, capture_output=True, text=True).stdout.split()


def memory_bytes(unit: str) -> int | None:
    """Return the resident memory of a unit's processes, or None if it does not run."""
    group = _systemctl(unit, "ControlGroup")
    if not group:
        return None
    for root in ("/sys/fs/cgroup/systemd", "/sys/fs/cgroup"):
        folder = Path(root + group[0])
        if folder.is_dir():
            pids = {pid for file in folder.rglob("cgroup.procs") for pid in file.read_text().split()}
            return sum(_resident(pid) for pid in pids) or None
    return None


def _resident(pid: str) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096
    except OSError:
        return 0
