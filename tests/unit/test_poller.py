"""The poller with a source, topics and a landing that fail: what was acknowledged is lost nowhere."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from memory import Crash, Topics
from prometheus_client import REGISTRY

from berny.runtime import poller, response
from berny.runtime.files import FilesError
from berny.runtime.kafka import Record
from berny.runtime.poller import Pace, Poller, PollerSettings, Raw
from berny.runtime.response import BadPart, Observation
from berny.runtime.source import Refused, RetryLater, Unauthorized
from berny.runtime.spool import Answer, Spool, SpoolUnavailable

TOPIC = "toys"
TOY = {"berny_pipeline": "toy", "berny_stage": "s", "berny_metrics_port": 1, "kafka_bootstrap_servers": "-"}


class Toys:
    """A source of numbered things; what is in ``script`` comes first, a response or an error."""

    def __init__(self, *script: bytes | Exception, endless: bool = False) -> None:
        self.script = list(script)
        self.served: list[bytes] = []
        self.endless = endless

    def poll(self) -> bytes:
        """Return or raise what is next; without any more, wait."""
        if not self.script:
            if not self.endless:
                raise RetryLater("nothing is left", 0.01)
            self.script.append(toys(len(self.served)))
        found = self.script.pop(0)
        if isinstance(found, Exception):
            raise found
        self.served.append(found)
        return found


class Landing:
    """Lands a response at a time."""

    def __init__(self) -> None:
        self.landed: list[int] = []
        self.away = 0
        self.kept: list[float] = []

    def land(self, spool: Spool) -> int:
        """Land the next one."""
        if self.away:
            self.away -= 1
            raise FilesError("HDFS is away")
        waiting = spool.read(spool.cursor("hdfs"), 1)
        for answer in waiting:
            self.landed.append(answer.offset)
            spool.advance("hdfs", answer.offset)
        return len(waiting)

    def drop_expired(self, keep_seconds: float) -> list[str]:
        """Note what is asked."""
        self.kept.append(keep_seconds)
        return []


def toys(*numbers: Any) -> bytes:
    """Return a response about things."""
    return json.dumps(list(numbers)).encode()


def observations(parsed: Any) -> Iterator[Observation | BadPart]:
    """Take it apart: a number is a thing, all else is none."""
    if not isinstance(parsed, list):
        raise response.MalformedResponse("no list")
    for place, one in enumerate(parsed):
        if isinstance(one, int):
            yield Observation(response.identity(one, str(one)), "key", {"number": one})
        else:
            yield BadPart("no number", f"[{place}]", one)


def records(answer: Answer) -> list[tuple[str, Record]]:
    """Return the records of a response."""
    return response.records(answer, TOPIC, "toy", "simulated", observations)


class Bench:
    """A spool, topics and a landing that outlive the processes of the poller."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.topics = Topics()
        self.landing = Landing()
        self.max_bytes = 1 << 20
        self.failure: BaseException | None = None
        self.spool = Spool(folder, 1 << 20, ["kafka", "hdfs"])

    def poller(self, source: Toys, stop: threading.Event, quota: int = 0, raw: bool = True) -> Poller:
        """Return one more process."""
        settings = PollerSettings(**TOY, berny_spool_dir=self.folder, berny_spool_max_bytes=self.max_bytes)  # type: ignore[arg-type]
        landing = Raw(self.landing, 7.0) if raw else None
        return Poller(settings, source, Pace(0, quota), records, self.topics, stop, landing)

    @contextmanager
    def running(self, source: Toys, **words: Any) -> Iterator[None]:
        """Run one, and stop it in the end."""
        stop = threading.Event()
        process = self.poller(source, stop, **words)

        def run() -> None:
            try:
                process.run()
            except BaseException as error:
                self.failure = error

        thread = threading.Thread(target=run)
        self.failure = None
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(20)
        assert not thread.is_alive()

    def run_to_its_end(self, source: Toys, **words: Any) -> BaseException | None:
        """Run one that ends by itself; return why."""
        with self.running(source, **words):
            until(lambda: self.failure is not None)
        return self.failure

    @property
    def numbers(self) -> list[int]:
        """What was published."""
        return [json.loads(value)["number"] for value in self.topics.values(TOPIC)]

    @property
    def letters(self) -> list[dict[str, Any]]:
        """The dead letters."""
        return [json.loads(value) for value in self.topics.values(f"{TOPIC}.dlq")]


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """An empty spool, and no waits."""
    monkeypatch.setattr(poller, "backoff", lambda attempt, asked: 0.0)
    monkeypatch.setattr(poller, "pause", lambda stop, seconds: stop.wait(min(seconds, 0.01)))
    made = Bench(tmp_path)
    yield made
    made.spool.close()


def until(met: Callable[[], bool]) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + 20
    while not met():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def polls(outcome: str) -> float:
    """Return how many calls had an outcome."""
    return REGISTRY.get_sample_value("berny_polls_total", {"outcome": outcome}) or 0.0


def test_responses_reach_the_topic_and_the_landing_once(bench: Bench) -> None:
    """In order; what the source says again is published once, and landed as it came."""
    source = Toys(toys(1, 2), toys(2, 3), toys(1, 4))
    with bench.running(source):
        until(lambda: len(bench.landing.landed) == 3 and len(bench.numbers) == 4)
    assert bench.failure is None
    assert bench.numbers == [1, 2, 3, 4] and bench.letters == []
    assert bench.landing.landed == sorted(set(bench.landing.landed))
    assert set(bench.landing.kept) == {7.0}
    first = json.loads(bench.topics.values(TOPIC)[0])
    assert first["identity"] == response.identity(1, "1") and first["data_origin"] == "simulated"
    assert first["spool_offset"] == bench.landing.landed[0]


def test_an_appended_response_ends_the_wait_of_the_publisher(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be published after a minute else; the source responds once nothing is left to publish."""
    monkeypatch.setattr(poller, "IDLE_SECONDS", 60)
    waits = threading.Event()
    wait = threading.Event.wait

    def noted(event: threading.Event, timeout: float | None = None) -> bool:
        if timeout == 60:
            waits.set()
        return wait(event, timeout)

    class Late(Toys):
        def poll(self) -> bytes:
            assert wait(waits, 20)
            return super().poll()

    stop = threading.Event()
    process = bench.poller(Late(toys(1)), stop)
    thread = threading.Thread(target=process.run, daemon=True)
    monkeypatch.setattr(threading.Event, "wait", noted)
    thread.start()
    until(lambda: bench.numbers == [1])
    # The publisher sleeps its minute: the stop is noticed at once with the next response.
    stop.set()
    process._appended.set()
    thread.join(20)
    assert not thread.is_alive()


def test_a_backlog_is_published_in_parts(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """However large it is, memory holds some bytes of it at once."""
    for number in range(4):
        bench.spool.append(toys(number), time.time())
    batches: list[int] = []
    publish = bench.topics.publish

    def counting(found: Iterator[Record]) -> int:
        batches.append(publish(found))
        return batches[-1]

    monkeypatch.setattr(bench.topics, "publish", counting)
    monkeypatch.setattr(poller, "BATCH_BYTES", 2 * len(toys(0)))
    with bench.running(Toys()):
        until(lambda: len(bench.numbers) == 4)
    assert bench.numbers == [0, 1, 2, 3] and batches == [2, 2]


def test_what_was_published_is_known_to_the_next_process(bench: Bench) -> None:
    """The source repeats itself over a restart."""
    with bench.running(Toys(toys(1, 2))):
        until(lambda: len(bench.numbers) == 2)
    with bench.running(Toys(toys(2, 3))):
        until(lambda: len(bench.numbers) == 3)
    assert bench.numbers == [1, 2, 3]


def test_bad_part_costs_its_neighbours_nothing(bench: Bench) -> None:
    """It is a dead letter with its place, as is what is no response at all."""
    with bench.running(Toys(toys(1, "bad", 2), b"no JSON", b"{}", toys(3))):
        until(lambda: len(bench.numbers) == 3)
    assert bench.numbers == [1, 2, 3]
    assert [letter["origin"].get("part") for letter in bench.letters] == ["[1]", None, None]
    assert [letter["reason"].split(":")[0] for letter in bench.letters] == [
        "no number", "JSONDecodeError", "MalformedResponse",
    ]  # fmt: skip


def test_source_that_fails_is_asked_again(bench: Bench) -> None:
    """Each time it may pass, and no call is forgotten."""
    before = polls("retry")
    with bench.running(Toys(RetryLater("busy"), toys(1), RetryLater("limit", 3.0), RetryLater("cut"), toys(2))):
        until(lambda: len(bench.numbers) == 2)
    assert polls("retry") - before >= 3


def test_source_is_not_asked_sooner_than_it_said(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pace is the least, and the wait grows with what failed in a row."""
    asked: list[tuple[int, float | None]] = []
    monkeypatch.setattr(poller, "backoff", lambda attempt, seconds: asked.append((attempt, seconds)) or 0.0)
    source = Toys(RetryLater("busy"), RetryLater("limit", 3.0), toys(1), RetryLater("busy", 0.5))
    with bench.running(source):
        until(lambda: len(asked) >= 3)
    assert asked[:3] == [(1, None), (2, 3.0), (1, 0.5)]


@pytest.mark.parametrize(("error", "outcome"), [(Unauthorized("no key"), "unauthorized"), (Refused("no"), "refused")])
def test_refusal_ends_all_of_it(bench: Bench, error: Refused, outcome: str) -> None:
    """A person has to act; what was acknowledged before is delivered by the next process."""
    before = polls(outcome)
    bench.topics.away = 1 << 30
    assert bench.run_to_its_end(Toys(toys(1), error)) is error
    assert polls(outcome) - before == 1
    bench.topics.away = 0
    with bench.running(Toys(toys(2))):
        until(lambda: len(bench.numbers) == 2)
    assert bench.numbers == [1, 2]


def test_landing_goes_on_while_kafka_is_away(bench: Bench) -> None:
    """And all is published once it is back."""
    bench.topics.away = 1 << 30
    with bench.running(Toys(toys(1), toys(2))):
        until(lambda: len(bench.landing.landed) == 2)
        assert bench.numbers == []
        bench.topics.away = 0
        until(lambda: len(bench.numbers) == 2)
    assert bench.numbers == [1, 2]


def test_publishing_goes_on_while_hdfs_is_away(bench: Bench) -> None:
    """And all is landed once it is back."""
    bench.landing.away = 1 << 30
    with bench.running(Toys(toys(1), toys(2))):
        until(lambda: len(bench.numbers) == 2)
        assert bench.landing.landed == []
        bench.landing.away = 0
        until(lambda: len(bench.landing.landed) == 2)
    assert bench.numbers == [1, 2]


def test_a_response_that_comes_with_the_stop_is_kept(bench: Bench) -> None:
    """Whatever stops the process while the source responds: the next one has it."""
    stop = threading.Event()

    class Stopping(Toys):
        def poll(self) -> bytes:
            stop.set()
            return super().poll()

    bench.poller(Stopping(toys(1)), stop).run()
    assert bench.spool.depth("kafka") == 1 and bench.numbers == []


def test_crash_between_publishing_and_noting_it_loses_nothing(bench: Bench) -> None:
    """A topic is transport, at least once: the batch may be there twice, and what follows it once."""
    bench.topics.crash_after = True
    source = Toys(toys(1), toys(2), toys(3))
    assert isinstance(bench.run_to_its_end(source), Crash)
    with bench.running(source):
        until(lambda: set(bench.numbers) == {1, 2, 3} and bench.spool.depth("kafka") == bench.spool.depth("hdfs") == 0)
    doubled = {number for number, count in Counter(bench.numbers).items() if count > 1}
    assert 1 in doubled and len(bench.numbers) == 3 + len(doubled)
    assert len(set(bench.landing.landed)) == 3, "what is landed is there once"


def test_full_spool_pauses_polling_and_loses_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The response at hand waits for room; once there is some, polling goes on."""
    monkeypatch.setattr(poller, "PRUNE_SECONDS", 0)
    bench.max_bytes, bench.topics.away = 40, 1 << 30
    source = Toys(endless=True)
    with bench.running(source):
        until(lambda: any("polling pauses" in line for line in caplog.messages))
        stuck = len(source.served)
        time.sleep(0.1)
        assert len(source.served) == stuck
        bench.topics.away = 0
        until(lambda: len(bench.numbers) > stuck + 20)
    assert bench.numbers == list(range(len(bench.numbers)))
    assert sum("polling pauses" in line for line in caplog.messages) >= 1


def test_disk_that_refuses_acknowledges_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """What came then was never acknowledged; the source is asked again."""
    append, failures = Spool.append, [SpoolUnavailable("the disk is full"), SpoolUnavailable("still")]

    def refuse(spool: Spool, body: bytes, fetched_at: float) -> int:
        if failures:
            raise failures.pop()
        return append(spool, body, fetched_at)

    monkeypatch.setattr(Spool, "append", refuse)
    before = polls("disk")
    with bench.running(Toys(toys(1), toys(2), toys(3))):
        until(lambda: bench.numbers == [3])
    assert polls("disk") - before == 2


def test_quota_is_kept_over_processes(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """A day has so many calls, whoever makes them."""
    for _ in range(2):
        with bench.running(Toys(endless=True), quota=3):
            until(lambda: any("the daily quota is used up" in line for line in caplog.messages))
        caplog.clear()
    assert bench.spool.calls(time.strftime("%Y-%m-%d", time.gmtime())) == 3
    assert len(bench.landing.landed) <= 3


def test_without_raw_responses_the_topic_is_the_only_sink(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is published leaves the spool: nobody else waits for it."""
    monkeypatch.setattr(poller, "PRUNE_SECONDS", 0)
    with bench.running(Toys(toys(1), toys(2)), raw=False):
        until(lambda: len(bench.numbers) == 2 and bench.spool.bytes() == 0)
    assert bench.landing.landed == []


def test_error_of_ours_ends_all_threads(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """The unit starts it again; the journal says which thread it was."""
    caplog.set_level(logging.ERROR)
    assert isinstance(bench.run_to_its_end(Toys(KeyError("a mistake"))), KeyError)
    assert "the thread poll ended" in caplog.messages
