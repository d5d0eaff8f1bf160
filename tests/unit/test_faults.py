"""The fault bench without a lab: rows cover what runs, verdicts tell each way to fail, results are kept by commit."""

from __future__ import annotations

import dataclasses
import os
import random
import signal
import time
from contextlib import nullcontext
from fnmatch import fnmatch
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from berny.controller.placement import units
from berny.faults import bench, cli, inject, network, results
from berny.faults.bench import Outcome
from berny.faults.rows import Row, nothing, random_row, rows
from berny.faults.watch import Watch
from berny.lab.lab import Lab
from berny.model.catalog import load_catalog
from berny.model.manifest import load_pipelines
from berny.model.topology import read_mapping

HOLDS: dict[str, Any] = {
    "expected": 100,
    "acknowledged": 40,
    "minimum": 1,
    "caught_up": 12.0,
    "whole": 14.0,
    "fresh": 2.0,
    "fresh_bound": 30,
}


def outcome(**changes: Any) -> Outcome:
    """Return the outcome of a row that holds, but for what is changed."""
    return Outcome(**{"row": "none", "run": "none-1", "seed": 1, "rate": 40.0, "began": 1e9, **HOLDS, **changes})


# -- rows --------------------------------------------------------------------------------------------------------------


def test_each_daemon_and_each_stage_is_killed_and_frozen_where_it_runs() -> None:
    """A new service has its rows without anybody thinking of it."""
    optional = {s for c in load_catalog().components.values() if c.optional for s in c.services}
    names, groups = rows().keys(), read_mapping()
    for unit, group in units(load_catalog(), load_pipelines()).items():
        for node in groups[group]:
            if unit not in optional:
                assert {f"kill-{unit}-{node}", f"freeze-{unit}-{node}"} <= names


@pytest.mark.parametrize(
    "pattern",
    [
        "none", "off-*", "power-*", "power-all-*", "reboot-*", "cut-*", "cut-*-in", "cut-*-out", "cut-master-worker_2",
        "loss-*", "delay-*", "narrow-*", "wipe-kafka-*",
        "full-kafka-*", "full-hdfs-datanode-*", "full-influxdb-*", "full-berny-idfm-*", "full-hdfs-namenode-*",
        "wipe-hdfs-datanode-*", "source-*", "garbage", "session-zookeeper", "safemode-hdfs", "restart-all",
        "rolling-kafka", "rolling-hdfs", "rolling-spark", "rolling-influxdb", "converge-killed",
    ],
)  # fmt: skip
def test_each_kind_of_fault_has_a_row(pattern: str) -> None:
    assert [name for name in rows() if fnmatch(name, pattern)]


def test_machines_are_booted_in_every_rotation() -> None:
    assert len([name for name in rows() if fnmatch(name, "power-all-*")]) == len(read_mapping()["all"])


def test_only_who_asks_the_source_may_lose_an_answer_that_was_under_way() -> None:
    """And a row in which the spool goes on being fed has to show that it was."""
    spool = read_mapping()[load_pipelines()["idfm"].stages["producer"].on]
    for row in rows().values():
        alone = any(word in row.name for word in ("producer", "berny-idfm-", "power-all", *spool))
        assert not row.unspooled or alone, row.name
        assert row.minimum or row.unspooled or row.name.startswith(("source-", "reboot-", "restart-all")), row.name


def test_what_a_random_run_may_do_destroys_nothing() -> None:
    gentle = [row.name for row in rows().values() if row.gentle]
    assert len(gentle) > 40
    assert not [name for name in gentle if name.startswith(("power", "wipe", "full"))]


def test_random_run_breaks_nothing_else_on_a_machine_that_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """And draws the same of the same seed, several at once as well as none."""
    broken: list[str] = []
    for verb in ("kill_unit", "freeze_unit", "thaw_unit", "kill", "boot", "source", "heal_source"):
        monkeypatch.setattr(inject, verb, lambda lab, *words, **options: broken.append(" ".join(words)))
    for verb in ("cut", "lose", "delay", "narrow", "cut_pair", "heal"):
        monkeypatch.setattr(network, verb, lambda lab, *words, **options: broken.append(" ".join(map(str, words))))
    monkeypatch.setattr("berny.faults.rows.RANDOM_SECONDS", (0, 0.001))

    def drawn(seed: int) -> list[str]:
        row = random_row(0.5, seed)
        assert row.draws
        return row.draws(cast(Lab, None), random.Random(seed), lambda words: None)[0]

    steps = drawn(1)
    again = drawn(1)
    shorter = min(len(steps), len(again))
    assert shorter > 20 and steps[:shorter] == again[:shorter] != drawn(2)[:shorter]
    assert "none" in steps and any(" and " in step for step in steps)
    for step in steps:
        first, *others = step.split(" and ")
        if first.startswith("off-"):
            assert not [name for name in others if first.removeprefix("off-") in name], step


# -- verdicts ----------------------------------------------------------------------------------------------------------


def test_row_that_holds() -> None:
    assert outcome().clean
    assert results.verdict(outcome()) == "holds"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"lost": 2}, "2 lost"),
        ({"duplicate": 1}, "1 duplicate"),
        ({"wrong": 1}, "1 wrong"),
        ({"unexpected": 3}, "3 unexpected"),
        ({"unspooled": 5, "unspooled_answers": 1}, "5 unspooled in 1 answers"),
        ({"unspooled_elsewhere": 2}, "2 answers unspooled while nothing was broken"),
        ({"acknowledged": 0}, "0 acknowledged, 1 wanted"),
        ({"caught_up": None, "words": "no answer"}, "never caught up: no answer"),
        ({"whole": None, "words": "1 of 2 brokers"}, "not whole again: 1 of 2 brokers"),
        ({"expected": 0}, "nothing was served"),
        ({"expected": 0, "words": "worker_1: its disk can't be filled"}, "worker_1: its disk"),
    ],
)
def test_each_way_to_fail_is_told(changes: dict[str, Any], words: str) -> None:
    failed = outcome(**changes)
    assert not failed.clean
    assert results.verdict(failed).startswith("FAILED: ") and words in results.verdict(failed)


def test_answer_that_was_under_way_when_the_producer_died_was_never_acknowledged() -> None:
    assert outcome(unspooled=5, unspooled_answers=1, unspooled_allowed=1).clean
    assert not outcome(unspooled=9, unspooled_answers=2, unspooled_allowed=1).clean


def test_late_points_are_shown_and_fail_nothing() -> None:
    """A figure of one run on a shared box is no reason to fail."""
    late = outcome(fresh=99.0)
    assert late.clean and "(bar 30 s)" in results.line(late)
    assert "(bar" not in results.line(outcome())


def test_last_line_adds_up() -> None:
    told = results.summary([outcome(lost=2), outcome(duplicate=1), outcome(wrong=4), outcome()])
    assert told == "faults: 4 rows, 2 lost, 1 duplicate, 4 wrong"


# -- results -----------------------------------------------------------------------------------------------------------


def test_results_are_kept_by_commit_and_survive_half_a_line(tmp_path: Path) -> None:
    kept = results.Results("abc", tmp_path)
    assert kept.read() == {}
    kept.add(outcome(lost=1))
    kept.add(outcome())
    with kept.file.open("a") as file:
        file.write('{"row": "cut-mas')
    assert kept.read() == {"none": outcome()}
    kept.add(outcome(lost=2))
    assert kept.read() == {"none": outcome(lost=2)}, "what a crash left of a line has swallowed the next"
    assert results.Results("def", tmp_path).read() == {}


def test_all_rows_are_held_once_more_at_their_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against all that they served; what they could not keep is not asked for twice, and what is missing now fails."""
    asked: list[Any] = []
    rates: list[Any] = []
    lost = {"lost": 0, "duplicate": 0, "wrong": 0, "unexpected": 0}

    def check(of: Lab, runs: list[str], since: float) -> dict[str, Any]:
        asked.append((runs, since))
        assert rates[-1] == 0
        return {"expected": 200, "unspooled": 3, "unspooled_at": [1e9 + 5], "sinks": {"influxdb": lost}}

    def ask(path: str, words: dict[str, Any] | None = None) -> dict[str, Any]:
        rates.extend([words["rate"]] if words else [])
        return {"run": "", "rate": 2}

    lab = cast(Lab, SimpleNamespace(simulator=SimpleNamespace(ask=ask)))
    monkeypatch.setattr(bench, "check", check)
    ran = [outcome(run="a-1", unspooled_answers=1, unspooled_allowed=1), outcome(run="b-2", began=1e9 + 60)]
    again = bench.check_again(lab, ran, lambda words: None)
    assert asked == [(["a-1", "b-2"], 1e9)] and again.clean and rates == [0, 2]
    lost["lost"] = 7
    again = bench.check_again(lab, ran, lambda words: None)
    assert not again.clean and "7 lost" in results.line(again)
    assert results.summary([*ran, again]) == "faults: 2 rows, 7 lost, 0 duplicate, 0 wrong"
    made = results.page("abc", {"none": outcome(), again.row: again}, rows())
    assert f"- {results.line(again)}\n" in made and f"| {again.row}" not in made


def test_bench_that_is_ended_from_outside_heals(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As at Ctrl-C; a shell's background job gets no other signal."""
    done: list[str] = []

    def run_row(*words: Any) -> Outcome:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        finally:
            done.append("healed")
        return outcome()

    lab = SimpleNamespace(locked=nullcontext)
    monkeypatch.setattr(cli, "run_row", run_row)
    monkeypatch.setattr(cli, "Results", lambda of: results.Results(of, tmp_path))
    monkeypatch.setattr(inject, "heal_all", lambda lab: None)
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(KeyboardInterrupt):
            cli._run(cast(Lab, lab), [rows()["none"]], 40, 1, False)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert done == ["healed"]


def test_page_tells_what_was_run_and_what_was_not() -> None:
    known = {"none": Row("none", "nothing at all", nothing), "other": Row("other", "another", nothing)}
    drawn = dataclasses.replace(outcome(), row="random-7", seed=7, steps=["cut-master", "none"])
    made = results.page("abc", {"none": outcome(), "random-7": drawn}, known)
    assert "Commit abc" in made and "seeds 1, 7" in made
    assert "| none | nothing at all | holds | 100 | 40 (1) |" in made
    assert "| random-7 | cut-master; none | holds |" in made
    assert "Not run at this commit: `other`." in made


# -- the watch ---------------------------------------------------------------------------------------------------------


def watch(*told: tuple[float, float]) -> Watch:
    """Return a watch that was told these."""
    made = object.__new__(Watch)
    made.told = list(told)
    return made


def test_fresh_is_a_point_recorded_after_not_one_that_came_after() -> None:
    """What waited in a queue is no sign of life of the source's end."""
    assert watch((10, 5), (11, 6), (12, 10.5)).fresh_after(10, 0.1) == 12
    assert watch((10, 5)).fresh_after(10, 0.1) is None


def test_longest_silence_is_between_newer_points() -> None:
    """Being told the same point again is silence; so is the time to the end."""
    assert watch((1, 1), (2, 2), (3, 2), (9, 8)).longest_silence(0, 10) == 7
    assert watch().longest_silence(0, 10) == 10
