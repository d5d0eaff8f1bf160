"""The probes of HDFS, and the check of a pipeline's directories."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from berny.runtime.probe import TIMEOUT, Answer, Cluster, NotReady, Probe, exists, get_json


def _bean(host: str, port: int, name: str) -> dict[str, Any]:
    beans = get_json(host, port, f"/jmx?qry={name}")["beans"]
    if not beans:
        raise NotReady(f"{host}:{port} has no {name} yet")
    return dict(beans[0])


def _file_system(cluster: Cluster) -> tuple[dict[str, Any], dict[str, Any]]:
    host, port = cluster.endpoint("hdfs-namenode", "web")
    state = _bean(host, port, "Hadoop:service=NameNode,name=FSNamesystemState")
    return state, _bean(host, port, "Hadoop:service=NameNode,name=FSNamesystem")


def _health(cluster: Cluster) -> Answer:
    state, blocks = _file_system(cluster)
    expected = len(cluster.nodes("hdfs-datanode"))
    live, missing = state["NumLiveDataNodes"], blocks["MissingBlocks"]
    short = blocks["UnderReplicatedBlocks"]
    safe = state["FSState"] == "safeMode"
    detail = f"{live} of {expected} DataNodes, {short} blocks short of copies, {missing} missing"
    return not safe and live == expected and not short and not missing, detail + (", in safe mode" if safe else "")


def namenode(cluster: Cluster, node: str) -> Answer:
    """Ready if it responds and is active, even in safe mode, which it can't leave before DataNodes register."""
    host, port = cluster.endpoint("hdfs-namenode", "web", node)
    if _bean(host, port, "Hadoop:service=NameNode,name=NameNodeStatus")["State"] != "active":
        raise NotReady(f"{host}:{port} is not active")
    return _health(cluster)


def component(cluster: Cluster, node: str) -> Answer:
    """Ready if HDFS is out of safe mode and a file can be written."""
    state, _ = _file_system(cluster)
    host, port = cluster.endpoint("hdfs-namenode", "web")
    if state["FSState"] != "Operational":
        raise NotReady(f"{host}:{port} is in safe mode")
    if not state["NumLiveDataNodes"]:
        raise NotReady(f"{host}:{port} has no live DataNode")
    _write_probe_file(cluster, host, port)
    return _health(cluster)


def _write_probe_file(cluster: Cluster, host: str, port: int) -> None:
    from hdfs import InsecureClient
    from hdfs.util import HdfsError
    from requests import RequestException

    client = InsecureClient(f"http://{host}:{port}", user="probe", timeout=TIMEOUT)
    path = f"/tmp/.berny-probe-{cluster.machine(cluster.here)}"
    try:
        client.write(path, data=b"berny", overwrite=True, replication=1)
        client.delete(path)
    except (HdfsError, RequestException) as error:
        raise NotReady(f"{host}:{port} can't write {path}: {str(error).splitlines()[0]}") from None


def datanode(cluster: Cluster, node: str) -> Answer:
    """Ready if it responds, has a block pool and sends heartbeats to the NameNode."""
    host, port = cluster.endpoint("hdfs-datanode", "web", node)
    info = _bean(host, port, "Hadoop:service=DataNode,name=DataNodeInfo")
    actors = str(info.get("BPServiceActorInfo", ""))
    if "RUNNING" not in actors or '"LastHeartbeat"' not in actors:
        raise NotReady(f"{host}:{port} is not registered with the NameNode: {actors[:120] or 'no block pool'}")
    return _health(cluster)


def secondarynamenode(cluster: Cluster, node: str) -> Answer:
    """Ready if its web UI responds; the detail is the age of the last checkpoint."""
    host, port = cluster.endpoint("hdfs-secondarynamenode", "web", node)
    info = _bean(host, port, "Hadoop:service=SecondaryNameNode,name=SecondaryNameNodeInfo")
    return True, f"last checkpoint {info.get('LastCheckpointDeltaMs', -1000) // 1000} s ago"


def resources(cluster: Cluster, pipeline: dict[str, Any]) -> list[str]:
    """Return the directories of a pipeline that do not exist."""
    host, port = cluster.endpoint("hdfs-namenode", "web")
    return [
        f"the directory {path} of HDFS does not exist"
        for path in pipeline["resources"].get("hdfs", {})
        if not exists(host, port, f"/webhdfs/v1{quote(path)}?op=GETFILESTATUS&user.name=probe")
    ]


SERVICES: dict[str, Probe] = {
    "hdfs-namenode": namenode,
    "hdfs-datanode": datanode,
    "hdfs-secondarynamenode": secondarynamenode,
}
