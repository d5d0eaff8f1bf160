"""The customers stream on the cluster: compaction, an independent reading of the file, and the reset of its environment."""

from __future__ import annotations

import base64
import io
import json
import re
import tarfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import duckdb
import pytest

from berny.lab import harness
from support import Cluster, wait_until

PIPELINE = "customers"
FOLDERS = ("/user/maria_dev/customers_usa", "/user/maria_dev/customers_alerts")
FILE = """
SELECT "Index"::BIGINT, trim("Customer Id"),
    CASE WHEN '' IN (trim("Customer Id"), trim("First Name"), trim("Last Name"), trim("Country"))
            OR "Email" NOT LIKE '_%@_%._%' OR length("Subscription Date") <> 10
            OR try_strptime("Subscription Date", '%Y-%m-%d') IS NULL
        THEN 'incomplete'
        WHEN lower(trim("Country")) SIMILAR TO 'united +states( +of +america)?|u[.]?s[.]?(a[.]?)?' THEN 'usa'
        ELSE 'elsewhere' END
FROM read_csv(
    ?, encoding = ?, header = true, all_varchar = true, nullstr = 'null', store_rejects = true, parallel = false
)
"""
"""What is to become of each row of a file, with nothing of the pipeline in it."""
REJECTED = "SELECT DISTINCT line, trim(csv_line) FROM reject_errors"


def unit(stage: str) -> str:
    """Return the unit of a stage."""
    return f"berny-{PIPELINE}-{stage}"


def test_compaction_keeps_every_row(every: Cluster, run: str) -> None:
    """Also though it is killed; there are fewer files, and Parquet has them."""
    command = f"hdfs dfs -ls {FOLDERS[0]} | grep -c part-"
    before = int(every.sh("master", command))
    every.sh("master", f"sudo systemctl start --no-block {unit('compact')}; sleep 12")
    every.sh("master", f"sudo systemctl kill -s KILL {unit('compact')}", ok=False)
    every.sh("master", f"sudo systemctl start {unit('compact')}", timeout=300)
    assert int(every.sh("master", command)) < before
    for folder in FOLDERS:
        assert ".parquet" in every.sh("master", f"hdfs dfs -ls -R {folder}/parquet")
    clean, report = every.check(run, PIPELINE)
    assert clean, report


def reading(file: Path) -> dict[int, tuple[str, str]]:
    """Return the customer's id and what is to become of the row, by its column ``Index``."""
    try:
        file.read_text("utf-8")
        coding = "utf-8"
    except UnicodeDecodeError:
        coding = "latin-1"
    with duckdb.connect() as database:
        rows = {index: (who, kind) for index, who, kind in database.execute(FILE, [str(file), coding]).fetchall()}
        for _, line in database.execute(REJECTED).fetchall():
            rows[int(line.split(",")[0])] = (line.split(",")[1], "incomplete")
    return rows


def test_an_independent_reading_of_the_file_agrees(every: Cluster, read: str, tmp_path: Path) -> None:
    """DuckDB reads the newest version; topics, JSON, Parquet and both tables have its rows, though all pipelines work."""
    others = [name for name in every.lab.plan.pipelines if name != PIPELINE]
    every.load(f"beside-{read}", 40, *others)
    every.load(read, 400, PIPELINE)
    every.serve(2000, 120, PIPELINE)
    every.settle(read, 300, PIPELINE)
    every.load(f"after-{read}", 0, *others)
    source = every.lab.simulators[PIPELINE].url + "/customers/customers.csv"
    with urllib.request.urlopen(urllib.request.Request(source, headers={"Authorization": "any"})) as response:
        (tmp_path / "customers.csv").write_bytes(response.read())
        version = response.headers["ETag"].strip('"')
    rows = reading(tmp_path / "customers.csv")
    first = min(rows)
    assert sorted(rows) == list(range(first, first + len(rows))) and len(rows) > 50

    def wanted(kind: str) -> list[str]:
        return sorted(f"{version}:{index - first + 1}" for index, (_, found) in rows.items() if found == kind)

    def found(lines: list[Any]) -> list[str]:
        return sorted(line["identity"] for line in lines if line["identity"].startswith(version))

    every.sh("master", f"sudo systemctl start {unit('compact')}", timeout=300)
    for kind, topic, folder in zip(("usa", "incomplete"), ("customers-usa", "customers-alerts"), FOLDERS, strict=True):
        said = every.sh(
            "master",
            f"kafka-console-consumer.sh --bootstrap-server master:9092 --topic {topic} --from-beginning"
            f" --timeout-ms 10000 | grep {version}",
        )
        # Written at least once: a batch that is repeated publishes again.
        assert sorted(set(found([json.loads(line) for line in said.splitlines()]))) == wanted(kind)
        said = every.sh("master", f"hdfs dfs -cat '{folder}/part-*.json' | grep {version}")
        assert found([json.loads(line) for line in said.splitlines()]) == wanted(kind)
        said = every.sh("master", f"cd $(mktemp -d) && hdfs dfs -get {folder}/parquet && tar cz parquet | base64")
        with tarfile.open(fileobj=io.BytesIO(base64.b64decode(said))) as packed:
            packed.extractall(tmp_path / kind, filter="data")
        files = str(tmp_path / kind / "parquet" / "*.parquet")
        with duckdb.connect() as database:
            query = "SELECT identity FROM read_parquet(?) WHERE starts_with(identity, ?) ORDER BY 1"
            assert [name for (name,) in database.execute(query, [files, version]).fetchall()] == wanted(kind)

    def table(name: str) -> list[str]:
        query = f"SELECT identity FROM {name} WHERE identity LIKE '{version}:%'"
        return sorted(every.sh("worker_1", f'psql -At -d {PIPELINE} -c "{query}"').split())

    last = {who: f"{version}:{index - first + 1}" for index, (who, kind) in sorted(rows.items()) if kind == "usa"}
    assert table("customers") == sorted(last.values())
    assert table("customers_alerts") == wanted("incomplete")


@pytest.mark.second_tier
@pytest.mark.parametrize(
    ("stage", "program"), [("kafka-hdfs", "spark_streaming_job_kafka_hdfs.py"), ("db", "spark_streaming_job_db.py")]
)
def test_a_job_is_submitted_by_hand(every: Cluster, stage: str, program: str) -> None:
    """As the pipeline's page has it: it goes on where the service stopped, and the service where it stopped."""
    run = f"by-hand-{stage}-{time.time():.0f}"
    every.sh("master", f"sudo systemctl stop {unit(stage)}")
    properties = f"-p User=customers -p EnvironmentFile=/etc/berny/{unit(stage)}/stage.env"
    submit = f"spark-submit /opt/berny/berny-customers/python/berny/pipelines/customers/{program}"
    try:
        every.sh("master", f"sudo systemd-run --unit {run} --collect {properties} {submit}")
        every.load(run, 40, PIPELINE)
        every.serve(80, 120, PIPELINE)
        report = every.settle(run, 300, PIPELINE)
    finally:
        every.sh("master", f"sudo systemctl stop {run}; sudo systemctl start {unit(stage)}")
    assert " 0 expected" not in report, report
    every.load(f"{run}-after", 40, PIPELINE)
    every.serve(80, 120, PIPELINE)
    every.settle(f"{run}-after", 300, PIPELINE)


@pytest.mark.second_tier
def test_the_environment_is_reset_and_everything_comes_again(every: Cluster, run: str, read: str) -> None:
    """As its document has it; a checkpoint that was removed by hand is reported with that remedy."""
    since = time.time()
    every.sh("master", f"sudo systemctl stop {unit('kafka-hdfs')}")
    every.sh("master", "sudo -u hdfs hdfs dfs -rm -r /data/customers/checkpoints/checkpoint_customers_hdfs")
    every.sh("master", f"sudo systemctl start --no-block {unit('kafka-hdfs')}; sleep 60")
    journal = every.sh("master", f"sudo journalctl -u {unit('kafka-hdfs')} --since @{since:.0f} --no-pager")
    assert "reset_environment.sh" in journal and "status=78/CONFIG" in journal, journal[-3000:]
    every.sh("master", "sh /opt/berny/berny-customers/scripts/reset_environment.sh --yes", timeout=300)

    def lacking() -> list[str]:
        # Later rows of the other run are of customers of the first one.
        report = harness.check(every.lab, PIPELINE, [run, read]).stdout
        [expected, *sinks] = report.splitlines()
        assert not expected.startswith("0 ") and len(sinks) == 7, report
        # The jobs publish all of it again, which the reset leaves to readers of both topics.
        repeated = re.compile(r"customers-(usa|alerts): \d+ found, 0 lost, \d+ duplicate, 0 wrong, 0 unexpected")
        once = re.compile(r"\d+ found, 0 lost, 0 duplicate, 0 wrong, 0 unexpected")
        return [line for line in sinks if not (repeated.match(line) or once.search(line))]

    wait_until(lambda: not lacking(), 300, lambda: "\n".join(lacking()))
