"""The probes of Spark."""

from __future__ import annotations

from typing import Any

from berny.runtime.probe import Answer, Cluster, NotReady, Probe, get_json


def _state(cluster: Cluster) -> dict[str, Any]:
    host, port = cluster.endpoint("spark-master", "web")
    state = get_json(host, port, "/json/")
    if not isinstance(state, dict) or state.get("status") != "ALIVE":
        raise NotReady(f"{host}:{port} status is {state.get('status') if isinstance(state, dict) else 'unknown'}")
    return state


def _workers(cluster: Cluster) -> tuple[dict[str, str], Answer]:
    """Return the hosts of ALIVE workers by the ids of their processes, and whether none is missing."""
    alive = {worker["id"]: worker["host"] for worker in _state(cluster)["workers"] if worker["state"] == "ALIVE"}
    expected = {cluster.machine(node) for node in cluster.nodes("spark-worker")}
    missing = sorted(expected - set(alive.values()))
    words = f"{len(set(alive.values()))} of {len(expected)} workers" + (
        f", away: {', '.join(missing)}" if missing else ""
    )
    return alive, (not missing, words)


def master(cluster: Cluster, node: str) -> Answer:
    """Ready if it is ALIVE (after a restart it first recovers)."""
    return _workers(cluster)[1]


def worker(cluster: Cluster, node: str) -> Answer:
    """Ready if its web UI responds and the master has this process, not an earlier one, as ALIVE."""
    host, port = cluster.endpoint("spark-worker", "web", node)
    own = get_json(host, port, "/json/")["id"]
    alive, answer = _workers(cluster)
    if own not in alive:
        raise NotReady(f"{host} is not registered with the master as {own}; registered: {sorted(alive) or 'none'}")
    return answer


def component(cluster: Cluster, node: str) -> Answer:
    """Ready if the master has a worker."""
    alive, answer = _workers(cluster)
    if not alive:
        raise NotReady("the master has no worker")
    return answer


SERVICES: dict[str, Probe] = {"spark-master": master, "spark-worker": worker}
