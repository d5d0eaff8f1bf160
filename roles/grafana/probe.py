"""How Grafana is asked."""

from __future__ import annotations

import base64
from pathlib import Path

from berny.runtime.probe import Answer, Cluster, NotServing, Probe, get_json

SECRETS = Path("/etc/berny/grafana/grafana.env")


def grafana(cluster: Cluster, node: str) -> Answer:
    """Its own health and, where the admin's password can be read, that of its datasource."""
    host, port = cluster.endpoint("grafana", "http", node)
    health = get_json(host, port, "/api/health")
    if not isinstance(health, dict) or health.get("database") != "ok":
        raise NotServing(f"{host}:{port}/api/health is {health}")
    detail = f"{host}:{port} healthy, version {health.get('version')}"
    try:
        lines = dict(line.split("=", 1) for line in SECRETS.read_text().splitlines() if "=" in line)
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


SERVICES: dict[str, Probe] = {"grafana": grafana}
