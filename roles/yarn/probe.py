"""How the services of YARN are asked, and the history server of MapReduce."""

from __future__ import annotations

from berny.runtime.probe import Answer, Cluster, NotServing, Probe, get_json


def _running(cluster: Cluster) -> tuple[dict[str, int], Answer]:
    """Return, by host, when a running NodeManager last told of its health (its clock, ms), and whether all are there."""
    host, port = cluster.endpoint("yarn-resourcemanager", "web")
    state = get_json(host, port, "/ws/v1/cluster/info")["clusterInfo"]["state"]
    if state != "STARTED":
        raise NotServing(f"{host}:{port} state is {state}")
    nodes = (get_json(host, port, "/ws/v1/cluster/nodes?states=RUNNING")["nodes"] or {}).get("node", [])
    running = {node["nodeHostName"]: int(node["lastHealthUpdate"]) for node in nodes}
    expected = {cluster.machine(node) for node in cluster.nodes("yarn-nodemanager")}
    missing = sorted(expected - set(running))
    words = f"{len(running)} of {len(expected)} NodeManagers" + (f", away: {', '.join(missing)}" if missing else "")
    return running, (not missing, words)


def resourcemanager(cluster: Cluster, node: str) -> Answer:
    """It is STARTED: its state is read, and clients and nodes are answered."""
    return _running(cluster)[1]


def nodemanager(cluster: Cluster, node: str) -> Answer:
    """It is healthy in its own eyes and RUNNING in the ResourceManager's, and by this process: not by one before it."""
    host, port = cluster.endpoint("yarn-nodemanager", "web", node)
    info = get_json(host, port, "/ws/v1/node/info")["nodeInfo"]
    if not info["nodeHealthy"]:
        raise NotServing(f"{host}:{port} is not healthy: {info['healthReport']}")
    running, answer = _running(cluster)
    if host not in running:
        raise NotServing(f"{host} is not registered with the ResourceManager; it knows {sorted(running) or 'none'}")
    if running[host] < int(info["nmStartupTime"]):
        raise NotServing(
            f"{host} is registered with the ResourceManager by an earlier process, not by the one that runs"
        )
    return answer


def historyserver(cluster: Cluster, node: str) -> Answer:
    """It says since when it is started."""
    host, port = cluster.endpoint("mapreduce-historyserver", "web", node)
    if not get_json(host, port, "/ws/v1/history/info")["historyInfo"]["startedOn"]:
        raise NotServing(f"{host}:{port} is not started")
    return True, f"{host}:{port} started"


def component(cluster: Cluster, node: str) -> Answer:
    """The component: the ResourceManager has a NodeManager."""
    running, answer = _running(cluster)
    if not running:
        raise NotServing("the ResourceManager has no NodeManager")
    return answer


SERVICES: dict[str, Probe] = {
    "yarn-resourcemanager": resourcemanager,
    "yarn-nodemanager": nodemanager,
    "mapreduce-historyserver": historyserver,
}
