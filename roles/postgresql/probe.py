"""The probes of PostgreSQL and its exporter, and the check of a pipeline's tables."""

from __future__ import annotations

import os
import pwd
import re
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from berny.runtime.probe import Answer, Cluster, NotReady, Probe, get_json

SOCKET = "/run/postgresql"
USERS = Path("/etc/berny/postgresql-server/pg_ident.conf")
SERVER, EXPORTER = "postgresql-server", "postgresql-exporter"
READER = "berny_read"
SECONDS = 5
ATTEMPTS = 10
ASKED = re.compile(r"no password supplied|password authentication failed")
"""The response of a server that accepts connections to a login without a password."""
NO_PASSWORDS = "/nonexistent/passwords"
"""Used instead of a password file of the user."""
SAFE = ("fsync", "full_page_writes", "synchronous_commit", "data_checksums")
STATE = f"""
SELECT current_setting('server_version'),
       (SELECT count(*) FROM pg_database WHERE NOT datistemplate AND datname <> 'postgres'),
       (SELECT coalesce(sum(checksum_failures), 0) FROM pg_stat_database),
       ARRAY(SELECT name FROM pg_settings WHERE name IN {SAFE} AND setting <> 'on' ORDER BY name)
"""
MISSING = """
SELECT name FROM unnest(%s) WITH ORDINALITY AS wanted (name, number)
WHERE to_regclass('public.' || quote_ident(name)) IS NULL ORDER BY number
"""


def _query(host: str, port: int, user: str, database: str, query: str, *values: Any) -> list[tuple[Any, ...]]:
    """Return the rows of a query.

    Raises:
        psycopg2.Error: the query failed.
    """
    import psycopg2

    where: dict[str, Any] = {"host": host, "port": port, "user": user, "dbname": database, "passfile": NO_PASSWORDS}
    options = f"-c statement_timeout={SECONDS}s -c default_transaction_read_only=on"
    with (
        closing(psycopg2.connect(**where, connect_timeout=SECONDS, options=options)) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute(query, values or None)
        return list(cursor.fetchall())


def _user() -> str:
    """Return the role that this process can log in as without a password, or an empty text: a failed try would be logged.

    Root logs in as the administrator, which always exists.
    """
    name, lines = pwd.getpwuid(os.geteuid()).pw_name, list[str]()
    with suppress(OSError):
        lines = USERS.read_text().splitlines()
    return next((role for role in ("postgres", READER) if f"berny {name} {role}" in lines), "")


def server(cluster: Cluster, node: str) -> Answer:
    """Runs a query over the socket; on other nodes, or without access to it, checks that connections are accepted."""
    import psycopg2

    host, port = cluster.endpoint(SERVER, "sql", node)
    if node == cluster.here and (user := _user()):
        try:
            ((version, databases, damaged, unsafe),) = _query(SOCKET, port, user, "postgres", STATE)
        except psycopg2.OperationalError as error:
            raise NotReady(f"{SOCKET}:{port}: {_said(error)}") from None
        wrong = [f"{damaged} damaged pages were read: journalctl -u {SERVER}"] if damaged else []
        wrong += [f"a power cut loses data: {name} is off" for name in unsafe]
        detail = f"{host}:{port} responds to a query, databases of pipelines: {databases}, version {version}"
        return not wrong, "; ".join([detail, *wrong])
    try:
        _query(host, port, READER, "postgres", "SELECT 1")
    except psycopg2.OperationalError as error:
        if not ASKED.search(str(error)):
            raise NotReady(f"{host}:{port}: {_said(error)}") from None
    return True, f"{host}:{port} accepts connections"


def _said(error: Exception) -> str:
    """Return the first line of an error without the address of the connection."""
    return re.sub(r"^connection to server .*? failed: ", "", str(error).strip().splitlines()[0])


def exporter(cluster: Cluster, node: str) -> Answer:
    """Ready if its metrics have the exporter's build; healthy if it can log in to PostgreSQL and its queries succeed.

    After a restart of the server, one scrape for each database fails before the exporter connects again.
    """
    host, port = cluster.endpoint(EXPORTER, "http", node)
    detail, wrong = "", ""
    for _ in range(ATTEMPTS):
        detail, wrong = _scraped(host, port)
        if not wrong:
            break
    return not wrong, "; ".join(filter(None, [detail, wrong]))


def _scraped(host: str, port: int) -> tuple[str, str]:
    """Return how much the exporter serves, and what is wrong with it, in words.

    Raises:
        NotReady: it does not respond, or another program does.
    """
    lines = str(get_json(host, port, "/metrics")).splitlines()
    if not any(line.startswith("postgres_exporter_build_info{") for line in lines):
        raise NotReady(f"{host}:{port}/metrics has no postgres_exporter_build_info: another program responds")
    detail = f"{host}:{port} serves {sum(not line.startswith('#') for line in lines)} series"
    values = dict(line.split() for line in lines if line.startswith(("pg_up ", "pg_exporter_last_scrape_error ")))
    if values.get("pg_up") != "1":
        return detail, f"it can't log in to PostgreSQL: journalctl -u {EXPORTER}"
    failed = values.get("pg_exporter_last_scrape_error") != "0"
    return detail, f"some of its queries failed: journalctl -u {EXPORTER}" if failed else ""


def resources(cluster: Cluster, pipeline: dict[str, Any]) -> list[str]:
    """Return the tables of a pipeline that do not exist; empty if its database can't be read."""
    import psycopg2

    tables, user = list(pipeline["resources"].get("postgresql", {})), _user()
    if not tables or not user or cluster.here not in cluster.nodes(SERVER):
        return []
    port = cluster.endpoint(SERVER, "sql")[1]
    database = str(pipeline["name"])
    try:
        missing = [str(name) for (name,) in _query(SOCKET, port, user, database, MISSING, tables)]
    except psycopg2.OperationalError as error:
        if f'database "{database}" does not exist' not in str(error):
            raise NotReady(f"{SOCKET}:{port}: {_said(error)}") from None
        missing = tables
    return [f"the table {name} of the database {database} does not exist" for name in missing]


SERVICES: dict[str, Probe] = {SERVER: server, EXPORTER: exporter}
component: Probe = server
