"""The probe of the node exporter."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from berny.runtime.probe import Answer, Cluster, NotReady, Probe, get_json

SERVICE = "node-exporter"
BUILD = "node_exporter_build_info{"


def node_exporter(cluster: Cluster, node: str) -> Answer:
    """Ready if its metrics have the exporter's build; healthy if those of every node have."""
    detail = _series(cluster, node)
    others = [other for other in cluster.nodes(SERVICE) if other != node]
    with ThreadPoolExecutor(max(len(others), 1)) as pool:
        failures = pool.map(lambda other: _failure(cluster, other), others)
        missing = [other for other, failure in zip(others, failures, strict=True) if failure]
    if missing:
        return False, f"{detail}; no response from {', '.join(missing)}"
    return True, detail


def _series(cluster: Cluster, node: str) -> str:
    """Return the detail for an exporter: its number of series.

    Raises:
        NotReady: it does not respond, or another program does.
    """
    host, port = cluster.endpoint(SERVICE, "http", node)
    lines = str(get_json(host, port, "/metrics")).splitlines()
    if not any(line.startswith(BUILD) for line in lines):
        raise NotReady(f"{host}:{port}/metrics has no node_exporter_build_info: another program responds")
    return f"{host}:{port} serves {sum(not line.startswith('#') for line in lines)} series"


def _failure(cluster: Cluster, node: str) -> str:
    """Return the error of an exporter, or an empty string."""
    try:
        _series(cluster, node)
    except NotReady as error:
        return str(error)
    return ""


SERVICES: dict[str, Probe] = {SERVICE: node_exporter}
