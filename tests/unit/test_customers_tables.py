"""The tables of customers in a real PostgreSQL: the last row of each customer, whatever is repeated; a hosted one."""

from __future__ import annotations

import datetime as dt
import ipaddress
import itertools
import json
import random
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import customers
import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from customers import Database, record
from databases import PASSWORD, Postgres
from psycopg2.extensions import parse_dsn

from berny.pipelines.customers import alerts_consumer, customer_rows
from berny.pipelines.customers.customer_rows import COLUMNS, KEY, TableSettings, hosted, row
from berny.runtime.batch import SinkAway
from berny.runtime.kafka import Origin
from berny.runtime.sinks.postgresql import PostgresSettings, PostgresSink, PostgresUpserts
from berny.runtime.stage import ConfigurationError, read_settings

SHOWN = "SELECT customer_id, identity, city, topic_id, msg_offset FROM customers ORDER BY 1"


@pytest.fixture(scope="module")
def database() -> Iterator[Database]:
    """A database of this pipeline."""
    with customers.Database.running() as made:
        yield made


@pytest.fixture
def sink(database: Database) -> PostgresUpserts:
    """The sink of the job, with its role, of an empty table."""
    database.ask("TRUNCATE customers")
    return PostgresUpserts(TableSettings.model_validate(database.environment("db")), COLUMNS, KEY)


def change(number: int, offset: int, topic: str = "id", **fields: Any) -> tuple[Any, ...]:
    """Return the row of a record at an offset."""
    return row(
        record(number, **{"identity": f"etag:{offset}", "city": f"city {offset}", **fields}), Origin(topic, 0, offset)
    )


def test_a_row_is_what_the_record_says(database: Database, sink: PostgresUpserts) -> None:
    """All columns; the role may insert and update, and `check` finds the table."""
    sink.check()
    sink.write([row(record(7, 1_763_985_600.5), Origin("id", 2, 9))])
    [found] = database.ask(f"SELECT {', '.join(COLUMNS)} FROM customers")
    at = dt.datetime(2025, 11, 24, 12, 0, 0, 500_000, dt.UTC)
    assert found == (
        "C7", "José", "O'Neill", None, "Reno", "USA", None, "1", "c7@example.org", dt.date(2020, 2, 29), None, "etag:7", at,
        "id", 2, 9,
    )  # fmt: skip


def test_the_last_row_of_a_customer_counts(database: Database, sink: PostgresUpserts) -> None:
    """Within a batch, between batches, and whatever part of them is repeated."""
    batches = [[change(1, 0), change(2, 1), change(1, 2)], [change(2, 3)], [change(1, 4), change(3, 5), change(1, 6)]]
    draw = random.Random(1)
    for end in range(1, 4):
        for _ in range(5):
            for batch in draw.choices(batches[:end], k=3):
                sink.write(batch)
        sink.write(list(itertools.chain(*batches[:end])))
        last = {one[0]: one for one in itertools.chain(*batches[:end])}
        wanted = [(name, one[11], one[4], one[13], one[15]) for name, one in sorted(last.items())]
        assert database.ask(SHOWN) == wanted


def test_another_topic_counts_from_its_beginning(database: Database, sink: PostgresUpserts) -> None:
    sink.write([change(1, 900)])
    sink.write([change(1, 0, "another")])
    assert database.ask(SHOWN) == [("C1", "etag:0", "city 0", "another", 0)]


@pytest.mark.parametrize(
    "fields",
    [{"customer_id": None}, {"email": 5}, {"identity": None}, {"observed_at": "x"}, {"subscription_date": "2021-02-29"},
     {"subscription_date": None}, {"city": ["x"]}],
    ids=str,
)  # fmt: skip
def test_what_is_no_customer_is_a_dead_letter(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        row(record(1, **fields), Origin("id", 0, 0))


def test_alerts_are_there_once(database: Database) -> None:
    """Also with characters that PostgreSQL's JSON does not take."""
    sink = PostgresSink(
        PostgresSettings.model_validate(database.environment("alerts")),
        alerts_consumer.COLUMNS,
        alerts_consumer.EXPIRED,
    )
    body = {
        "identity": "etag:1",
        "observed_at": 1.5,
        "reasons": ["no Email"],
        "customer": {"Email": "\0", "City": r"\u0000"},
    }
    for _ in range(2):
        sink.write([alerts_consumer.row(body | {"country": "USA"}, Origin("id", 0, 0))])
    query = "SELECT identity, reasons, customer_id, country, customer FROM customers_alerts"
    assert database.ask(query) == [("etag:1", ["no Email"], None, "USA", {"Email": "", "City": r"\u0000"})]


@pytest.mark.parametrize(
    "fields",
    [
        {"reasons": []},
        {"reasons": [1]},
        {"identity": 1},
        {"observed_at": None},
        {"customer": 1},
        {"customer_id": {}},
        {"customer_id": ["a"]},
        {"country": 1},
    ],
)
def test_what_is_no_alert_is_a_dead_letter(fields: dict[str, Any]) -> None:
    body = {"identity": "etag:1", "observed_at": 1.5, "reasons": ["x"], "customer": {}}
    with pytest.raises(ValueError):
        alerts_consumer.row(body | fields, Origin("id", 0, 0))


# -- a hosted one ------------------------------------------------------------------------------------------------------


def certificate(folder: Path) -> tuple[Path, Path]:
    """Write a certificate for 127.0.0.1 that signs itself, and its key; return the paths."""
    key, now = ec.generate_private_key(ec.SECP256R1()), dt.datetime.now(dt.UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tests")])
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(1).not_valid_before(now - dt.timedelta(days=1)).not_valid_after(now + dt.timedelta(days=1))
        .add_extension(names, False).add_extension(x509.BasicConstraints(True, None), True).sign(key, hashes.SHA256())
    )  # fmt: skip
    crt, pem = folder / "server.crt", folder / "server.key"
    crt.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    form = serialization.PrivateFormat.PKCS8
    pem.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
    return crt, pem


@pytest.fixture(scope="module")
def host() -> Iterator[tuple[Postgres, Path]]:
    """A server with TLS, and the certificate of its CA."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if not found:
        pytest.skip("this host has no PostgreSQL: `apt-get install postgresql`, as tests/run does")
    folder = Path(tempfile.mkdtemp(prefix="berny-hosted-"))
    server = Postgres(folder, found[-1].parent)
    server.make()
    crt, pem = certificate(folder)
    if server._as:
        for path in (crt, pem):
            shutil.chown(path, "postgres")
    pem.chmod(0o600)
    with (folder / "data" / "postgresql.conf").open("a") as file:
        file.write(f"ssl = on\nssl_cert_file = '{crt}'\nssl_key_file = '{pem}'\n")
    server.start()
    yield server, crt
    server.end()
    shutil.rmtree(folder)


def environment(url: str) -> TableSettings:
    """Return the environment of the job with a hosted database beside what the cluster's role grants."""
    words = {
        "pg_dsn": "postgresql://customers-db@none/customers", "pg_password": "the cluster's", "pg_table": "customers",
        "pg_table_id": "the cluster's", "supabase_db_url": url, "berny_state_dir": "/nowhere", "kafka_bootstrap_servers": "-",
        "berny_pipeline": "customers", "berny_stage": "db", "berny_metrics_port": 1,
    }  # fmt: skip
    return TableSettings.model_validate(words)


def test_a_hosted_table_is_created_and_written(host: tuple[Postgres, Path]) -> None:
    """By TLS with a certificate that is verified; once it is there, it is left as it is."""
    server, crt = host
    password = PASSWORD.replace(" ", "%20")
    settings = environment(f"postgresql://postgres:{password}@127.0.0.1:{server.port}/postgres?sslrootcert={crt}")
    for _ in range(2):
        customer_rows.create(settings)
        PostgresUpserts(settings, COLUMNS, KEY).write([change(1, 0), change(1, 1)])
    dsn = f"{server.host} dbname=postgres"
    assert server.execute(dsn, "SELECT customer_id, msg_offset FROM customers") == [("C1", 1)]
    columns = yaml.safe_load(customer_rows.MANIFEST.read_text())["resources"]["postgresql"]["customers"]["columns"]
    names = server.execute(dsn, "SELECT column_name FROM information_schema.columns WHERE table_name = 'customers'")
    assert {name for (name,) in names} == {column.split()[0] for column in columns}


@pytest.mark.parametrize("words", ["", "?sslmode=disable", "?sslmode=require"])
def test_a_certificate_that_is_not_trusted_is_refused(host: tuple[Postgres, Path], words: str) -> None:
    """Whatever the address asks for."""
    server, _ = host
    settings = environment(
        f"postgresql://postgres:{PASSWORD.replace(' ', '%20')}@127.0.0.1:{server.port}/postgres{words}"
    )
    with pytest.raises(SinkAway, match="certificate verify failed"):
        customer_rows.create(settings)


def test_a_certificate_of_another_name_is_refused(host: tuple[Postgres, Path]) -> None:
    server, crt = host
    password = PASSWORD.replace(" ", "%20")
    settings = environment(f"postgresql://postgres:{password}@localhost:{server.port}/postgres?sslrootcert={crt}")
    with pytest.raises(SinkAway, match="does not match host name"):
        customer_rows.create(settings)


def test_a_hosted_database_has_its_own_password_and_identity() -> None:
    """Another one is read from the topic's beginning; characters of the address are no syntax."""
    found = hosted("postgresql://u%27ser:p%40ss%5C@db.example:6543/postgres")
    assert found["pg_password"] == "p@ss\\"
    words = parse_dsn(found["pg_dsn"])
    assert (words["user"], words["host"], words["sslmode"]) == ("u'ser", "db.example", "verify-full")
    assert "p@ss" not in found["pg_dsn"]
    other = hosted("postgresql://u:p@other.example:6543/postgres")
    assert found["pg_table_id"] != other["pg_table_id"]
    assert hosted("postgresql://v:q@other.example:6543/postgres")["pg_table_id"] == other["pg_table_id"]


@pytest.mark.parametrize("url", ["nonsense secret", "postgresql://u@h/d", "postgresql:///d"])
def test_a_wrong_address_needs_a_person_and_is_not_shown(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {
        "PG_DSN": "x", "PG_PASSWORD": "x", "PG_TABLE": "customers", "PG_TABLE_ID": "x", "BERNY_STATE_DIR": "/x",
        "KAFKA_BOOTSTRAP_SERVERS": "x", "BERNY_PIPELINE": "c", "BERNY_STAGE": "db", "BERNY_METRICS_PORT": "1",
        "SUPABASE_DB_URL": url,
    }  # fmt: skip
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=r"SUPABASE_DB_URL: .*it has to") as told:
        read_settings(TableSettings)
    assert url not in str(told.value)


def test_the_cluster_is_the_default(database: Database) -> None:
    given = database.environment("db")
    settings = TableSettings.model_validate(given)
    assert (settings.pg_dsn, settings.pg_password, settings.pg_table_id) == (
        given["pg_dsn"], given["pg_password"], given["pg_table_id"],
    )  # fmt: skip
    assert json.loads(settings.model_dump_json())["supabase_db_url"] == ""
