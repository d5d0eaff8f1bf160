"""Records that are gone before they were read: found, kept, shown and acknowledged; and where reading goes on."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import generate_latest
from prometheus_client.registry import CollectorRegistry

from berny.runtime.checkpoint import Progress, topic_offsets, where_to_begin
from berny.runtime.probe.ask import _skipped
from berny.runtime.skipped import Gap, Skipped, _Metric
from berny.runtime.topics import resume

GAP = Gap("one", "id-1", 2, 100, 499)


# -- the record --------------------------------------------------------------------------------------------------------


def test_a_gap_stays_open_until_it_is_acknowledged(tmp_path: Path) -> None:
    """Over restarts of the stage, and by the command that the play calls."""
    Skipped(tmp_path).add(GAP)
    assert [gap.records for gap in Skipped(tmp_path).open()] == [400]
    done = subprocess.run(
        [sys.executable, "-m", "berny.runtime.skipped", str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout == "acknowledged: one partition 2: 400 records, offsets 100 to 499\n"
    assert Skipped(tmp_path).open() == []
    assert [bool(gap.acknowledged) for gap in Skipped(tmp_path).all()] == [True]
    again = subprocess.run(
        [sys.executable, "-m", "berny.runtime.skipped", str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert again.stdout == ""


def test_a_gap_found_twice_is_one(tmp_path: Path) -> None:
    """A stage that was killed before it went on finds it again, perhaps grown; one that was acknowledged stays so."""
    skipped = Skipped(tmp_path)
    skipped.add(GAP)
    skipped.add(GAP)
    skipped.add(Gap("one", "id-1", 2, 100, 599))
    assert [gap.last for gap in skipped.open()] == [599]
    skipped.acknowledge()
    skipped.add(Gap("one", "id-1", 2, 100, 599))
    assert skipped.open() == []
    skipped.add(Gap("one", "id-2", 2, 100, 599))
    assert [gap.topic_id for gap in skipped.open()] == ["id-2"], "another topic of that name"


def test_metric_is_there_until_it_is_acknowledged(tmp_path: Path) -> None:
    """By partition and range, without a restart of the stage."""
    registry = CollectorRegistry()
    skipped = Skipped(tmp_path)
    registry.register(_Metric(skipped))
    assert "berny_skipped_records{" not in generate_latest(registry).decode()
    skipped.add(GAP)
    line = 'berny_skipped_records{first="100",last="499",partition="2",topic="one"} 400.0'
    assert line in generate_latest(registry).decode()
    skipped.acknowledge()
    assert "berny_skipped_records{" not in generate_latest(registry).decode()


def test_probe_reads_the_metric(tmp_path: Path) -> None:
    """What the probe says of a stage: how many, of which topic, which range, and the command that acknowledges it."""
    registry = CollectorRegistry()
    skipped = Skipped(tmp_path)
    registry.register(_Metric(skipped))
    skipped.add(GAP)
    lines = generate_latest(registry).decode().splitlines()
    samples = dict(line.rsplit(" ", 1) for line in lines if line and not line.startswith("#"))
    assert _skipped(samples, "idfm") == [
        "400 records of one were gone before they were read (partition 2, offsets 100 to 499)",
        "to acknowledge: ansible-playbook playbooks/pipelines.yml -e pipeline=idfm -e do=acknowledge",
    ]
    assert _skipped({"berny_ready": "1.0"}, "idfm") == []


def test_a_stage_and_a_person_write_at_once(tmp_path: Path) -> None:
    """Neither undoes what the other has written."""
    skipped = Skipped(tmp_path)

    def add(partition: int) -> None:
        for first in range(20):
            Skipped(tmp_path).add(Gap("one", "id-1", partition, first * 10, first * 10 + 4))

    threads = [threading.Thread(target=add, args=(partition,)) for partition in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(20):
        skipped.acknowledge()
    for thread in threads:
        thread.join()
    skipped.acknowledge()
    assert len(skipped.all()) == 60
    assert skipped.open() == []


# -- where to go on ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "low", "high", "expected"),
    [
        (5, 0, 10, (5, 0)),
        (10, 0, 10, (10, 0)),
        (10, 10, 10, (10, 0)),
        (5, 8, 10, (8, 3)),
        (5, 10, 10, (10, 5)),
        (11, 3, 10, (3, 0)),
    ],
)
def test_where_a_partition_goes_on(first: int, low: int, high: int, expected: tuple[int, int]) -> None:
    """At the earliest that is there; where even that was read before, at the beginning."""
    assert resume(first, low, high) == expected


@given(st.integers(0, 100), st.integers(0, 100), st.integers(0, 100))
def test_a_partition_goes_on_where_something_can_be_read(first: int, low: int, more: int) -> None:
    """Nothing that is there and unread is passed over, and what is counted as gone is exactly what is not there."""
    found, gone = resume(first, low, low + more)
    assert low <= found <= low + more
    assert found <= max(first, low)
    assert gone == max(0, low - first)


MARKS = {0: (0, 10), 1: (5, 20)}


def test_a_checkpoint_that_can_be_followed_is() -> None:
    """Also one of an earlier version, which does not say which topic it is about."""
    for topic_id in ("id", ""):
        assert where_to_begin(Progress(topic_id, {0: 10, 1: 5}), "one", "id", MARKS) == (None, [])


def test_what_a_checkpoint_has_missed_is_counted_by_partition() -> None:
    """The others go on where they were; a partition that the checkpoint does not know was never read."""
    begin, gaps = where_to_begin(Progress("id", {0: 7, 1: 2}), "one", "id", MARKS)
    assert begin == {0: 7, 1: 5}
    assert gaps == [Gap("one", "id", 1, 2, 4)]
    begin, gaps = where_to_begin(Progress("id", {0: 7}), "one", "id", MARKS)
    assert begin == {0: 7, 1: 5}
    assert gaps == [Gap("one", "id", 1, 0, 4)]


def test_another_topic_is_read_from_its_beginning() -> None:
    """Its offsets have nothing to do with the former's: nothing of it was missed. The same without a checkpoint."""
    for known in (Progress("former", {0: 7, 1: 900}), None):
        assert where_to_begin(known, "one", "id", MARKS) == ({0: 0, 1: 5}, [])


def test_offsets_are_read_from_sparks_own_files() -> None:
    """A file of the offset log, as Spark 4.2 writes it."""
    metadata = {"batchWatermarkMs": 0, "batchTimestampMs": 1763985600000, "conf": {}}
    text = "\n".join(["v1", json.dumps(metadata), json.dumps({"one": {"0": 12, "2": 0, "1": 7}})])
    assert topic_offsets(text, "one") == {0: 12, 1: 7, 2: 0}
    with pytest.raises(ValueError, match="no offsets of another"):
        topic_offsets(text, "another")
