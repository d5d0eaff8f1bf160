"""The set checker has to tell each way to be wrong, or a bench that it judges proves nothing."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import pytest

from berny.pipelines.idfm import harness, prim
from berny.runtime.check import Report, Sink, SinkReport, Truth, check, check_sink, read_truth

EXPECTED: dict[str, float | None] = {"a": 0.0, "b": 12.0, "c": None, "d": -59.5}
SERVED = frozenset(EXPECTED) | {"of an earlier run"}
CLEAN: list[tuple[str, float | None]] = list(EXPECTED.items())


def judged(records: list[tuple[str, float | None]], **words: Any) -> SinkReport:
    """Return the report on records against what is expected."""
    return check_sink("influxdb", records, EXPECTED, SERVED, **words)


def numbers(report: SinkReport) -> tuple[int, int, int, int, int]:
    """Return found, lost, duplicate, wrong and unexpected."""
    lost, wrong, unexpected = len(report.lost), len(report.wrong), len(report.unexpected)
    return report.found, lost, report.duplicate, wrong, unexpected


# -- one sink ----------------------------------------------------------------------------------------------------------


def test_clean_sink_is_clean() -> None:
    """All there, once, with their values; what an earlier run left is no fault of this one."""
    for records in (CLEAN, CLEAN[::-1], [*CLEAN, ("of an earlier run", 7.0), ("of an earlier run", 7.0)]):
        report = judged(records)
        assert numbers(report) == (4, 0, 0, 0, 0)
        assert report.clean


def test_lost_record_is_told() -> None:
    """Its name is told, too: that is what one looks for in the logs."""
    report = judged([record for record in CLEAN if record[0] != "b"])
    assert numbers(report) == (3, 1, 0, 0, 0)
    assert not report.clean
    assert "1 lost" in str(report)
    assert "lost: b" in str(report)


def test_doubled_record_is_told() -> None:
    """One identity at two points."""
    report = judged([*CLEAN, ("b", 12.0)])
    assert numbers(report) == (4, 0, 1, 0, 0)
    assert not report.clean
    assert "1 duplicate" in str(report)


def test_tripled_record_counts_twice() -> None:
    """Duplicates are the records too many."""
    assert judged([*CLEAN, ("b", 12.0), ("b", 12.0)]).duplicate == 2


def test_duplicates_of_transport_are_counted_and_allowed() -> None:
    """Topics are at least once; allowed is nothing but doubling."""
    report = judged([*CLEAN, ("b", 12.0)], duplicates_allowed=True)
    assert numbers(report) == (4, 0, 1, 0, 0)
    assert report.clean
    assert not judged([*CLEAN[:-1], ("b", 12.0)], duplicates_allowed=True).clean
    assert not judged([*CLEAN, ("b", 13.0)], duplicates_allowed=True).clean


def test_wrong_value_is_told() -> None:
    """There, but not what was served."""
    report = judged([*CLEAN[:1], ("b", 13.0), *CLEAN[2:]])
    assert numbers(report) == (4, 0, 0, 1, 0)
    assert not report.clean
    assert "wrong: b" in str(report)


@pytest.mark.parametrize(("name", "value"), [("c", 0.0), ("a", None), ("b", None)])
def test_unknown_is_not_zero(name: str, value: float | None) -> None:
    """A delay of 0 where none is known is the mistake that this is all about."""
    report = judged([(one, value if one == name else known) for one, known in CLEAN])
    assert report.wrong == {name}
    assert not report.clean


def test_right_and_wrong_value_is_wrong() -> None:
    """Two records of one identity that contradict each other."""
    report = judged([*CLEAN, ("b", 13.0)])
    assert numbers(report) == (4, 0, 1, 1, 0)


def test_unexpected_record_is_told() -> None:
    """In a sink, but never served by anyone."""
    report = judged([*CLEAN, ("invented", 1.0)])
    assert numbers(report) == (4, 0, 0, 0, 1)
    assert not report.clean
    assert "unexpected: invented" in str(report)


def test_overwritten_record_is_lost() -> None:
    """Two identities at one point of InfluxDB: fields are merged, the later identity stays, the earlier one is lost."""
    at_one_point: dict[str, dict[str, Any]] = {}
    for identity, delay in CLEAN:
        place = "shared" if identity in ("b", "c") else identity
        fields = {"identity": identity} | ({} if delay is None else {"delay": delay})
        at_one_point[place] = at_one_point.get(place, {}) | fields
    report = judged([(fields["identity"], fields.get("delay")) for fields in at_one_point.values()])
    assert report.lost == {"b"}
    assert report.wrong == {"c"}, "the later one has the delay of the earlier, where it should have none"
    assert not report.clean


def test_empty_sink_has_lost_all() -> None:
    """Nothing there is not nothing wrong."""
    report = judged([])
    assert numbers(report) == (0, 4, 0, 0, 0)
    assert not report.clean


def test_examples_are_few_and_sorted() -> None:
    """A run that lost a million tells three of them."""
    expected = {f"{number:04d}": 0.0 for number in range(1000)}
    told = str(check_sink("influxdb", [], expected, set(expected)))
    assert "1000 lost" in told
    assert "(lost: 0000, 0001, 0002)" in told


# -- all sinks ---------------------------------------------------------------------------------------------------------


def test_report_is_clean_when_all_is() -> None:
    """One dirty sink among clean ones makes the run dirty."""
    dirty = judged([])
    assert Report(4, frozenset(), [judged(CLEAN), judged(CLEAN)]).clean
    assert not Report(4, frozenset(), [judged(CLEAN), dirty]).clean
    assert str(dirty) in str(Report(4, frozenset(), [judged(CLEAN), dirty]))


def test_unspooled_is_told() -> None:
    """Served completely but never kept: no sink can have it, none is to blame."""
    report = Report(4, frozenset({"b"}), [judged(CLEAN)])
    assert not report.clean
    assert "4 expected, 1 unspooled" in str(report)


def test_run_that_expected_nothing_proves_nothing() -> None:
    """An empty truth must not pass."""
    nothing = check_sink("influxdb", [], {}, set())
    assert nothing.clean
    assert not Report(0, frozenset(), [nothing]).clean
    assert not Report(0, frozenset(), []).clean


# -- the truth ---------------------------------------------------------------------------------------------------------


def observation(identity: str, answer: int, run: str = "one", **changes: Any) -> dict[str, Any]:
    """Return a line of the simulator's truth."""
    line = {"identity": identity, "answer": answer, "run": run, "delay": 5, "cancelled": False, "at": 100.0}
    return line | changes


def truth(*lines: dict[str, Any], runs: list[str] | None = None) -> Truth:
    """Return the truth that is read from lines."""
    return read_truth(io.StringIO("".join(json.dumps(line) + "\n" for line in lines)), harness.expected, runs)


def test_truth_of_complete_responses_is_expected() -> None:
    """The delay by identity, and when it was served first."""
    found = truth(
        observation("a", 1), observation("b", 1, delay=None), {"answer": 1, "run": "one", "served": True},
        observation("a", 2, at=200.0), {"answer": 2, "run": "one", "served": True},
    )  # fmt: skip
    assert found.expected == {"a": 5, "b": None}
    assert found.served == {"a", "b"}
    assert found.at == {"a": 100.0, "b": 100.0}
    assert found.answer == {"a": ("one", 1), "b": ("one", 1)}


def test_cut_answer_is_expected_nowhere() -> None:
    """It may have arrived or not: finding it is no mistake, missing it neither."""
    found = truth(observation("a", 1), observation("b", 2), {"answer": 2, "run": "one", "served": True})
    assert found.expected == {"b": 5}
    assert found.served == {"a", "b"}


def test_cut_answer_that_was_told_again_is_expected() -> None:
    """The API repeats itself: what was cut once and served later has to be everywhere."""
    found = truth(observation("a", 1), observation("a", 2, at=200.0), {"answer": 2, "run": "one", "served": True})
    assert found.expected == {"a": 5}
    assert found.at == {"a": 200.0}


def test_only_what_is_asked_for_is_expected() -> None:
    """Answers of other runs are known, so that they are not unexpected, but not asked for."""
    lines = [observation("a", 1), {"answer": 1, "run": "one", "served": True}]
    lines += [observation("b", 1, "two"), {"answer": 1, "run": "two", "served": True}]
    assert truth(*lines, runs=["two"]).expected == {"b": 5}
    assert truth(*lines, runs=["two"]).served == {"a", "b"}
    assert set(truth(*lines).expected) == set(truth(*lines, runs=["one", "two"]).expected) == {"a", "b"}
    assert truth(*lines, runs=["three"]).expected == {}


def test_what_an_earlier_run_told_is_expected_of_that_run_alone() -> None:
    """The source repeats the last ones as the next run begins: a checker that looks at that alone does not see them."""
    lines = [observation("a", 1), {"answer": 1, "run": "one", "served": True}]
    lines += [observation("a", 2, "two"), observation("b", 2, "two"), {"answer": 2, "run": "two", "served": True}]
    assert set(truth(*lines, runs=["one"]).expected) == {"a"}
    assert set(truth(*lines, runs=["two"]).expected) == {"b"}


def test_cancelled_train_has_no_delay() -> None:
    """Whatever its times say."""
    found = truth(observation("a", 1, cancelled=True), {"answer": 1, "run": "one", "served": True})
    assert found.expected == {"a": None}


def test_what_a_bucket_no_longer_keeps_is_not_expected_there() -> None:
    """By its own age when it was served; other sinks keep it, so it is expected all the same."""
    found = truth(
        observation("old", 1, at=1_763_985_600.0, recorded_at="2025-11-24T11:59:49.999Z"),
        observation("young", 1, at=1_763_985_600.0, recorded_at="2025-11-24T11:59:50.000Z"),
        observation("undated", 1, at=1_763_985_600.0),
        {"answer": 1, "run": "one", "served": True},
    )
    assert set(found.expected) == {"old", "young", "undated"}
    assert set(found.kept(10)) == {"young", "undated"}


def test_a_sink_may_be_for_some_observations() -> None:
    """Such as the last of each key, in the order in which they were served; the others are neither lost nor unexpected."""
    found = truth(
        *({"answer": 1, "run": "one", "identity": one, "at": 1.0, "delay": 1.0, "cancelled": False} for one in "cab"),
        {"answer": 1, "run": "one", "served": True},
    )
    last = Sink("last", "x", lambda since: [("b", 1.0)], chooses=lambda wanted: dict(list(wanted.items())[-1:]))
    every = Sink("all", "x", lambda since: [("c", 1.0), ("a", 1.0), ("b", 1.0)])
    assert check([every, last], found).clean
    first = Sink("last", "x", lambda since: [("c", 1.0)], chooses=last.chooses)
    assert [sorted(sink.lost) for sink in check([every, first], found).sinks] == [[], ["b"]]


def test_malformed_answer_is_no_observation() -> None:
    """It was served completely and holds nothing."""
    found = truth({"answer": 1, "run": "one", "malformed": True}, {"answer": 1, "run": "one", "served": True})
    assert (found.expected, found.served) == ({}, set())


# -- what sinks' records say -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("read", [harness.realtime, harness.processed])
def test_records_without_identity_are_passed_over(read: Callable[..., Any]) -> None:
    """What others wrote into a topic is none of ours."""
    assert list(read([{"other": 1}])) == []


def test_realtime_record_has_to_be_its_own_visit() -> None:
    """An identity that came with another visit is a wrong value."""
    visit = {"RecordedAtTime": "2025-11-24T12:00:00Z"}
    right, wrong = {"identity": prim.identity(visit), "visit": visit}, {"identity": "x" * 32, "visit": visit}
    assert list(harness.realtime([right, wrong])) == [(prim.identity(visit), True), ("x" * 32, False)]


def test_processed_record_gives_its_delay() -> None:
    """Null stays unknown."""
    records = [{"identity": "a", "delay_sec": 5.0}, {"identity": "b", "delay_sec": None}]
    assert list(harness.processed(records)) == [("a", 5.0), ("b", None)]
