"""The probes of HBase, and the check of a pipeline's tables."""

from __future__ import annotations

import time
from typing import Any

from berny.runtime.probe import TIMEOUT, Answer, Cluster, NotReady, Probe, get_json

ENABLED = b"\x08\x00"
"""``table:state`` of hbase:meta: the message TableState of HBase's protocol, with the first of its states."""
DAUGHTER = b"info:splitA"
"""What a region has that was split: it is there until its daughters have copied what they refer to."""


def _bean(host: str, port: int, name: str) -> dict[str, Any]:
    """Return a bean. After a region was opened or closed, HBase has no beans for half a second."""
    for pause in (0.4, 0.4, 0.0):
        beans = get_json(host, port, f"/jmx?qry={name}")["beans"]
        if beans:
            return dict(beans[0])
        time.sleep(pause)
    raise NotReady(f"{host}:{port} has no {name} yet")


def _servers(cluster: Cluster) -> dict[str, str]:
    """Return the names ``HOST,PORT,START`` of the region servers that are registered with the master, by host."""
    host, port = cluster.endpoint("hbase-master", "web")
    live = get_json(host, port, "/api/v1/admin/cluster_metrics/live_servers")["data"]
    names = [str(server["server_name"]["server_name"]) for server in live]
    return {name.split(",")[0]: name for name in names}


def _meta(cluster: Cluster, node: str | None = None) -> dict[bytes, dict[bytes, bytes]]:
    """Return the rows of hbase:meta, read through Thrift on ``node`` or on the first that runs it."""
    import happybase
    from thriftpy2.thrift import TException

    host, port = cluster.endpoint("hbase-thrift", "thrift", node)
    # After a time-out, the scanner is closed with a request of its own.
    columns = [b"info:state", b"info:server", b"info:serverstartcode", DAUGHTER, b"table:state"]
    try:
        connection = happybase.Connection(host, port, timeout=int(TIMEOUT * 500), autoconnect=False)
        connection.open()
        try:
            return dict(connection.table("hbase:meta").scan(columns=columns))
        finally:
            connection.close()
    except (TException, OSError) as error:
        said = getattr(error, "message", None) or str(error) or type(error).__name__
        words = said.decode(errors="replace") if isinstance(said, bytes) else str(said)
        raise NotReady(f"{host}:{port} scan of hbase:meta: {words.splitlines()[0][:200]}") from None


def _regions(meta: dict[bytes, dict[bytes, bytes]]) -> list[bytes]:
    """Return the rows of regions, without those that were split."""
    return [row for row, cells in meta.items() if b"," in row and DAUGHTER not in cells]


def unsettled(meta: dict[bytes, dict[bytes, bytes]], servers: set[str]) -> list[str]:
    """Return the regions that should be open but are not open on a live server; ``servers`` are names HOST,PORT,START."""
    found = []
    for row, cells in meta.items():
        table, comma, _ = row.decode(errors="replace").partition(",")
        if not comma:
            continue
        state = cells.get(b"info:state", b"")
        enabled = meta.get(table.encode(), {}).get(b"table:state", ENABLED) == ENABLED
        started = int.from_bytes(cells.get(b"info:serverstartcode", b""), "big")
        server = f"{cells.get(b'info:server', b'').decode().replace(':', ',')},{started}"
        if DAUGHTER in cells or (state == b"CLOSED" and not enabled):
            continue
        if state == b"OPEN" and enabled and server in servers:
            continue
        found.append(f"{table} {state.decode().lower() or 'unknown'}")
    return found


def _healthy(cluster: Cluster, servers: dict[str, str], meta: dict[bytes, dict[bytes, bytes]]) -> Answer:
    expected = {cluster.machine(node) for node in cluster.nodes("hbase-regionserver")}
    missing, moving = sorted(expected - set(servers)), unsettled(meta, set(servers.values()))
    detail = f"{len(servers)} of {len(expected)} region servers, {len(_regions(meta))} regions"
    detail += f", {len(moving)} in transition"
    detail += f", away: {', '.join(missing)}" if missing else ""
    detail += f": {', '.join(moving[:3])}" if moving else ""
    return not missing and not moving, detail


def _seen_by_others(cluster: Cluster, servers: dict[str, str]) -> Answer:
    """Return the health of the component; not healthy if Thrift, which it is read through, is not ready."""
    try:
        return _healthy(cluster, servers, _meta(cluster))
    except NotReady as error:
        return False, str(error)


def master(cluster: Cluster, node: str) -> Answer:
    """Ready if it is active and initialized."""
    host, port = cluster.endpoint("hbase-master", "web", node)
    bean = _bean(host, port, "Hadoop:service=HBase,name=Master,sub=Server")
    if bean.get("tag.isActiveMaster") != "true":
        raise NotReady(f"{host}:{port} is not active")
    if not bean.get("masterFinishedInitializationTime"):
        raise NotReady(f"{host}:{port} is initializing")
    return _seen_by_others(cluster, _servers(cluster))


def regionserver(cluster: Cluster, node: str) -> Answer:
    """Ready if this process, not an earlier one, is registered with the master."""
    host, port = cluster.endpoint("hbase-regionserver", "web", node)
    began = _bean(host, port, "java.lang:type=Runtime")["StartTime"]
    servers = _servers(cluster)
    if host not in servers:
        raise NotReady(f"{host} is not registered with the master; registered: {sorted(servers) or 'none'}")
    if int(servers[host].rsplit(",", 1)[1]) < began:
        raise NotReady(f"{host} is registered with the master by an earlier process, not the current one")
    return _seen_by_others(cluster, servers)


def thrift(cluster: Cluster, node: str) -> Answer:
    """Ready if it can read hbase:meta, which is on a region server."""
    meta = _meta(cluster, node)
    try:
        return _healthy(cluster, _servers(cluster), meta)
    except NotReady as error:
        return False, str(error)


def component(cluster: Cluster, node: str) -> Answer:
    """The component: Thrift is ready, wherever it runs, and some region is open. Else what differs may be the repair."""
    meta = _meta(cluster)
    try:
        servers = _servers(cluster)
    except NotReady as error:
        return False, str(error)
    healthy, detail = _healthy(cluster, servers, meta)
    if len(unsettled(meta, set(servers.values()))) == len(_regions(meta)):
        raise NotReady(f"no region is open: {detail}")
    return healthy, detail


def resources(cluster: Cluster, pipeline: dict[str, Any]) -> list[str]:
    """Return the tables of a pipeline that do not exist, or that are disabled."""
    meta = _meta(cluster)
    states = {name: meta.get(name.encode(), {}).get(b"table:state") for name in pipeline["resources"].get("hbase", {})}
    return [
        f"the table {name} of HBase {'is disabled' if state else 'does not exist'}"
        for name, state in states.items()
        if state != ENABLED
    ]


SERVICES: dict[str, Probe] = {"hbase-master": master, "hbase-regionserver": regionserver, "hbase-thrift": thrift}
