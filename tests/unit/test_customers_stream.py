"""Both jobs as their units run them, processes of Spark with checkpoints, killed while records come: all is there once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import customers
import pytest
from archives import unpacked
from customers import Database
from hadoop import Hdfs
from kafkas import Kafka

from berny.pipelines.customers import harness, records
from berny.pipelines.customers.controller import people
from berny.runtime import delimited
from berny.runtime.check import check, read_truth
from berny.runtime.deposit import Version
from berny.runtime.files import Files
from berny.runtime.probe import Cluster
from berny.runtime.rows import Tables

pytestmark = pytest.mark.second_tier

CHECKOUT = Path(__file__).resolve().parents[2]
FOLDER = CHECKOUT / "src" / "berny" / "pipelines" / "customers"
USER = "customers"
TOPICS = [
    f"{name}{suffix}" for name in ("customers-raw", "customers-usa", "customers-alerts") for suffix in ("", ".dlq")
]
DEFAULTS = """
spark.master local[2]
spark.driver.memory 500m
spark.driver.extraJavaOptions -XX:+UseSerialGC -XX:TieredStopAtLevel=1
spark.ui.enabled false
spark.sql.session.timeZone UTC
spark.sql.shuffle.partitions 2
spark.hadoop.dfs.replication 1
spark.hadoop.dfs.client.block.write.locateFollowingBlock.initial.delay.ms 5
"""


class Stage:
    """A stage's process, started again whenever it was killed."""

    def __init__(self, program: str, folder: Path, **environment: object) -> None:
        self._program, self._folder = program, folder
        (folder / "state").mkdir(parents=True, exist_ok=True)
        conf = folder / "conf"
        conf.mkdir(exist_ok=True)
        (conf / "spark-defaults.conf").write_text(DEFAULTS)
        home = unpacked("spark")
        own = {
            "SPARK_HOME": home, "SPARK_CONF_DIR": conf, "SPARK_LOCAL_IP": "127.0.0.1", "HADOOP_USER_NAME": USER,
            "PYTHONPATH": f"{CHECKOUT}/src:{home}/python", "PYSPARK_PYTHON": sys.executable, "BERNY_PIPELINE": "customers",
            "BERNY_STAGE": program[:5], "BERNY_METRICS_PORT": 0, "BERNY_STATE_DIR": folder / "state",
            "BERNY_TRIGGER_SECONDS": 0, "BERNY_BATCH_RECORDS": 400,
        }  # fmt: skip
        self._environment = os.environ | {name: str(value) for name, value in (own | environment).items()}
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, as a group of processes."""
        with (self._folder / "log").open("ab") as log:
            command = [sys.executable, str(FOLDER / self._program)]
            self.process = subprocess.Popen(
                command, env=self._environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
            )

    def kill(self) -> None:
        """Kill all of it."""
        if self.process:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self.process = None

    def log(self) -> str:
        """Return what it said at last."""
        return (self._folder / "log").read_text()[-3000:]


@pytest.fixture
def database() -> Iterator[Database]:
    """A database of this pipeline."""
    with customers.Database.running() as made:
        yield made


def published(kafka: Kafka, folder: Path, seed: int, count: int) -> list[str]:
    """Publish two versions of a file, the first batch of the second one twice; return the lines of the ground truth."""
    truth = []
    for number in (1, 2):
        drawn = [people.customer(number * 100_000 + one, seed) for one in range(count)]
        file = folder / f"{number}.csv"
        file.write_bytes(people.text(drawn, people.CODINGS[number]))
        rows = [
            row.record for row in records.rows(Version(number, f"v{number}", 1.0, 0, 0, 0, file), "customers-raw", "x")
        ]
        kafka.publish(*rows[:200], *(rows[:200] if number == 2 else []), *rows[200:])
        mark = {"run": "r", "answer": number}
        truth += [
            {**mark, "identity": f"v{number}:{row}", "at": 1.0, **one.truth()} for row, one in enumerate(drawn, 1)
        ]
        truth.append({**mark, "served": True, "at": 1.0})
    return [json.dumps(line) for line in truth]


def wait(condition: Callable[[], bool], stage: Stage, seconds: float = 240) -> None:
    """Wait for a condition; while it does not hold, the stage must run."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline and stage.process and stage.process.poll() is None, stage.log()
        time.sleep(0.3)


def test_all_is_there_once(
    hdfs: Hdfs, kafka: Kafka, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in the middle, both go on where they were; the checker of the harness finds nothing wrong in any sink."""
    for path in ("/data/customers", *harness.FOLDERS.values()):
        hdfs.provide(path, USER)
    kafka.create(*TOPICS)
    common = {
        "KAFKA_BOOTSTRAP_SERVERS": kafka.servers,
        "HDFS_URL": hdfs.uri,
        "HDFS_WEB_URL": hdfs.url,
        "HDFS_USER": USER,
    }
    checkpoints = f"{hdfs.uri}/data/customers/checkpoints"
    words = {name.upper(): value for name, value in database.environment("db").items() if name.startswith("pg_")}
    first = Stage(
        "spark_streaming_job_kafka_hdfs.py", tmp_path / "1", BERNY_CHECKPOINT=f"{checkpoints}/checkpoint_customers_hdfs",
        **common,
    )  # fmt: skip
    second = Stage(
        "spark_streaming_job_db.py", tmp_path / "2", BERNY_CHECKPOINT=f"{checkpoints}/checkpoint_customers_db",
        **common, **words,
    )  # fmt: skip
    files = {kind: Files(hdfs.url, USER, path) for kind, path in harness.FOLDERS.items()}
    truth = published(kafka, tmp_path, 1, 1500)
    expected = Counter(json.loads(line).get("kind") for line in truth)

    def lines(kind: str) -> int:
        return sum(1 for _ in harness.lines(files[kind], 0))

    def stored() -> int:
        [(count,)] = database.ask("SELECT count(DISTINCT customer_id) FROM customers")
        return int(count)

    try:
        for share in (0.2, 0.5, 1):
            first.start()
            wait(lambda: lines("usa") >= share * expected["usa"], first)  # noqa: B023
            first.kill()
        for least in (1, 500):
            second.start()
            wait(lambda: stored() >= least, second)  # noqa: B023
            second.kill()
        first.start()
        second.start()
        wait(lambda: lines("incomplete") >= expected["incomplete"], first)
        last = database.ask
        wanted = {json.loads(line)["customer_id"] for line in truth if json.loads(line).get("kind") == "usa"}
        wait(lambda: last("SELECT count(*) FROM customers") == [(len(wanted),)], second)
        time.sleep(3)
    finally:
        first.kill()
        second.kill()
    cluster = Cluster({"nodes": {}, "services": {}, "pipelines": {}}, "here")
    monkeypatch.setattr(harness, "topic", lambda _, name: harness.Topic(kafka.servers, name))
    monkeypatch.setattr(harness, "folder", lambda _, kind: files[kind])
    tables = Tables(str(database.server.folder), database.server.port, "customers", "berny_read")
    monkeypatch.setattr(harness, "tables", lambda _: tables)
    # The stage that fills this table is Python alone: test_customers_tables.py.
    sinks = [sink for sink in harness.sinks(cluster) if sink.name != "customers_alerts"]
    report = check(sinks, read_truth(truth, harness.expected))
    assert report.clean, str(report)
    assert report.expected == 3000 and len(report.sinks) == 6
    assert kafka.values("customers-raw.dlq") == kafka.values("customers-usa.dlq") == []
    assert delimited.encoding(tmp_path / "2.csv") == "latin-1"
