"""PostgreSQL as its role starts, configures and fills it: the real server, where the host has Debian's package of it."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import psycopg2
import pytest
from postgres import BIN, USER, Server, load, render, served

from berny.model.catalog import load_catalog
from berny.model.component import Kind
from berny.runtime.probe import NotReady
from berny.runtime.probe.load import load as load_probes

needs_server = pytest.mark.skipif(not (BIN / "initdb").exists(), reason=f"needs {BIN}; tests/cluster have it on a node")
KEY = "k" * 64
WEATHER: dict[str, Any] = {
    "columns": [
        "date_time timestamp not null",
        "partition integer not null",
        "msg_offset bigint not null",
        "value jsonb not null default '{}'",
        "identity text not null",
    ],
    "unique": ["partition, msg_offset", "identity"],
    "indexes": ["date_time", "(value ->> 'city'), date_time", "(value #>> '{main,temp}')"],
    "pipeline": "air",
    "user": "air",
}
REF_DATE: dict[str, Any] = {
    "columns": ["partition integer", "exported_at timestamptz not null"],
    "unique": ["partition"],
    "indexes": [],
    "pipeline": "air",
    "user": "air",
}
OTHER = {**REF_DATE, "pipeline": "air-quality", "user": "air-quality"}
TABLES = {"weather": WEATHER, "ref_date": REF_DATE, "other": OTHER}
STAGES: dict[str, Any] = {
    "air": {
        "consumer": {"reads": [], "writes": ["weather"]},
        "export": {"reads": ["weather"], "writes": ["ref_date"]},
        "page": {"reads": ["weather"], "writes": []},
    },
    "air-quality": {"only": {"reads": [], "writes": ["other"]}},
}
ROW = "INSERT INTO weather (date_time, partition, msg_offset, identity) VALUES (now(), 0, %s, %s)"


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose path is short enough for a socket, and that its user may enter."""
    path = Path(tempfile.mkdtemp(prefix="pg-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    """One server for all tests that leave it as they want."""
    path = Path(tempfile.mkdtemp(prefix="pg-"))
    with served(Server(path)) as server:
        yield server
    shutil.rmtree(path)


@pytest.fixture
def server(running: Server) -> Server:
    """The server with nothing of a pipeline."""
    for base in ("air", "air-quality"):
        running.withdraw(base)
    return running


def setup(server: Server, check: bool = False, **words: Any) -> dict[str, Any]:
    """Do what the module does that sets it up."""
    return server.setup(check, **{"key": KEY, "tables": TABLES, "stages": STAGES, **words})


def word(found: dict[str, Any], stage: str, base: str = "air") -> str:
    """Return the password that a stage was granted."""
    return str(found["granted_stages"][base][stage]["PG_PASSWORD"])


def refused(server: Server, role: str, password: str, base: str, query: str = "SELECT 1", *values: Any) -> str:
    """Return why a query is refused."""
    with pytest.raises(psycopg2.Error) as error:
        server.log_in(role, password, base, query, *values)
    return str(error.value)


# -- its start ---------------------------------------------------------------------------------------------------------


@needs_server
def test_it_is_made_once_and_survives_what_kills_it(folder: Path) -> None:
    """Half of a cluster, which a power cut left, is none; a connection that is open holds no stop up."""
    server = Server(folder)
    left = folder / "data" / "15.new"
    left.mkdir()
    shutil.chown(left, folder.owner(), folder.group())
    (left / "PG_VERSION").write_text("15")
    with served(server):
        assert not left.exists()
        server.ask("CREATE TABLE kept AS SELECT 1 AS one")
        identifier = server.ask("SELECT system_identifier::text FROM pg_control_system()")
        server.stop(signal.SIGKILL)
        server.start()
        assert server.ask("SELECT * FROM kept") == [(1,)]
        assert server.ask("SELECT system_identifier::text FROM pg_control_system()") == identifier
        begun = time.monotonic()
        with psycopg2.connect(host=str(folder), port=server.port, user="postgres", dbname="postgres"):
            server.stop()
        assert time.monotonic() - begun < 20


@needs_server
def test_it_does_not_begin_anew_in_place_of_what_is_lost(folder: Path) -> None:
    """Nor on another cluster's disk: it ends with 78, and says what to do."""
    server = Server(folder)
    with served(server):
        setup(server)
        server.stop()
        identifier = server.known.read_text()
        server.data.rename(folder / "away")
        for text, told in ((identifier, "holds no cluster, and held"), ("1234\n", "mount the disk of that one")):
            server.known.write_text(text)
            process = server.run()
            said = process.communicate(timeout=30)[0]
            assert process.returncode == 78 and told in said and "FATAL: " in said
            if not server.data.exists():
                (folder / "away").rename(server.data)
        server.known.write_text(identifier)
        server.start()
        assert server.ask("SELECT count(*) FROM weather", base="air") == [(0,)]


@needs_server
def test_its_settings(running: Server) -> None:
    """What survives a power cut, memory and log; there is no way in but by password, or by the machine's user."""
    found = dict(running.ask("SELECT name, current_setting(name) FROM pg_settings"))
    wanted = dict.fromkeys(("fsync", "full_page_writes", "synchronous_commit", "data_checksums"), "on")
    wanted |= {"shared_buffers": "64MB", "max_wal_size": "256MB", "logging_collector": "off", "jit": "off"}
    wanted |= {"password_encryption": "scram-sha-256", "TimeZone": "UTC", "lc_messages": "C"}
    wanted |= {"dynamic_shared_memory_type": "mmap", "listen_addresses": "127.0.0.1"}
    assert {name: found[name] for name in wanted} == wanted
    assert running.ask("SELECT count(*) FROM pg_file_settings WHERE error IS NOT NULL OR NOT applied") == [(0,)]
    methods = running.ask("SELECT DISTINCT auth_method FROM pg_hba_file_rules ORDER BY 1")
    assert methods == [("peer",), ("reject",), ("scram-sha-256",)]
    assert running.ask("SELECT datcollate FROM pg_database WHERE datname = 'template1'") == [("C.UTF-8",)]


@needs_server
def test_settings_of_a_large_node_and_of_a_persons(folder: Path, running: Server) -> None:
    """PostgreSQL itself reads them."""
    server = Server(folder, "large")
    own = {"checkpoint_timeout": "7min", "application_name": "it's"}
    server.configure(postgresql_settings=own, postgresql_max_connections=200)
    wanted = {"shared_buffers": "131072", "work_mem": "5242", "max_wal_size": "8192", "checkpoint_timeout": "420"}
    for name, value in {**wanted, "application_name": "it's"}.items():
        command = [str(BIN / "postgres"), "-D", str(running.data), "-C", name]
        command += ["-c", f"config_file={folder}/conf/postgresql.conf", "-c", f"data_directory={running.data}"]
        done = subprocess.run(command, capture_output=True, text=True, cwd="/", timeout=30, **USER)
        assert done.stdout.strip() == value, (name, done.stderr)


# -- databases, tables, roles ------------------------------------------------------------------------------------------


@needs_server
def test_a_second_run_changes_nothing(server: Server) -> None:
    """A dry run says what it would do, and does nothing; afterwards it is silent."""
    looked = setup(server, check=True)
    assert {"database air", "role air-consumer"} <= {*looked["changes"]}
    assert server.ask("SELECT datname FROM pg_database WHERE datname LIKE 'air%%' ORDER BY 1") == []
    assert looked["granted"]["air"]["PG_TABLE_ID"] == {"weather": "", "ref_date": ""}
    first = setup(server)
    assert "table air.weather" in first["changes"]
    for check in (True, False):
        again = setup(server, check)
        assert again["changes"] == []
        assert {name: again[name] for name in ("granted", "granted_stages")} == {
            name: first[name] for name in ("granted", "granted_stages")
        }
    assert first["databases"] == ["air", "air-quality"]
    identifier = server.known.read_text().strip()
    assert all(one.startswith(f"{identifier}.") for one in first["granted"]["air"]["PG_TABLE_ID"].values())
    assert server.ask("SELECT rolpassword FROM pg_authid WHERE rolpassword !~ '^SCRAM-SHA-256'") == []


@needs_server
def test_a_stage_has_the_rights_that_it_needs_and_no_other(server: Server) -> None:
    found = setup(server)
    consumer, export, page = (word(found, stage) for stage in ("consumer", "export", "page"))
    server.log_in("air-consumer", consumer, "air", ROW, 1, "a")
    upsert = f"{ROW} ON CONFLICT (partition, msg_offset) DO UPDATE SET identity = excluded.identity"
    server.log_in("air-consumer", consumer, "air", upsert, 1, "b")
    aside = "CREATE TEMPORARY TABLE aside (LIKE weather); INSERT INTO aside SELECT * FROM weather; SELECT count(*) FROM aside"
    assert server.log_in("air-consumer", consumer, "air", aside) == [(1,)]
    assert server.log_in("air-export", export, "air", "SELECT identity FROM weather") == [("b",)]
    server.log_in("air-export", export, "air", "INSERT INTO ref_date VALUES (0, now())")
    assert server.log_in("air-page", page, "air", "SELECT count(*) FROM weather") == [(1,)]
    denied = [
        ("air-export", export, "DELETE FROM weather"),
        ("air-consumer", consumer, "SELECT * FROM ref_date"),
        ("air-page", page, "UPDATE weather SET partition = 1"),
        ("air-page", page, "CREATE TEMPORARY TABLE aside (a int)"),
        *(("air-consumer", consumer, query) for query in ("TRUNCATE weather", "CREATE TABLE own (a int)")),
        *(("air-consumer", consumer, query) for query in ("ALTER TABLE weather ADD x int", "DROP TABLE weather")),
        ("air-consumer", consumer, "SELECT rolpassword FROM pg_authid"),
        ("air-consumer", consumer, "COPY weather TO PROGRAM 'cat'"),
    ]
    for role, password, query in denied:
        said = refused(server, role, password, "air", query)
        assert "permission denied" in said or "must be" in said, (role, query, said)
    for base in ("air-quality", "postgres", "template1"):
        assert "permission denied for database" in refused(server, "air-consumer", consumer, base)
    assert "password authentication failed" in refused(server, "air-consumer", export, "air")
    assert "rejects connection" in refused(server, "postgres", "", "postgres")
    assert "authentication failed" in refused(server, "air", consumer, "air"), "the owner logs in nowhere"


@needs_server
def test_one_role_reads_all_tables_and_writes_none(server: Server) -> None:
    """For dashboards by its password, for people of the node over the socket."""
    found = setup(server)
    server.log_in("air-consumer", word(found, "consumer"), "air", ROW, 1, "a")
    reads = ("berny_read", found["read_password"])
    for base, query in (("air", "SELECT count(*) FROM weather"), ("air-quality", "SELECT count(*) + 1 FROM other")):
        assert server.log_in(*reads, base, query) == [(1,)]
    for query in ("DELETE FROM weather", "SET default_transaction_read_only = off; DELETE FROM weather"):
        said = refused(server, *reads, "air", query)
        assert "read-only transaction" in said or "permission denied" in said
    assert "permission denied" in refused(server, *reads, "air", "SELECT * FROM pg_authid")
    assert server.ask("SELECT current_user", user="berny_read") == [("berny_read",)]
    with pytest.raises(psycopg2.OperationalError, match="Peer authentication failed"):
        server.ask("SELECT 1", user="berny_exporter")


@needs_server
def test_the_exporters_role_watches_and_reads_no_table(server: Server) -> None:
    setup(server)
    assert server.ask("SELECT pg_has_role('berny_exporter', 'pg_monitor', 'MEMBER')") == [(True,)]
    assert server.ask("SELECT count(*) FROM pg_auth_members WHERE member = 'berny_exporter'::regrole") == [(1,)]
    assert server.ask("SELECT has_database_privilege('berny_exporter', 'air', 'CONNECT')") == [(True,)]
    assert server.ask("SELECT has_table_privilege('berny_exporter', 'weather', 'SELECT')", base="air") == [(False,)]


@needs_server
def test_what_somebody_changed_is_as_it_was(server: Server) -> None:
    """A password, powers, rights, an owner, an index: each is said, and none of the data is touched."""
    found = setup(server)
    consumer = word(found, "consumer")
    server.log_in("air-consumer", consumer, "air", ROW, 1, "a")
    drifts = {
        "ALTER ROLE \"air-consumer\" PASSWORD 'mine'": "password of role air-consumer",
        'ALTER ROLE "air-consumer" SUPERUSER NOLOGIN': "powers of role air-consumer",
        'GRANT pg_read_all_data TO "air-page"': "revoke pg_read_all_data from air-page",
        "REVOKE pg_monitor FROM berny_exporter": "grant pg_monitor to berny_exporter",
        "ALTER ROLE berny_read RESET ALL": "default_transaction_read_only of role berny_read",
        "GRANT ALL ON weather TO PUBLIC": "revoke DELETE on table weather from PUBLIC",
        'REVOKE INSERT ON weather FROM "air-consumer"': "grant INSERT on table weather to air-consumer",
        "GRANT CONNECT ON DATABASE air TO PUBLIC": "revoke CONNECT on database air from PUBLIC",
        "GRANT CREATE ON SCHEMA public TO PUBLIC": "revoke CREATE on schema public from PUBLIC",
        "ALTER TABLE ref_date OWNER TO postgres": "owner of table air.ref_date",
        'ALTER DATABASE "air-quality" OWNER TO postgres': "owner of database air-quality",
    }
    names = "SELECT indexname FROM pg_indexes WHERE indexdef ~ 'USING btree .identity.'"
    drifts[f"DROP INDEX {server.ask(names, base='air')[0][0]}"] = "index unique btree (identity) of table air.weather"
    for query in drifts:
        server.ask(query, base="air")
    looked = setup(server, check=True)["changes"]
    assert {*drifts.values()} <= {*looked} == {*setup(server)["changes"]}
    assert setup(server)["changes"] == []
    assert server.log_in("air-consumer", consumer, "air", "SELECT identity FROM weather") == [("a",)]


@needs_server
def test_a_table_that_was_made_anew_has_another_id(server: Server) -> None:
    """By which whoever writes there notices that its rows are gone; another database has other ones as well."""
    ids = [setup(server)["granted"]["air"]["PG_TABLE_ID"]]
    for base, query in (("air", "DROP TABLE weather"), ("postgres", "DROP DATABASE air")):
        server.ask(query, base=base)
        ids.append(setup(server)["granted"]["air"]["PG_TABLE_ID"])
    assert len({one["weather"] for one in ids}) == 3
    assert ids[0]["ref_date"] == ids[1]["ref_date"] != ids[2]["ref_date"]
    server.ask("ALTER TABLE weather ADD COLUMN mine text", base="air")
    assert setup(server)["granted"]["air"]["PG_TABLE_ID"] == ids[2]


@needs_server
def test_a_manifest_that_changed(server: Server) -> None:
    """Columns and indexes are added, what nobody asks for any more is dropped with its rights; data stays."""
    found = setup(server)
    server.log_in("air-consumer", word(found, "consumer"), "air", ROW, 1, "a")
    server.ask("CREATE INDEX mine ON weather (partition)", base="air")
    changed = {**WEATHER, "columns": [*WEATHER["columns"], "kind text not null default 'x{y}'"], "indexes": ["kind"]}
    stages = {**STAGES, "air": {"consumer": {"reads": ["ref_date"], "writes": ["weather"]}}}
    told = setup(server, tables={**TABLES, "weather": changed}, stages=stages)["changes"]
    assert "column kind of table air.weather" in told and "role air-export: dropped" in told
    assert "index btree (date_time) of table air.weather: dropped" in told
    assert "grant SELECT on table ref_date to air-consumer" in told
    assert setup(server, tables={**TABLES, "weather": changed}, stages=stages)["changes"] == []
    assert server.ask("SELECT identity, kind FROM weather", base="air") == [("a", "x{y}")]
    assert server.ask("SELECT count(*) FROM pg_indexes WHERE indexname = 'mine'", base="air") == [(1,)]
    assert server.ask("SELECT count(*) FROM pg_roles WHERE rolname ~ '^air-(export|page)$'") == [(0,)]


@needs_server
@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (
            {"columns": ["a nonsense"]},
            'PostgreSQL refuses the declaration in the manifest: type "nonsense" does not exist',
        ),
        (
            {"columns": ["a int, b int"]},
            "its manifest has 1 columns, but PostgreSQL creates 2: give one column per text",
        ),
        ({"columns": ["a int", "primary key (a)"]}, "its manifest has 2 columns, but PostgreSQL creates 1"),
        ({"unique": ["nothing"]}, 'column "nothing" does not exist'),
        (
            {"columns": ["partition text", "exported_at timestamptz not null"]},
            "its column partition is integer, its manifest",
        ),
        ({"pipeline": "postgres"}, "postgres is a database of PostgreSQL's own"),
    ],
)
def test_what_a_manifest_can_not_ask_for(server: Server, asked: dict[str, Any], told: str) -> None:
    """It is said with the table, and nothing of it is done; the table that there is stays as it is."""
    setup(server)
    with pytest.raises(Exception, match=re.escape(told)) as error:
        setup(server, tables={"ref_date": {**REF_DATE, "unique": [], **asked}})
    assert error.type.__name__ == "Refused"
    assert "pipeline" in asked or "table air.ref_date: " in str(error.value)
    assert setup(server)["changes"] == []


@needs_server
def test_another_key_is_another_password_for_all(server: Server) -> None:
    """Of every role that has one; who is connected stays so."""
    old = setup(server)
    where = {"host": "127.0.0.1", "port": server.port, "dbname": "air", "password": word(old, "consumer")}
    connected = psycopg2.connect(user="air-consumer", **where)
    new = setup(server, key="n" * 64)
    assert set(new["changes"]) == {
        f"password of role {role}"
        for role in ("berny_read", "air-consumer", "air-export", "air-page", "air-quality-only")
    }
    assert "password authentication failed" in refused(server, "air-consumer", word(old, "consumer"), "air")
    assert server.log_in("air-consumer", word(new, "consumer"), "air") == [(1,)]
    with connected.cursor() as cursor:
        cursor.execute("SELECT 1")
    connected.close()


@needs_server
def test_a_pipeline_that_is_withdrawn_leaves_nothing(server: Server) -> None:
    """Of its own, whoever is connected; the other one stays as it is."""
    setup(server)
    before = server.ask("SELECT rolname FROM pg_roles ORDER BY 1")
    with psycopg2.connect(host=str(server.folder), port=server.port, user="postgres", dbname="air"):
        looked, done = server.withdraw("air", check=True), server.withdraw("air")
    assert looked == done == ["database air", *(f"role air{own}" for own in ("", "-consumer", "-export", "-page"))]
    assert server.withdraw("air") == []
    left = {name for (name,) in server.ask("SELECT rolname FROM pg_roles")}
    assert {name for (name,) in before} - left == {"air", "air-consumer", "air-export", "air-page"}
    assert setup(server, tables={"other": OTHER}, stages={"air-quality": STAGES["air-quality"]})["changes"] == []


# -- its probe ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def probe(probe_files: None, running: Server, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The role's probe of the running server."""
    import berny_probes.postgresql as module  # type: ignore[import-not-found]

    monkeypatch.setattr(module, "SOCKET", str(running.folder))
    monkeypatch.setattr(module, "USERS", running.folder / "conf" / "pg_ident.conf")
    found: ModuleType = module
    return found


@needs_server
def test_it_is_ready_with_a_query(server: Server, probe: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the administrator and as who reads; elsewhere, and for others, if it accepts a connection."""
    setup(server)
    cluster, ask = server.cluster(), load_probes("postgresql").services["postgresql-server"]
    who = probe._user()
    assert who == "postgres", "who runs the tests"
    for user in (who, "berny_read"):
        monkeypatch.setattr(probe, "_user", lambda user=user: user)
        healthy, detail = ask(cluster, "here")
        assert healthy and "responds to a query, databases of pipelines: 2, version 15." in detail
    accepts = (True, f"127.0.0.1:{server.port} accepts connections")
    monkeypatch.setattr(probe, "_user", str)
    assert ask(cluster, "here") == accepts, "another user's process"
    cluster.here = "elsewhere"
    assert ask(cluster, "here") == accepts


@needs_server
def test_it_is_not_healthy_where_a_power_cut_would_lose_data(server: Server, probe: ModuleType) -> None:
    server.ask("ALTER SYSTEM SET synchronous_commit = off")
    try:
        server.ask("SELECT pg_reload_conf()")
        deadline = time.monotonic() + 10
        while probe.server(server.cluster(), "here")[0] and time.monotonic() < deadline:
            time.sleep(0.1)
        healthy, detail = probe.server(server.cluster(), "here")
        assert not healthy and "a power cut loses data: synchronous_commit is off" in detail
    finally:
        server.ask("ALTER SYSTEM RESET ALL")
        server.ask("SELECT pg_reload_conf()")


@needs_server
def test_it_is_not_ready_where_it_does_not_run(
    folder: Path, probe: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server(folder)
    monkeypatch.setattr(probe, "SOCKET", str(folder))
    with pytest.raises(NotReady, match="No such file or directory"):
        probe.server(server.cluster(), "here")
    monkeypatch.setattr(probe, "_user", str)
    with pytest.raises(NotReady, match="Connection refused"):
        probe.server(server.cluster(), "here")


@needs_server
def test_tables_that_are_missing_are_named(server: Server, probe: ModuleType) -> None:
    """All of them where the database is; nothing where it can't be read, and of a pipeline without tables."""
    pipeline = {"name": "air", "resources": {"postgresql": {"weather": {}, "ref_date": {}}}}
    words = [f"the table {name} of the database air does not exist" for name in ("weather", "ref_date")]
    cluster = server.cluster()
    assert probe.resources(cluster, pipeline) == words
    setup(server)
    assert probe.resources(cluster, pipeline) == []
    server.ask("DROP TABLE weather", base="air")
    assert probe.resources(cluster, pipeline) == words[:1]
    assert probe.resources(cluster, {"name": "air", "resources": {}}) == []
    cluster.here = "elsewhere"
    assert probe.resources(cluster, pipeline) == []


@pytest.mark.parametrize(
    ("text", "healthy", "told"),
    [
        ("pg_up 1\npg_exporter_last_scrape_error 0\n", True, "serves 3 series"),
        ("pg_up 0\npg_exporter_last_scrape_error 1\n", False, "it can't log in to PostgreSQL"),
        ("pg_up 1\npg_exporter_last_scrape_error 1\n", False, "some of its queries failed"),
    ],
)
def test_the_exporter_is_healthy_where_it_gets_in(
    probe_files: None, monkeypatch: pytest.MonkeyPatch, text: str, healthy: bool, told: str
) -> None:
    import berny_probes.postgresql as module

    build = '# HELP x\npostgres_exporter_build_info{version="0.11.1"} 1\n'
    for served_, expected in ((build + text, healthy), (text, None)):
        monkeypatch.setattr(module, "get_json", lambda *_, served_=served_: served_)
        cluster = Server.cluster(type("S", (), {"port": 1})())  # type: ignore[arg-type]
        if expected is None:
            with pytest.raises(NotReady, match="another program responds"):
                module.exporter(cluster, "here")
        else:
            found, detail = module.exporter(cluster, "here")
            assert found is expected and told in detail


def test_the_exporter_finds_out_that_the_server_was_restarted(
    probe_files: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a response for each database; it is asked until it has."""
    import berny_probes.postgresql as module

    build, well = 'postgres_exporter_build_info{version="0.11.1"} 1\n', "pg_up 1\npg_exporter_last_scrape_error 0\n"
    texts = iter([f"{build}pg_up 0\n", f"{build}pg_up 1\npg_exporter_last_scrape_error 1\n", build + well])
    monkeypatch.setattr(module, "get_json", lambda *_: next(texts))
    cluster = Server.cluster(type("S", (), {"port": 1})())  # type: ignore[arg-type]
    assert module.exporter(cluster, "here") == (True, "127.0.0.1:1 serves 3 series")


# -- what needs no server ----------------------------------------------------------------------------------------------


def test_a_password_is_checked_as_postgresql_does() -> None:
    """RFC 7677 has an example of SCRAM-SHA-256; of another password, or of another kind, it is not."""
    module = load("library/postgresql_setup.py")
    kept = (
        "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:"
        "wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
    )
    assert module.is_of(kept, "pencil") and not module.is_of(kept, "pen")
    assert not module.is_of("", "pencil") and not module.is_of("md5a3556571e93b0d20722ba62be61e8c2d", "pencil")
    assert module.password("key", "a") != module.password("key", "b") != module.password("other", "b")


def test_stages_and_their_tables(plugin: Callable[[str], ModuleType]) -> None:
    """Those of PostgreSQL alone; who uses none is left out."""
    stages = plugin("roles/postgresql/filter_plugins/postgresql_stages.py").postgresql_stages
    manifest = {
        "resources": {"postgresql": {"weather": {}, "ref_date": {}}, "topics": {"weather-api": {}}},
        "stages": {
            "producer": {"reads": ["source"], "writes": ["weather-api"]},
            "consumer": {"reads": ["weather-api"], "writes": ["weather"]},
            "export": {"reads": ["weather"], "writes": ["/user/hdfs/weather", "ref_date"]},
        },
    }
    assert stages({"air": manifest, "none": {"resources": {}, "stages": manifest["stages"]}}) == {
        "air": {
            "consumer": {"reads": [], "writes": ["weather"]},
            "export": {"reads": ["weather"], "writes": ["ref_date"]},
        }
    }


@pytest.mark.parametrize(
    ("name", "given", "told"),
    [
        ("weather", {"columns": ["a int"]}, []),
        ("weather", {"columns": ["a int"], "keep": "90d", "unique": ["a"], "indexes": ["a"]}, []),
        ("REF_DATE", {"columns": []}, ["REF_DATE: can't be called so: use a to z, 0 to 9 and '_', a letter first"]),
        ("weather", {}, ["weather.columns: is missing"]),
        (
            "weather",
            {"columns": ["a int"], "index": ["a"]},
            ["weather.index: unknown; there are columns, unique, indexes, keep"],
        ),
    ],
)
def test_tables_of_manifests(name: str, given: dict[str, Any], told: list[str]) -> None:
    kind: Kind = load_catalog().kinds["postgresql"]
    assert kind.problems(name, given) == told


def test_psql_reads_unless_it_is_told_otherwise(tmp_path: Path) -> None:
    """As which role, in which database; what a person sets goes first."""
    program = tmp_path / "psql"
    program.write_text('#!/bin/sh\necho "$PGUSER|$PGDATABASE|$PGPORT|$*"\n')
    program.chmod(0o755)
    whoami = tmp_path / "id"
    for user, pipelines, variables, expected in (
        ("alice", ["air"], {}, "berny_read|air|5432|-c SELECT 1"),
        ("alice", [], {}, "berny_read|postgres|5432|-c SELECT 1"),
        ("postgres", ["air"], {}, "postgres|postgres|5432|-c SELECT 1"),
        ("alice", ["air"], {"PGUSER": "a", "PGDATABASE": "b", "PGPORT": "1"}, "a|b|1|-c SELECT 1"),
    ):
        whoami.write_text(f"#!/bin/sh\necho {user}\n")
        whoami.chmod(0o755)
        text = render(
            "psql.sh.j2", ansible_managed="managed", catalog=load_catalog(), pipelines=pipelines, groups={},
            _postgresql_port=5432, _postgresql_programs=str(tmp_path),
        )  # fmt: skip
        done = subprocess.run(
            ["sh", "-c", text, "psql", "-c", "SELECT 1"], capture_output=True, text=True,
            env={"PATH": f"{tmp_path}:/usr/bin:/bin", **variables},
        )  # fmt: skip
        assert done.stdout.strip() == expected, done.stderr
