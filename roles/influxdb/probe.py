"""The probe of InfluxDB, and the check of a pipeline's buckets."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

from berny.runtime.probe import Answer, Cluster, NotReady, Probe, get_json

TOKEN = Path("/etc/berny/influxdb/read.token")


def influxdb(cluster: Cluster, node: str) -> Answer:
    """Runs an authenticated query if the read-only token can be read, else checks the health endpoint."""
    host, port = cluster.endpoint("influxdb", "http", node)
    try:
        token = TOKEN.read_text().strip()
    except OSError:
        token = ""
    if not token:
        status = get_json(host, port, "/health").get("status")
        if status != "pass":
            raise NotReady(f"{host}:{port}/health is {status}")
        return True, f"{host}:{port} healthy"
    headers = {"Authorization": f"Token {token}"}
    buckets = get_json(host, port, "/api/v2/buckets?limit=1", headers)["buckets"]
    if buckets:
        headers["Content-Type"] = "application/vnd.flux"
        get_json(host, port, f"/api/v2/query?orgID={buckets[0]['orgID']}", headers, b"buckets() |> limit(n: 1)")
    return True, f"{host}:{port} responds to an authenticated query"


def resources(cluster: Cluster, pipeline: dict[str, Any]) -> list[str]:
    """Return the buckets of a pipeline that do not exist; empty if the read-only token can't be read.

    The token can read only the buckets that site.yml created: one that was recreated by hand counts as missing.
    """
    try:
        headers = {"Authorization": f"Token {TOKEN.read_text().strip()}"}
    except OSError:
        return []
    host, port = cluster.endpoint("influxdb", "http")
    return [
        f"the bucket {bucket} with its token does not exist"
        for bucket in pipeline["resources"].get("influxdb", {})
        # Without an organisation in the query, the response for an unknown name is an empty list instead of an error.
        if not get_json(host, port, f"/api/v2/buckets?name={quote(bucket)}", headers)["buckets"]
    ]


SERVICES: dict[str, Probe] = {"influxdb": influxdb}
