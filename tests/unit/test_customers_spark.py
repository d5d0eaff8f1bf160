"""Job 1 by real Spark, Kafka and HDFS: what a row is by the rules, and each row once in files, whatever it is killed at."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hadoop import Hdfs
from kafkas import Kafka
from memory import Crash

from berny.pipelines.customers import records
from berny.pipelines.customers.controller import people
from berny.runtime import delimited
from berny.runtime.checkpoint import following
from berny.runtime.deposit import Version
from berny.runtime.files import Files
from berny.runtime.stage import ConfigurationError

USER = "customers"
FOLDERS = {"usa": "/user/maria_dev/customers_usa", "incomplete": "/user/maria_dev/customers_alerts"}
TOPICS = ("customers-usa", "customers-alerts", "customers-raw.dlq")
SCHEMA = "key BINARY, value BINARY, topic STRING, partition INT, offset BIGINT, timestamp TIMESTAMP"
GOOD = {
    "Index": "1", "Customer Id": "DD37Cf93aecA6Dc", "First Name": "Sheryl", "Last Name": "Baxter", "Company": "R Group",
    "City": "East Leonard", "Country": "United States of America", "Phone 1": "229.077.5154", "Phone 2": "397.884.0519x718",
    "Email": "zunigavanessa@smith.info", "Subscription Date": "2020-08-24", "Website": "http://www.stephenson.com/",
}  # fmt: skip


@pytest.fixture(scope="module")
def spark(tmp_path_factory: pytest.TempPathFactory, archive: Callable[[str], Path], hdfs: Hdfs) -> Iterator[Any]:
    """An application on this host alone, and the job's modules; HDFS is there before, since its user would be another."""
    home = archive("spark")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPARK_HOME", str(home))
        patch.setenv("SPARK_LOCAL_IP", "127.0.0.1")
        patch.setenv("PYSPARK_PYTHON", sys.executable)
        patch.setenv("HADOOP_USER_NAME", USER)
        patch.setattr(sys, "path", [str(home / "python"), *sys.path])
        from pyspark import SparkContext
        from pyspark.sql import SparkSession

        # Of tests before these: it is another user in HDFS.
        if former := SparkContext._gateway:
            former.shutdown()
            former.proc.stdin.close()
            SparkContext._gateway = SparkContext._jvm = None

        from berny.pipelines.customers import columns, compact
        from berny.pipelines.customers import spark_streaming_job_kafka_hdfs as job

        settings = {
            "spark.ui.enabled": "false", "spark.driver.memory": "700m", "spark.sql.session.timeZone": "UTC",
            "spark.driver.extraJavaOptions": "-XX:+UseSerialGC -XX:TieredStopAtLevel=1", "spark.log.level": "ERROR",
            "spark.sql.shuffle.partitions": "2", "spark.hadoop.dfs.replication": "1",
            "spark.sql.warehouse.dir": str(tmp_path_factory.mktemp("warehouse")),
        }  # fmt: skip
        builder = SparkSession.builder.master("local[1]").appName("tests")
        for name, value in settings.items():
            builder = builder.config(name, value)
        made = builder.getOrCreate()
        yield SimpleNamespace(session=made, columns=columns, job=job, compact=compact)
        made.stop()


def rows(spark: Any, values: list[bytes | None]) -> Any:
    """Return records as Spark's Kafka source does."""
    at = datetime(2025, 11, 24, tzinfo=UTC)
    made = [(None, value and bytearray(value), "customers-raw", 0, offset, at) for offset, value in enumerate(values)]
    return spark.session.createDataFrame(made, SCHEMA)


def record(number: int = 1, source: str = "etag", missing: list[str] | None = None, **fields: str) -> bytes:
    """Return a record of a good row in which some fields are others; names have underscores for spaces."""
    customer = GOOD | {name.replace("_", " "): value for name, value in fields.items()}
    customer = {name: value for name, value in customer.items() if name not in (missing or ())}
    body = {"identity": f"{source}:{number}", "observed_at": 1.5, "data_origin": "x", "row": number}
    return json.dumps(body | {"customer": customer, "missing": missing or [], "surplus": []}).encode()


# -- the rules -------------------------------------------------------------------------------------------------------

CASES: list[tuple[bytes | None, str, list[str]]] = [
    (record(), "usa", []),
    *((record(Country=country), "usa", []) for country in people.USA),
    (record(Country="the United States"), "usa", []),
    *((record(Country=country), "elsewhere", []) for country in people.ELSEWHERE),
    (record(Country="United States Minor Outlying Islands"), "elsewhere", []),
    (record(Company="", Website="", Phone_1="", Index="x"), "usa", []),
    (record(Customer_Id=" \u00a0"), "incomplete", ["no Customer Id"]),
    (record(Country="Chile", First_Name="", Last_Name="\n"), "incomplete", ["no First Name", "no Last Name"]),
    (record(Country=""), "incomplete", ["no Country"]),
    (record(Email=""), "incomplete", ["no Email"]),
    *((record(Email=text), "incomplete", ["Email is malformed"]) for text in ("a", "a@b", "a@@b.c", "a b@c.d", "a@b..c")),
    *((record(Email=text), "usa", []) for text in ("a@b.c", " A.B+c@d-e.F.g ")),
    (record(Subscription_Date=""), "incomplete", ["no Subscription Date"]),
    *((record(Subscription_Date=text), "incomplete", ["Subscription Date is malformed"])
      for text in ("2021-02-29", "2021-2-3", "03/04/2021", "20210304", "2021-13-01", "2021-01-01T00:00")),
    (record(Subscription_Date=" 2020-02-29 "), "usa", []),
    (record(missing=["Website"]), "incomplete", ["missing columns"]),
    (record(missing=["Email", "Website"]), "incomplete", ["missing columns", "no Email"]),
    (json.dumps({**json.loads(record()), "surplus": ["x"]}).encode(), "incomplete", ["surplus columns"]),
    (None, "dead", []), (b"", "dead", []), (b"[]", "dead", []), (b"{", "dead", []), (b'{"identity": "a:1"}', "dead", []),
    (json.dumps({**json.loads(record()), "identity": "none"}).encode(), "dead", []),
    (json.dumps({**json.loads(record()), "identity": None}).encode(), "dead", []),
]  # fmt: skip


def test_what_a_row_is(spark: Any) -> None:
    """By the rules of the README, all in one batch, so that a bad one costs no neighbour."""
    found = (
        spark.columns.judged(rows(spark, [value for value, _, _ in CASES]))
        .select("offset", "kind", "reasons")
        .collect()
    )
    shown = {one.offset: (one.kind, sorted(one.reasons) if one.kind == "incomplete" else []) for one in found}
    assert [shown[number] for number in range(len(CASES))] == [(kind, sorted(reasons)) for _, kind, reasons in CASES]


def test_fields_are_clean(spark: Any) -> None:
    """Without spaces around them, line breaks and control characters; null where nothing is left."""
    value = record(
        First_Name="  José \t\n de ", Email="A@B.Org", Company="\x00", Website=" ", Index="12", City="Saint-Étienne"
    )
    cleaned = spark.columns.values(spark.columns.judged(rows(spark, [value])), spark.columns.customer()).collect()
    found = json.loads(cleaned[0].value)
    assert found == {
        "identity": "etag:1", "observed_at": 1.5, "data_origin": "x", "index": 12, "customer_id": "DD37Cf93aecA6Dc",
        "first_name": "José de", "last_name": "Baxter", "company": None, "city": "Saint-Étienne",
        "country": "United States of America", "phone_1": "229.077.5154", "phone_2": "397.884.0519x718",
        "email": "a@b.org", "subscription_date": "2020-08-24", "website": None,
    }  # fmt: skip


def test_drawn_customers_are_what_they_were_drawn_as(spark: Any, tmp_path: Path) -> None:
    """Through the file, the producer's parser and Spark's columns; nothing of that knows what was drawn."""
    drawn = [people.customer(number, 5) for number in range(2000)]
    file = tmp_path / "file.csv"
    file.write_bytes(people.text(drawn, "latin-1"))
    version = Version(1, "etag", 1.0, 0, 0, 0, file)
    values = [row.record.value for row in records.rows(version, "customers-raw", "simulated")]
    found = (
        spark.columns.judged(rows(spark, values)).select("offset", "kind", "reasons", "customer_id", "email").collect()
    )
    assert len(found) == 2000
    for one in found:
        wanted = drawn[one.offset]
        assert (one.kind, one.reasons) == (wanted.kind, wanted.reasons), wanted
        if wanted.kind == "usa":
            truth = wanted.truth()
            assert (one.customer_id, one.email) == (truth["customer_id"], truth["email"])
    assert delimited.encoding(file) == "latin-1"


# -- batches ---------------------------------------------------------------------------------------------------------


class Here:
    """The job with directories and topics of its own."""

    def __init__(self, spark: Any, hdfs: Hdfs, kafka: Kafka) -> None:
        self.spark, self.hdfs, self.kafka = spark, hdfs, kafka
        for path in FOLDERS.values():
            hdfs.provide(path, USER)
        kafka.create(*TOPICS)
        self.files = {kind: Files(hdfs.url, USER, path) for kind, path in FOLDERS.items()}
        self.progress = following(None, "topic", {0: 0}, "")
        self.settings = spark.job.Settings(
            berny_pipeline="customers", berny_stage="kafka-hdfs", berny_metrics_port=1,
            kafka_bootstrap_servers=kafka.servers, hdfs_url=hdfs.uri, hdfs_web_url=hdfs.url, hdfs_user=USER,
            berny_checkpoint="x", berny_state_dir=Path("/nowhere"),
        )  # fmt: skip

    def job(self) -> Any:
        """Return the job after a start."""
        made = self.spark.job.Job(self.settings, self.progress)
        made.begin()
        return made

    def lines(self, kind: str) -> list[dict[str, Any]]:
        """Return the objects that a reader of the JSON files sees."""
        names = sorted(name for name in self.files[kind].sizes("") if name.startswith("part-"))
        return [json.loads(line) for name in names for line in self.files[kind].lines(name)]

    def identities(self, kind: str) -> Counter[str]:
        """Return how often each identity is in a directory."""
        return Counter(line["identity"] for line in self.lines(kind))

    def published(self, topic: str) -> list[str]:
        """Return the identities in a topic."""
        return [json.loads(value)["identity"] for value in self.kafka.values(topic)]

    def compact(self) -> dict[str, Any]:
        """Run the timer's work; return the rows of each directory's Parquet."""
        keep = ",".join(f"{path}=730d" for path in FOLDERS.values())
        settings = self.spark.compact.Settings(
            berny_pipeline="customers", berny_stage="compact", berny_metrics_port=1, berny_state_dir=Path("/nowhere"),
            hdfs_url=self.hdfs.uri, hdfs_web_url=self.hdfs.url, hdfs_user=USER, berny_directories=keep,
        )  # fmt: skip
        list(self.spark.compact.Work(settings, self.spark.session).work())
        return {kind: self.parquet(kind) for kind in FOLDERS}

    def parquet(self, kind: str) -> list[Any]:
        """Return the rows of a directory's Parquet."""
        if not any(name.startswith("part-") for name in self.files[kind].sizes("parquet")):
            return []
        return list(self.spark.session.read.parquet(f"{self.hdfs.uri}{FOLDERS[kind]}/parquet").collect())


@pytest.fixture
def here(spark: Any, hdfs: Hdfs, kafka: Kafka) -> Here:
    """The job, which has written nothing yet."""
    return Here(spark, hdfs, kafka)


BATCH = [record(1), record(2, Country="Chile"), record(3, Email=""), b"no JSON", record(4)]


def test_a_batch_goes_where_its_rows_belong(here: Here) -> None:
    """What is neither is in the raw topic alone."""
    here.job().write(rows(here.spark, BATCH), 0)
    assert here.identities("usa") == {"etag:1": 1, "etag:4": 1} and here.identities("incomplete") == {"etag:3": 1}
    assert sorted(here.published("customers-usa")) == ["etag:1", "etag:4"] and here.published("customers-alerts") == [
        "etag:3"
    ]
    [letter] = map(json.loads, here.kafka.values("customers-raw.dlq"))
    assert letter["origin"] == {"topic": "customers-raw", "partition": 0, "offset": 3}
    [alert] = here.lines("incomplete")
    assert alert["reasons"] == ["no Email"] and alert["customer"] == GOOD | {"Email": ""}


def test_records_that_a_batch_has_twice_keep_their_order(here: Here) -> None:
    """A customer's older row does not come after the newer one; the text of identities has another order."""
    here.job().write(rows(here.spark, [record(9), record(10), record(9), record(10)]), 0)
    assert here.published("customers-usa") == ["etag:9", "etag:10"]
    assert [line["identity"] for line in here.lines("usa")] == ["etag:9", "etag:10"]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_kills_at_each_step_leave_each_row_once(here: Here, monkeypatch: pytest.MonkeyPatch, after: bool) -> None:
    """After each the batch is repeated, as Spark does; then the next batch repeats records that the topic has twice."""
    kills, left = 0, 0

    def deadly(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def step(self: Files, *words: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0 and not after:
                raise Crash
            result = method(self, *words)
            if left == 0:
                raise Crash
            return result

        return step

    for name in ("rename", "remove", "replace"):
        monkeypatch.setattr(Files, name, deadly(name, getattr(Files, name)))
    for number, batch in enumerate(
        [BATCH, [record(4), record(5), record(5), record(3, Email=""), record(6, Email="")]]
    ):
        for step in range(1, 99):
            left = step
            try:
                here.job().write(rows(here.spark, batch), number)
                break
            except Crash:
                kills += 1
        here.job().write(rows(here.spark, batch), number)
    assert here.identities("usa") == {"etag:1": 1, "etag:4": 1, "etag:5": 1}
    assert here.identities("incomplete") == {"etag:3": 1, "etag:6": 1}
    assert kills >= 8
    assert not [name for name in here.files["usa"].sizes("") if name.startswith("_batch-")]


def test_a_checkpoint_that_was_deleted_ends_the_stage(here: Here) -> None:
    """The message says which command helps."""
    here.job().write(rows(here.spark, BATCH), 0)
    here.progress = following(None, "topic", {0: 0}, "")
    with pytest.raises(
        ConfigurationError, match=r"is of another checkpoint .*scripts/reset_environment\.sh` on master"
    ):
        here.job()


def test_a_replaced_checkpoint_repeats_nothing(here: Here) -> None:
    """Offsets that were read are gone, and all is read again: what was seen stays seen."""
    here.job().write(rows(here.spark, BATCH), 0)
    here.progress = following(replace(here.progress, batch=0), "topic", {0: 0}, "")
    here.job().write(rows(here.spark, [*BATCH, record(9)]), 0)
    assert here.identities("usa") == {"etag:1": 1, "etag:4": 1, "etag:9": 1}


# -- compaction --------------------------------------------------------------------------------------------------------


def test_json_and_parquet_have_the_same_rows(here: Here) -> None:
    """Once for each run of the timer, with types; batches that come between are in the next run's."""
    job = here.job()
    for number in range(3):
        job.write(
            rows(here.spark, [record(10 * number + one) for one in range(1, 4)] + [record(10 * number + 9, Email="")]),
            number,
        )
    first = here.compact()
    assert len([name for name in here.files["usa"].sizes("") if name.startswith("part-")]) == 1
    job.write(rows(here.spark, [record(99)]), 3)
    assert {row.identity for row in here.parquet("usa")} == {row.identity for row in first["usa"]}
    second = here.compact()
    for kind in FOLDERS:
        assert Counter(row.identity for row in second[kind]) == here.identities(kind)
        assert set(here.identities(kind).values()) == {1}
    assert {str(row.subscription_date) for row in second["usa"]} == {"2020-08-24"}
    assert second["incomplete"][0].customer == GOOD | {"Email": ""}
    names = sorted(name for name in here.files["usa"].sizes("parquet") if name.endswith(".parquet"))
    assert names == [f"part-00000-00002-{here.progress.id}.parquet", f"part-00003-00003-{here.progress.id}.parquet"]
    assert here.compact() == second, "another run changes nothing"


def test_a_batch_that_is_not_complete_is_not_compacted(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be repeated, and looks for its file then."""
    job = here.job()
    job.write(rows(here.spark, [record(1)]), 0)
    with monkeypatch.context() as patch:
        patch.setattr(Files, "replace", lambda *words: (_ for _ in ()).throw(Crash))
        with pytest.raises(Crash):
            job.write(rows(here.spark, [record(2)]), 1)
    assert [row.identity for row in here.compact()["usa"]] == ["etag:1"]
    here.job().write(rows(here.spark, [record(2)]), 1)
    assert here.identities("usa") == {"etag:1": 1, "etag:2": 1}
    assert sorted(row.identity for row in here.compact()["usa"]) == ["etag:1", "etag:2"]


def test_a_kill_of_the_compaction_changes_no_row(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before each step of it, what readers of JSON and of Parquet see has each row once; then it completes."""
    job = here.job()
    for number in range(3):
        job.write(rows(here.spark, [record(number + 1)]), number)
    wanted = here.identities("usa")
    originals = {name: getattr(Files, name) for name in ("rename", "remove", "concat")}
    for step in range(1, 20):
        left = step

        def deadly(name: str) -> Callable[..., Any]:
            def call(self: Files, *words: Any) -> Any:
                nonlocal left
                left -= 1
                if left == 0:
                    raise Crash
                return originals[name](self, *words)

            return call

        with monkeypatch.context() as patch:
            for name in originals:
                patch.setattr(Files, name, deadly(name))
            try:
                here.compact()
                killed = False
            except Crash:
                killed = True
        assert here.identities("usa") == wanted
        assert set(Counter(row.identity for row in here.parquet("usa")).values()) <= {1}
        if not killed:
            break
    assert step > 2 and Counter(row.identity for row in here.parquet("usa")) == wanted


def test_readers_of_the_directory_ignore_what_is_beside(here: Here) -> None:
    """Spark reads the directory's JSON as it is, with Parquet and states in folders below it."""
    here.job().write(rows(here.spark, BATCH), 0)
    here.compact()
    found = here.spark.session.read.json(f"{here.hdfs.uri}{FOLDERS['usa']}/*.json").collect()
    assert {row.identity for row in found} == {"etag:1", "etag:4"}
