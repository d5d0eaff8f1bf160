"""PostgreSQL on the cluster: who gets in, Debian's own units and cluster, its exporter, a kill, a log-out, a damaged role."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from berny.model.catalog import load_catalog
from support import Cluster, play

SERVER, EXPORTER = "postgresql-server", "postgresql-exporter"
COMPONENT = load_catalog().components["postgresql"]
PORT = COMPONENT.services[SERVER].ports["sql"]
PYTHON = "PYTHONPATH=/opt/berny/runtime/python /usr/bin/python3 -c"
LOG_IN = "import sys, psycopg2; psycopg2.connect(sys.argv[1], connect_timeout=5); print('in')"
ASK = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1], timeout=10).read().decode())"
SCRATCH = "berny_scratch"
"""A database that no manifest asks for; a play leaves it alone."""


@pytest.fixture(scope="module")
def node(cluster: Cluster) -> str:
    """Return the node that it runs on."""
    (found,) = cluster.groups["postgresql"]
    assert cluster.groups["postgresql_exporter"] == [found]
    return found


def sql(cluster: Cluster, node: str, query: str, base: str = "postgres", user: str = "postgres") -> str:
    """Return what psql prints, as the administrator or another of the machine's users."""
    return cluster.sh(node, f'sudo -u {user} psql -v ON_ERROR_STOP=1 -d {base} -Atqc "{query}"').strip()


@pytest.fixture
def scratch(cluster: Cluster, node: str) -> Iterator[str]:
    """A database for a test."""
    sql(cluster, node, f"CREATE DATABASE {SCRATCH}")
    yield SCRATCH
    cluster.sh(node, f"sudo berny-probe {SERVER} --wait 60")
    sql(cluster, node, f"DROP DATABASE {SCRATCH} WITH (FORCE)")


def test_it_listens_on_the_nodes_address_and_its_socket_alone(cluster: Cluster, node: str) -> None:
    said = cluster.sh(node, f"ss -Hltn sport = :{PORT}")
    assert [line.split()[3] for line in said.splitlines()] == [f"{cluster.lab.plan.nodes[node].address}:{PORT}"]
    assert "0777" in cluster.sh(node, f"stat -c 0%a /run/postgresql/.s.PGSQL.{PORT}")


@pytest.mark.parametrize(
    ("role", "told"),
    [
        ("berny_read", "no password supplied"),
        ("berny_read password=wrong", "password authentication failed"),
        ("postgres", "pg_hba.conf rejects connection"),
        ("berny_exporter password=wrong", "pg_hba.conf rejects connection"),
    ],
)
def test_nobody_gets_in_without_a_password(cluster: Cluster, node: str, role: str, told: str) -> None:
    """From a cluster node, and from its own; from elsewhere the firewall admits nobody."""
    address = f"host={cluster.lab.plan.nodes[node].machine} port={PORT} dbname=postgres user={role}"
    for other in (node, next(one for one in cluster.groups["all"] if one != node)):
        said = cluster.sh(other, f'{PYTHON} "{LOG_IN}" "{address}" 2>&1 || true')
        assert told in said and "in\n" not in said.splitlines()[-1:], said


def test_debians_own_units_and_cluster_are_not_there(cluster: Cluster, node: str) -> None:
    assert COMPONENT.packages
    for unit in COMPONENT.packages.masks:
        assert cluster.sh(node, f"systemctl is-enabled {unit} || true").strip() == "masked"
    for folder in ("/etc/postgresql", "/var/lib/postgresql"):
        for other, said in cluster.each(f"sudo find {folder} -mindepth 1 2> /dev/null || true").items():
            assert said == "", other
    assert cluster.sh(node, "pgrep -c -x postgres -u postgresql && pgrep -c -u postgres || true").split()[1:] == ["0"]


def test_another_node_reads_its_metrics(cluster: Cluster, node: str) -> None:
    """Of all databases; the exporter is in as a role that reads no table."""
    other = next(one for one in cluster.groups["all"] if one != node)
    port = COMPONENT.services[EXPORTER].ports["http"]
    cluster.sh(other, f"berny-probe {EXPORTER} --wait 30 --want healthy")
    text = cluster.sh(other, f'{PYTHON} "{ASK}" http://{cluster.lab.plan.nodes[node].machine}:{port}/metrics')
    assert "\npg_up 1\n" in text and "\npg_exporter_last_scrape_error 0\n" in text
    assert "pg_settings_fsync{" in text and "pg_stat_database_xact_commit{" in text
    rights = (
        "SELECT string_agg(roleid::regrole::text, ',') FROM pg_auth_members WHERE member = 'berny_exporter'::regrole"
    )
    assert sql(cluster, node, rights) == "pg_monitor"


def test_what_is_committed_outlives_a_kill(cluster: Cluster, node: str, scratch: str) -> None:
    """Of the main process, and of all of them at once: it recovers by itself."""
    sql(cluster, node, "CREATE TABLE kept (n int)", scratch)
    for turn, whom in enumerate(("main", "all")):
        sql(cluster, node, f"INSERT INTO kept VALUES ({turn})", scratch)
        cluster.sh(node, f"sudo systemctl kill --signal=KILL --kill-whom={whom} {SERVER}")
        cluster.sh(node, f"sudo berny-probe {SERVER} --wait 60 --want healthy")
    assert sql(cluster, node, "SELECT count(*) FROM kept", scratch) == "2"


def test_a_log_out_of_its_users_takes_nothing_from_it(cluster: Cluster, node: str, scratch: str) -> None:
    """logind removes the shared memory of users who log out: of a query of several processes, none is there."""
    sql(cluster, node, "CREATE TABLE large AS SELECT generate_series(1, 200000) AS n", scratch)
    parallel = "SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0;"
    assert "Workers Planned" in sql(cluster, node, f"{parallel} EXPLAIN SELECT sum(n) FROM large", scratch)
    for user in ("postgresql", "postgres"):
        cluster.sh(node, f"sudo -i -u {user} true 2>&1 || true")
    assert sql(cluster, node, f"{parallel} SELECT sum(n::bigint) FROM large", scratch) == "20000100000"
    assert cluster.sh(node, "find /dev/shm -user postgresql") == ""


def test_a_role_that_somebody_changed_is_set_back(cluster: Cluster, node: str) -> None:
    """By a play that restarts nothing; who reads goes on reading, and what is there besides stays."""
    before = cluster.processes()
    sql(cluster, node, "ALTER ROLE berny_read PASSWORD 'mine' CREATEDB")
    assert play("site.yml", "--tags", "postgresql").recap("changed") == 1
    assert sql(cluster, node, "SELECT rolcreatedb FROM pg_roles WHERE rolname = 'berny_read'") == "f"
    again = play("site.yml", "--tags", "postgresql")
    assert again.recap("changed") == 0, again.tail
    assert cluster.processes() == before


def test_a_setting_that_would_lose_data_is_seen(cluster: Cluster, node: str) -> None:
    sql(cluster, node, "ALTER SYSTEM SET fsync = off")
    try:
        sql(cluster, node, "SELECT pg_reload_conf()")
        said = cluster.sh(node, f"sudo berny-probe {SERVER} --json --want healthy || true")
        assert "a power cut loses data: fsync is off" in json.loads(said)[0]["detail"]
    finally:
        sql(cluster, node, "ALTER SYSTEM RESET ALL")
        sql(cluster, node, "SELECT pg_reload_conf()")
    cluster.sh(node, f"sudo berny-probe {SERVER} --want healthy --wait 30")
