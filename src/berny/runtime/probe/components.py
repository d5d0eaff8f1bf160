"""How each service is asked. A probe returns (whole, detail) and raises NotServing where the instance does not serve."""

from __future__ import annotations

import base64
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from berny.runtime.probe import TIMEOUT, Cluster, NotServing, exists, get_json

Answer = tuple[bool, str]
Resources = Callable[[Cluster, dict[str, Any]], list[str]]
Probe = Callable[[Cluster, str], Answer]
INFLUXDB_TOKEN = Path("/etc/berny/influxdb/read.token")
GRAFANA_SECRETS = Path("/etc/berny/grafana/grafana.env")


def zookeeper(cluster: Cluster, node: str) -> Answer:
    """``srvr``: a server that can't reach its quorum answers that it is not serving requests."""
    host, port = cluster.endpoint("zookeeper", "client", node)
    said = _four_letters(host, port, "srvr")
    mode = next((line for line in said.splitlines() if line.startswith("Mode: ")), None)
    if not mode:
        raise NotServing(f"{host}:{port} srvr: {said.strip() or 'no answer'}")
    return True, f"{host}:{port} {mode.lower()}"


def _four_letters(host: str, port: int, word: str) -> str:
    try:
        with socket.create_connection((host, port), TIMEOUT) as connection:
            connection.sendall(word.encode())
            answer = b""
            while chunk := connection.recv(4096):
                answer += chunk
            return answer.decode()
    except OSError as error:
        raise NotServing(f"{host}:{port} {word}: {error}") from None


def kafka(cluster: Cluster, node: str) -> Answer:
    """The broker itself is asked for metadata: it is registered, and every partition has a leader."""
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient

    host, port = cluster.endpoint("kafka", "broker", node)
    client = AdminClient({"bootstrap.servers": f"{host}:{port}", "socket.timeout.ms": 4000, "log_level": 0})
    try:
        metadata = client.list_topics(timeout=TIMEOUT)
    except KafkaException as error:
        raise NotServing(f"{host}:{port} metadata: {error.args[0].str()}") from None
    registered = {str(broker.host) for broker in metadata.brokers.values()}
    expected = {cluster.machine(other) for other in cluster.nodes("kafka")}
    if host not in registered:
        raise NotServing(f"{host}:{port} answers, but is not registered; registered: {sorted(registered) or 'none'}")
    partitions = [
        (f"{topic.topic}-{number}", partition)
        for topic in metadata.topics.values()
        for number, partition in topic.partitions.items()
    ]
    leaderless = [name for name, partition in partitions if partition.leader == -1]
    if leaderless:
        raise NotServing(f"{host}:{port} {len(leaderless)} partitions have no leader: {', '.join(leaderless[:3])}")
    behind = [name for name, partition in partitions if set(partition.isrs) != set(partition.replicas)]
    missing = sorted(expected - registered)
    detail = f"{len(registered)} of {len(expected)} brokers, {len(partitions)} partitions, {len(behind)} behind"
    if missing:
        detail += f", away: {', '.join(missing)}"
    return not missing and not behind, detail


def _bean(host: str, port: int, name: str) -> dict[str, Any]:
    beans = get_json(host, port, f"/jmx?qry={name}")["beans"]
    if not beans:
        raise NotServing(f"{host}:{port} has no {name} yet")
    return dict(beans[0])


def _file_system(cluster: Cluster) -> tuple[dict[str, Any], dict[str, Any]]:
    host, port = cluster.endpoint("hdfs-namenode", "web")
    state = _bean(host, port, "Hadoop:service=NameNode,name=FSNamesystemState")
    return state, _bean(host, port, "Hadoop:service=NameNode,name=FSNamesystem")


def _hdfs_whole(cluster: Cluster) -> Answer:
    state, blocks = _file_system(cluster)
    expected = len(cluster.nodes("hdfs-datanode"))
    live, missing = state["NumLiveDataNodes"], blocks["MissingBlocks"]
    short = blocks["UnderReplicatedBlocks"]
    safe = state["FSState"] == "safeMode"
    detail = f"{live} of {expected} DataNodes, {short} blocks short of copies, {missing} missing"
    return not safe and live == expected and not short and not missing, detail + (", in safe mode" if safe else "")


def namenode(cluster: Cluster, node: str) -> Answer:
    """The instance serves when it answers; on its own it can't leave safe mode before DataNodes come."""
    host, port = cluster.endpoint("hdfs-namenode", "web", node)
    if _bean(host, port, "Hadoop:service=NameNode,name=NameNodeStatus")["State"] != "active":
        raise NotServing(f"{host}:{port} is not active")
    return _hdfs_whole(cluster)


def hdfs(cluster: Cluster, node: str) -> Answer:
    """The component: out of safe mode, and a file can be written and read back."""
    state, _ = _file_system(cluster)
    host, port = cluster.endpoint("hdfs-namenode", "web")
    if state["FSState"] != "Operational":
        raise NotServing(f"{host}:{port} is in safe mode")
    if not state["NumLiveDataNodes"]:
        raise NotServing(f"{host}:{port} knows no live DataNode")
    _write_probe_file(cluster, host, port)
    return _hdfs_whole(cluster)


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
        raise NotServing(f"{host}:{port} can't write {path}: {str(error).splitlines()[0]}") from None


def datanode(cluster: Cluster, node: str) -> Answer:
    """The DataNode answers, has a block pool and heartbeats with the NameNode."""
    host, port = cluster.endpoint("hdfs-datanode", "web", node)
    info = _bean(host, port, "Hadoop:service=DataNode,name=DataNodeInfo")
    actors = str(info.get("BPServiceActorInfo", ""))
    if "RUNNING" not in actors or '"LastHeartbeat"' not in actors:
        raise NotServing(f"{host}:{port} is not registered with the NameNode: {actors[:120] or 'no block pool'}")
    return _hdfs_whole(cluster)


def secondarynamenode(cluster: Cluster, node: str) -> Answer:
    """Its page answers; its age of checkpoint is told."""
    host, port = cluster.endpoint("hdfs-secondarynamenode", "web", node)
    info = _bean(host, port, "Hadoop:service=SecondaryNameNode,name=SecondaryNameNodeInfo")
    return True, f"last checkpoint {info.get('LastCheckpointDeltaMs', -1000) // 1000} s ago"


def _yarn_running(cluster: Cluster) -> tuple[dict[str, int], Answer]:
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
    return _yarn_running(cluster)[1]


def nodemanager(cluster: Cluster, node: str) -> Answer:
    """It is healthy in its own eyes and RUNNING in the ResourceManager's, and by this process: not by one before it."""
    host, port = cluster.endpoint("yarn-nodemanager", "web", node)
    info = get_json(host, port, "/ws/v1/node/info")["nodeInfo"]
    if not info["nodeHealthy"]:
        raise NotServing(f"{host}:{port} is not healthy: {info['healthReport']}")
    running, answer = _yarn_running(cluster)
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


def yarn(cluster: Cluster, node: str) -> Answer:
    """The component: the ResourceManager has a NodeManager."""
    running, answer = _yarn_running(cluster)
    if not running:
        raise NotServing("the ResourceManager has no NodeManager")
    return answer


def _spark_state(cluster: Cluster) -> dict[str, Any]:
    host, port = cluster.endpoint("spark-master", "web")
    state = get_json(host, port, "/json/")
    if not isinstance(state, dict) or state.get("status") != "ALIVE":
        raise NotServing(f"{host}:{port} status is {state.get('status') if isinstance(state, dict) else 'unknown'}")
    return state


def _spark_workers(cluster: Cluster) -> tuple[dict[str, str], Answer]:
    """Return the hosts of living workers by the ids that their processes gave themselves, and whether all are there."""
    alive = {worker["id"]: worker["host"] for worker in _spark_state(cluster)["workers"] if worker["state"] == "ALIVE"}
    expected = {cluster.machine(node) for node in cluster.nodes("spark-worker")}
    missing = sorted(expected - set(alive.values()))
    words = f"{len(set(alive.values()))} of {len(expected)} workers" + (
        f", away: {', '.join(missing)}" if missing else ""
    )
    return alive, (not missing, words)


def spark_master(cluster: Cluster, node: str) -> Answer:
    """The master is ALIVE (after a restart it first recovers)."""
    return _spark_workers(cluster)[1]


def spark_worker(cluster: Cluster, node: str) -> Answer:
    """Its own page answers and the master has this very process as ALIVE, not one before it."""
    host, port = cluster.endpoint("spark-worker", "web", node)
    own = get_json(host, port, "/json/")["id"]
    alive, answer = _spark_workers(cluster)
    if own not in alive:
        raise NotServing(f"{host} is not registered with the master as {own}; it knows {sorted(alive) or 'none'}")
    return answer


def spark(cluster: Cluster, node: str) -> Answer:
    """The component: the master has a worker."""
    alive, answer = _spark_workers(cluster)
    if not alive:
        raise NotServing("the master has no worker")
    return answer


def influxdb(cluster: Cluster, node: str) -> Answer:
    """Where the read-only token can be read, an authenticated query; else the server's own health."""
    host, port = cluster.endpoint("influxdb", "http", node)
    try:
        token = INFLUXDB_TOKEN.read_text().strip()
    except OSError:
        token = ""
    if not token:
        status = get_json(host, port, "/health").get("status")
        if status != "pass":
            raise NotServing(f"{host}:{port}/health is {status}")
        return True, f"{host}:{port} healthy"
    query = b"buckets() |> limit(n: 1)"
    headers = {"Authorization": f"Token {token}", "Content-Type": "application/vnd.flux"}
    get_json(host, port, "/api/v2/query?org=berny", headers, query)
    return True, f"{host}:{port} answers an authenticated query"


def grafana(cluster: Cluster, node: str) -> Answer:
    """Its own health and, where the admin's password can be read, that of its datasource."""
    host, port = cluster.endpoint("grafana", "http", node)
    health = get_json(host, port, "/api/health")
    if not isinstance(health, dict) or health.get("database") != "ok":
        raise NotServing(f"{host}:{port}/api/health is {health}")
    detail = f"{host}:{port} healthy, version {health.get('version')}"
    try:
        lines = dict(line.split("=", 1) for line in GRAFANA_SECRETS.read_text().splitlines() if "=" in line)
    except OSError:
        return True, detail
    words = base64.b64encode(f"admin:{lines['GF_SECURITY_ADMIN_PASSWORD']}".encode()).decode()
    try:
        source = get_json(host, port, "/api/datasources/uid/influxdb/health", {"Authorization": f"Basic {words}"})
    except NotServing as error:
        if " answers 401" in str(error):
            return True, f"{detail}, but its admin has another password than the secrets file's: run site.yml"
        raise
    if not isinstance(source, dict) or source.get("status") != "OK":
        raise NotServing(f"{host}:{port} its datasource influxdb: {source}")
    return True, f"{detail}, its datasource answers"


def topics(cluster: Cluster, pipeline: dict[str, Any]) -> list[str]:
    """Return the topics of a pipeline that brokers do not know."""
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient

    servers = ",".join("{}:{}".format(*cluster.endpoint("kafka", "broker", node)) for node in cluster.nodes("kafka"))
    client = AdminClient({"bootstrap.servers": servers, "socket.timeout.ms": 4000, "log_level": 0})
    try:
        known = client.list_topics(timeout=TIMEOUT).topics
    except KafkaException as error:
        raise NotServing(f"{servers} metadata: {error.args[0].str()}") from None
    return [f"the topic {topic} does not exist" for topic in pipeline["resources"].get("topics", {}) if topic not in known]


def directories(cluster: Cluster, pipeline: dict[str, Any]) -> list[str]:
    """Return the directories of a pipeline that are not in HDFS."""
    host, port = cluster.endpoint("hdfs-namenode", "web")
    return [
        f"the directory {path} of HDFS does not exist"
        for path in pipeline["resources"].get("hdfs", {})
        if not exists(host, port, f"/webhdfs/v1{quote(path)}?op=GETFILESTATUS&user.name=probe")
    ]


def buckets(cluster: Cluster, pipeline: dict[str, Any]) -> list[str]:
    """Return the buckets of a pipeline that are not in InfluxDB; nothing where the read-only token can't be read.

    The token reads these buckets alone: one that was deleted and created by hand has to be replaced, too.
    """
    try:
        headers = {"Authorization": f"Token {INFLUXDB_TOKEN.read_text().strip()}"}
    except OSError:
        return []
    host, port = cluster.endpoint("influxdb", "http")
    return [
        f"the bucket {bucket} with its token does not exist"
        for bucket in pipeline["resources"].get("influxdb", {})
        # Without an organisation, a name that is not there is no error but an empty list.
        if not get_json(host, port, f"/api/v2/buckets?name={quote(bucket)}", headers)["buckets"]
    ]


RESOURCES: dict[str, Resources] = {"kafka": topics, "hdfs": directories, "influxdb": buckets}
"""What a pipeline has in a component that its stages need, and what of it is missing."""
INSTANCES: dict[str, Probe] = {
    "zookeeper": zookeeper,
    "kafka": kafka,
    "hdfs-namenode": namenode,
    "hdfs-datanode": datanode,
    "hdfs-secondarynamenode": secondarynamenode,
    "yarn-resourcemanager": resourcemanager,
    "yarn-nodemanager": nodemanager,
    "mapreduce-historyserver": historyserver,
    "spark-master": spark_master,
    "spark-worker": spark_worker,
    "influxdb": influxdb,
    "grafana": grafana,
}
COMPONENTS: dict[str, Probe] = {
    "zookeeper": zookeeper,
    "kafka": kafka,
    "hdfs": hdfs,
    "yarn": yarn,
    "spark": spark,
    "influxdb": influxdb,
    "grafana": grafana,
}
