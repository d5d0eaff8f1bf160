"""Ask by name: a service, a component, a pipeline's stage or the firewall."""

from __future__ import annotations

import subprocess
from pathlib import Path

from berny.probe import Cluster, Health, NotServing, get_json
from berny.probe.components import COMPONENTS, INSTANCES
from berny.probe.firewall import UNIT as FIREWALL
from berny.probe.firewall import WATCH, firewall


def names_here(cluster: Cluster) -> list[str]:
    """Return what runs on this node: services (of what is optional, what is installed), stages, the firewall if it is on."""
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
        return _ask_stage(cluster, name, stages[name][1])
    if name == FIREWALL:
        return _ask_firewall(cluster)
    services = cluster.facts["services"]
    here = name in services and cluster.here in cluster.nodes(name)
    probe = INSTANCES[name] if name in services else COMPONENTS[name]
    if name in COMPONENTS and not here:
        probe = COMPONENTS[name]
    members = [name] if name in services else [s for s, facts in services.items() if facts["component"] == name]
    version = services[members[0]]["version"]
    asked = [cluster.here] if here else list(cluster.nodes(members[0]))
    memory = memory_bytes(f"{name}.service") if here else None
    failure = ""
    for node in asked:
        try:
            whole, detail = probe(cluster, node)
            return Health(name, cluster.here if here else node, version, True, whole, detail, here, memory)
        except NotServing as error:
            failure = failure or str(error)
        except Exception as error:  # a malformed answer is an answer, too
            failure = failure or f"{type(error).__name__}: {error}"
    return Health(name, cluster.here if here else asked[0], version, False, False, failure, here, memory)


def _ask_firewall(cluster: Cluster) -> Health:
    serving, memory = True, memory_bytes(f"{FIREWALL}.service")
    try:
        whole, detail = firewall()
    except NotServing as error:
        serving, whole, detail = False, False, str(error)
    return Health(FIREWALL, cluster.here, "", serving, whole, detail, True, memory)


def _ask_stage(cluster: Cluster, name: str, stage: dict[str, object]) -> Health:
    nodes = stage["nodes"]
    assert isinstance(nodes, list)
    here = cluster.here in nodes
    node = cluster.here if here else nodes[0]
    memory = memory_bytes(f"{name}.service") if here else None
    try:
        text = str(get_json(cluster.machine(node), int(str(stage["metrics_port"])), "/metrics"))
    except NotServing as error:
        state = _systemctl(f"{name}.service", "ActiveState", "SubState") if here else []
        return Health(name, node, "", False, False, " ".join([*state, str(error)]), here, memory)
    samples = dict(line.rsplit(" ", 1) for line in text.splitlines() if line and not line.startswith("#"))
    ready, overdue = float(samples.get("berny_ready", 1)), float(samples.get("berny_overdue_seconds", 0))
    words = f"{float(samples.get('berny_records_out_total', 0)):.0f} out since its start"
    if overdue:
        words += f"; its next work is {overdue:.0f} s overdue"
    whole = bool(ready) and not overdue
    return Health(name, node, "", bool(ready), whole, words if ready else "not ready yet", here, memory)


def _systemctl(unit: str, *properties: str) -> list[str]:
    command = ["systemctl", "show", unit, f"--property={','.join(properties)}", "--value"]
    return subprocess.run(command, capture_output=True, text=True).stdout.split()


def memory_bytes(unit: str) -> int | None:
    """Return the resident memory of a unit's processes, or None where it does not run."""
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
