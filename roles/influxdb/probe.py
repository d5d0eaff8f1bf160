"""How InfluxDB is asked, and whether a pipeline has its buckets."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

from berny.runtime.probe import Answer, Cluster, NotServing, Probe, get_json

TOKEN = Path("/etc/berny/influxdb/read.token")


def influxdb(cluster: Cluster, node: str) -> Answer:
    """Where the read-only token can be read, an authenticated query; else the server's own health."""
    host, port = cluster.endpoint("influxdb", "http", node)
    try:
        token = TOKEN.read_text().strip()
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


def resources(cluster: Cluster, pipeline: dict[str, Any]) -> list[str]:
    """Return the buckets of a pipeline that are not in InfluxDB; nothing where the read-only token can't be read.

    The token reads these buckets alone: one that was deleted and created by hand has to be replaced, too.
    """
    try:
        headers = {"Authorization": f"Token {TOKEN.read_text().strip()}"}
    except OSError:
        return []
    host, port = cluster.endpoint("influxdb", "http")
    return [
        f"the bucket {bucket} with its token does not exist"
        for bucket in pipeline["resources"].get("influxdb", {})
        # Without an organisation, a name that is not there is no error but an empty list.
        if not get_json(host, port, f"/api/v2/buckets?name={quote(bucket)}", headers)["buckets"]
    ]


SERVICES: dict[str, Probe] = {"influxdb": influxdb}
