"""The probe of Grafana."""

from __future__ import annotations

import base64
from pathlib import Path

from berny.runtime.probe import Answer, Cluster, NotReady, Probe, get_json

SECRETS = Path("/etc/berny/grafana/grafana.env")


def grafana(cluster: Cluster, node: str) -> Answer:
    """Checks its health endpoint and, if the admin's password can be read, the health of its datasources."""
    host, port = cluster.endpoint("grafana", "http", node)
    health = get_json(host, port, "/api/health")
    if not isinstance(health, dict) or health.get("database") != "ok":
        raise NotReady(f"{host}:{port}/api/health is {health}")
    detail = f"{host}:{port} healthy, version {health.get('version')}"
    try:
        lines = dict(line.split("=", 1) for line in SECRETS.read_text().splitlines() if "=" in line)
    except OSError:
        return True, detail
    words = base64.b64encode(f"admin:{lines['GF_SECURITY_ADMIN_PASSWORD']}".encode()).decode()
    login = {"Authorization": f"Basic {words}"}
    try:
        sources = sorted(str(source["uid"]) for source in get_json(host, port, "/api/datasources", login))
    except NotReady as error:
        if " returned 401" in str(error):
            return True, f"{detail}, but the admin's password is not that of the secrets file: run site.yml"
        raise
    for uid in sources:
        source = get_json(host, port, f"/api/datasources/uid/{uid}/health", login)
        if not isinstance(source, dict) or source.get("status") != "OK":
            raise NotReady(f"{host}:{port} datasource {uid}: {source}")
    return True, f"{detail}, its datasources respond: {', '.join(sources) or 'none'}"


SERVICES: dict[str, Probe] = {"grafana": grafana}
