"""The probes of YARN and of the MapReduce history server."""

from __future__ import annotations

from berny.runtime.probe import Answer, Cluster, NotReady, Probe, get_json


def _running(cluster: Cluster) -> tuple[dict[str, int], Answer]:
    """Return, by host, when a running NodeManager last reported its health (its clock, ms), and whether none is missing."""
    host, port = cluster.endpoint("yarn-resourcemanager", "web")
    state = get_json(host, port, "/ws/v1/cluster/info")["clusterInfo"]["state"]
    if state != "STARTED":
        raise NotReady(f"{host}:{port} state is {state}")
    nodes = (get_json(host, port, "/ws/v1/cluster/nodes?states=RUNNING")["nodes"] or {}).get("node", [])
    running = {node["nodeHostName"]: int(node["lastHealthUpdate"]) for node in nodes}
    expected = {cluster.machine(node) for node in cluster.nodes("yarn-nodemanager")}
    missing = sorted(expected - set(running))
    words = f"{len(running)} of {len(expected)} NodeManagers" + (f", away: {', '.join(missing)}" if missing else "")
    return running, (not missing, words)


def resourcemanager(cluster: Cluster, node: str) -> Answer:
    """Ready if it is STARTED: it has recovered its state, and accepts clients and nodes."""
    return _running(cluster)[1]


def nodemanager(cluster: Cluster, node: str) -> Answer:
    """Ready if it reports itself healthy, and the ResourceManager has this process, not an earlier one, as RUNNING."""
    host, port = cluster.endpoint("yarn-nodemanager", "web", node)
    info = get_json(host, port, "/ws/v1/node/info")["nodeInfo"]
    if not info["nodeHealthy"]:
        raise NotReady(f"{host}:{port} is not healthy: {info['healthReport']}")
    running, answer = _running(cluster)
    if host not in running:
        raise NotReady(f"{host} is not registered with the ResourceManager; registered: {sorted(running) or 'none'}")
    if running[host] < int(info["nmStartupTime"]):
        raise NotReady(f"{host} is registered with the ResourceManager by an earlier process, not the current one")
    return answer


def historyserver(cluster: Cluster, node: str) -> Answer:
    """Ready if it reports when it was started."""
    host, port = cluster.endpoint("mapreduce-historyserver", "web", node)
    if not get_json(host, port, "/ws/v1/history/info")["historyInfo"]["startedOn"]:
        raise NotReady(f"{host}:{port} is not started")
    return True, f"{host}:{port} started"


def component(cluster: Cluster, node: str) -> Answer:
    """Ready if the ResourceManager has a NodeManager."""
    running, answer = _running(cluster)
    if not running:
        raise NotReady("the ResourceManager has no NodeManager")
    return answer


SERVICES: dict[str, Probe] = {
    "yarn-resourcemanager": resourcemanager,
    "yarn-nodemanager": nodemanager,
    "mapreduce-historyserver": historyserver,
}
