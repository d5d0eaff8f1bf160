"""From the simulated S3 server to ``customers-raw``, by the real client: each row once, and what each failure does."""

from __future__ import annotations

import csv
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from memory import Topics
from simulated import Clock, Served

from berny.pipelines.customers.controller import people
from berny.pipelines.customers.controller.simulator import FAULTS, Simulator
from berny.pipelines.customers.kafka_producer import TOPIC, Settings, poller
from berny.pipelines.customers.s3 import S3Object
from berny.runtime.source import RetryLater, Unauthorized

Start = Callable[..., Served]


@pytest.fixture
def s3(tmp_path: Path, clock: Clock) -> Iterator[Served]:
    """A server whose rate is 20 rows a second of a clock that a test moves."""
    served = Served(Simulator(1, 20.0, tmp_path / "truth.jsonl", clock, "run"))
    yield served
    served.close()


def source(served: Served, key: str = "secret") -> S3Object:
    """Return the client."""
    return S3Object(served.url, "us-east-1", "customers", "customers.csv", "simulated", key)


def settings(served: Served, folder: Path, **words: Any) -> Settings:
    """Return the producer's environment in a lab."""
    given = {
        "berny_pipeline": "customers", "berny_stage": "producer", "berny_metrics_port": 1, "kafka_bootstrap_servers": "x",
        "berny_spool_dir": folder, "berny_spool_max_bytes": 1 << 30, "customers_s3_endpoint": served.url,
        "customers_s3_access_key": "simulated", "customers_s3_secret_key": "s", "customers_poll_seconds": 0.05,
        "customers_rows_a_second": 0, "berny_data_origin": "simulated",
    }  # fmt: skip
    return Settings.model_validate(given | words)


def truth(served: Served) -> list[dict[str, Any]]:
    """Return the lines about rows."""
    lines = [json.loads(line) for line in served.simulator.truth.read_text().splitlines()]
    return [line for line in lines if "identity" in line]


def fault(served: Served, kind: str) -> None:
    """Inject one for a response."""
    requests.post(f"{served.url}/_simulator/faults", json={"kind": kind}, timeout=5).raise_for_status()


def run(made: Settings, topics: Topics, until: Callable[[], bool]) -> None:
    """Run the producer until something is true."""
    stop = threading.Event()
    producer = poller(made, topics, stop)
    thread = threading.Thread(target=producer.run)
    thread.start()
    deadline = time.monotonic() + 30
    while not until() and time.monotonic() < deadline:
        time.sleep(0.02)
    stop.set()
    thread.join()
    assert until(), "it took too long"


def test_each_row_of_each_version_is_a_record(s3: Served, tmp_path: Path, clock: Clock) -> None:
    """In all three encodings; what a record says is what the row was made of."""
    topics, folder = Topics(), tmp_path / "deposit"
    folder.mkdir()
    for count in (1, 41, 81):
        run(settings(s3, folder), topics, lambda: len(topics.values(TOPIC)) == count)  # noqa: B023
        clock.now += 2
    run(settings(s3, folder), topics, lambda: len(topics.values(TOPIC)) == 121)
    told = truth(s3)
    records = [json.loads(value) for value in topics.values(TOPIC)]
    assert [one["identity"] for one in records] == [line["identity"] for line in told]
    assert len({line["identity"].split(":")[0] for line in told}) == 4
    wanted = [people.customer(s3.simulator._number - 120 + number, 1) for number in range(121)]  # type: ignore[attr-defined]
    for record, one in zip(records, wanted, strict=True):
        values = dict(zip(people.COLUMNS, one.row(), strict=False))
        assert record["customer"] == values and record["surplus"] == one.surplus
        assert record["missing"] == list(people.COLUMNS)[len(people.COLUMNS) - one.cut :]
        assert record["data_origin"] == "simulated"
    keys = [(record.key or b"").decode() for record in topics.records[TOPIC]]
    assert keys == [record["customer"]["Customer Id"] or record["identity"] for record in records]


def test_nothing_is_published_again(s3: Served, tmp_path: Path) -> None:
    """Not even after a restart; the position is in the deposit."""
    topics = Topics()
    run(settings(s3, tmp_path), topics, lambda: len(topics.values(TOPIC)) == 1)
    asked = s3.simulator.answers
    began = time.monotonic()
    run(settings(s3, tmp_path), topics, lambda: time.monotonic() > began + 0.5)
    assert len(topics.values(TOPIC)) == 1 and s3.simulator.answers == asked


@pytest.mark.parametrize("kind", [kind for kind in FAULTS if kind not in ("403", "slow")])
def test_a_failure_is_repeated(s3: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """And nothing is acknowledged of it."""
    monkeypatch.setattr("berny.runtime.file_poller.backoff", lambda failures, seconds=None: 0.05)
    fault(s3, kind)
    topics = Topics()
    run(settings(s3, tmp_path), topics, lambda: len(topics.values(TOPIC)) == 1)
    assert [json.loads(value)["identity"] for value in topics.values(TOPIC)] == [truth(s3)[-1]["identity"]]


def test_a_refused_key_needs_a_person(s3: Served) -> None:
    """The message names the settings, and not the key."""
    fault(s3, "403")
    with pytest.raises(
        Unauthorized, match=r"s3://customers/customers.csv: returned 403.*CUSTOMERS_S3_SECRET_KEY"
    ) as told:
        source(s3, "the-secret").version()
    assert "the-secret" not in str(told.value)


def test_another_version_is_not_taken_for_the_one_that_was_asked_for(s3: Served, clock: Clock) -> None:
    one = source(s3)
    former = one.version()
    b"".join(one.content(former).parts)
    clock.now += 1
    assert one.version() != former
    with pytest.raises(RetryLater, match="returned 412"):
        one.content(former)


def test_a_server_that_is_away_is_asked_again(s3: Served) -> None:
    s3.close()
    with pytest.raises(RetryLater, match="Could not connect"):
        source(s3).version()
    s3.close = lambda: None  # type: ignore[method-assign]


def test_truth_is_written_before_the_response_and_completed_after_it(s3: Served) -> None:
    one = source(s3)
    etag = one.version()
    assert truth(s3) == []
    parts = one.content(etag).parts
    assert [line["identity"] for line in truth(s3)] == [f"{etag}:1"]
    b"".join(parts)
    deadline = time.monotonic() + 5
    while '"served": true' not in s3.simulator.truth.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_time_without_a_rate_makes_no_rows_later(s3: Served, clock: Clock) -> None:
    def ask(method: str) -> None:
        url, headers = f"{s3.url}/customers/customers.csv", {"Authorization": "any"}
        requests.request(method, url, headers=headers, timeout=5).raise_for_status()

    ask("HEAD")
    ask("GET")
    for rate, seconds in ((0.0, 100), (20.0, 2)):
        s3.simulator.rate = rate
        clock.now += seconds
        ask("HEAD")
    assert s3.simulator.observations == 1 + 40


def test_customers_are_of_the_form_that_the_file_has() -> None:
    """Every kind of row is there, and a reader of CSV reads what was drawn."""
    drawn = [people.customer(number, 3) for number in range(3000)]
    assert {one.kind for one in drawn} == {"usa", "elsewhere", "incomplete"}
    assert {reason for one in drawn for reason in one.reasons} >= {people.NO_ID, people.BAD_DATE, people.MISSING}
    for coding in people.CODINGS:
        lines = people.text(drawn, coding).decode(coding).splitlines(keepends=True)
        header, *rows = csv.reader(lines)
        assert tuple(header) == people.COLUMNS and rows == [one.row() for one in drawn]
