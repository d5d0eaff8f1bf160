"""The fault bench without a lab: cases cover what runs, verdicts tell each way to fail, results are kept by commit."""

from __future__ import annotations

import dataclasses
import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import nullcontext
from fnmatch import fnmatch
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from berny.controller.placement import units
from berny.faults import bench, cli, inject, network, results
from berny.faults.bench import Outcome
from berny.faults.cases import FaultCase, fault_cases, nothing, random_case
from berny.faults.targets import Targets, load_targets
from berny.faults.watch import Watch
from berny.lab.lab import Lab
from berny.lab.simulation import load_simulations
from berny.lab.simulator import Simulator
from berny.model.catalog import load_catalog, parse, read_yaml
from berny.model.manifest import Pipeline, load_pipelines
from berny.model.topology import read_mapping

HOLDS: dict[str, Any] = {
    "expected": 100,
    "acknowledged": 40,
    "minimum": 1,
    "caught_up": 12.0,
    "healthy": 14.0,
    "fresh": 2.0,
    "fresh_bound": 30,
}


def outcome(**changes: Any) -> Outcome:
    """Return the outcome of a case that passed, but for what is changed."""
    return Outcome(**{"case": "none", "run": "none-1", "seed": 1, "rate": 40.0, "began": 1e9, **HOLDS, **changes})


# -- cases -------------------------------------------------------------------------------------------------------------


def test_each_daemon_and_each_stage_is_killed_and_frozen_where_it_runs() -> None:
    """A new service has its cases without anybody thinking of it."""
    optional = {s for c in load_catalog().components.values() if c.optional for s in c.services}
    names, targets = fault_cases().keys(), load_targets()
    groups = targets.groups
    for unit, group in units(load_catalog(), targets.pipelines).items():
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
def test_each_kind_of_fault_has_a_case(pattern: str) -> None:
    assert [name for name in fault_cases() if fnmatch(name, pattern)]


def test_machines_are_booted_in_every_rotation() -> None:
    assert len([name for name in fault_cases() if fnmatch(name, "power-all-*")]) == len(read_mapping()["all"])


def test_only_who_asks_the_source_may_lose_an_answer_that_was_under_way() -> None:
    """And a case in which the spool goes on being fed has to show that it was."""
    spool = read_mapping()[load_pipelines()["idfm"].stages["producer"].on]
    for case in fault_cases().values():
        alone = any(word in case.name for word in ("producer", "berny-idfm-", "power-all", *spool))
        assert not case.unspooled or alone, case.name
        assert case.minimum or case.unspooled or case.name.startswith(("source-", "reboot-", "restart-all")), case.name


def test_what_a_random_run_may_do_destroys_nothing() -> None:
    gentle = [case.name for case in fault_cases().values() if case.gentle]
    assert len(gentle) > 40
    assert not [name for name in gentle if name.startswith(("power", "wipe", "full"))]


def test_random_run_breaks_nothing_else_on_a_machine_that_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """And draws the same of the same seed, several at once as well as none."""
    broken: list[str] = []
    for verb in ("kill_unit", "freeze_unit", "thaw_unit", "kill", "boot", "source", "heal_source"):
        monkeypatch.setattr(inject, verb, lambda lab, *words, **options: broken.append(" ".join(words)))
    for verb in ("cut", "lose", "delay", "narrow", "cut_pair", "heal"):
        monkeypatch.setattr(network, verb, lambda lab, *words, **options: broken.append(" ".join(map(str, words))))
    monkeypatch.setattr("berny.faults.cases.RANDOM_SECONDS", (0, 0.001))

    def drawn(seed: int) -> list[str]:
        case = random_case(0.5, seed)
        assert case.draws
        return case.draws(cast(Lab, None), random.Random(seed), lambda words: None)[0]

    steps = drawn(1)
    again = drawn(1)
    shorter = min(len(steps), len(again))
    assert shorter > 20 and steps[:shorter] == again[:shorter] != drawn(2)[:shorter]
    assert "none" in steps and any(" and " in step for step in steps)
    for step in steps:
        first, *others = step.split(" and ")
        if first.startswith("off-"):
            assert not [name for name in others if first.removeprefix("off-") in name], step


# -- several pipelines -------------------------------------------------------------------------------------------------

GROUPS = {"all": ["a", "b"], "kafka": ["a"], "polls": ["b"], "listens": ["a", "b"]}
TWO = """
title: {name}
user: {{name: {name}, uid: 69{uid}}}
stages:
  poll: {{kind: stream, on: {on}, run: poll.py, metrics_port: 93{uid}, data: {{small: 1, large: 1}}}}
  write: {{kind: stream, on: listens, run: write.py, metrics_port: 94{uid}}}
"""


@pytest.fixture
def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Targets:
    """Two pipelines, whose spools are on nodes of their own, and a stage of each on both; of services there is Kafka."""
    for number, (name, on) in enumerate({"one": "kafka", "two": "polls"}.items()):
        (tmp_path / name / "controller").mkdir(parents=True)
        (tmp_path / name / "pipeline.yml").write_text(TWO.format(name=name, on=on, uid=f"1{number}"))
        kinds = "{gone: {about: gone, quiet: true}" + (", refused: {about: refused, refused: true}}" if number else "}")
        text = f"{{port: 820{number}, harness: kafka, faults: {kinds}}}"
        (tmp_path / name / "controller" / "simulation.yml").write_text(text)
    files = sorted(tmp_path.glob("*/pipeline.yml"))
    # Groups that no component has: the manifests are not held against the catalog.
    found = [parse(Pipeline, {**read_yaml(file), "name": file.parent.name}, file) for file in files]
    known = load_simulations(tmp_path)
    monkeypatch.setattr("berny.faults.cases.load_simulations", lambda: known)
    return Targets(load_catalog(), {one.name: one for one in found}, GROUPS)


def demands(case: FaultCase) -> dict[str, tuple[int, int]]:
    """Return, by pipeline, what a case demands: the least that is acknowledged, the most responses not kept."""
    return {name: (case.minimum_of(name), case.unspooled_of(name)) for name in ("one", "two")}


def test_each_pipeline_has_its_own_spool_to_answer_for(two: Targets) -> None:
    """What stands still or is away is excused; whoever polls from elsewhere has to go on."""
    cases = fault_cases(two)
    goes_on, away = (1, 0), (0, 1)
    for name in ("kill-berny-one-poll-a", "freeze-berny-one-poll-a", "off-a", "power-a", "cut-a-in"):
        assert demands(cases[name]) == {"one": away, "two": goes_on}, name
    for name in ("kill-berny-two-poll-b", "off-b", "cut-b"):
        assert demands(cases[name]) == {"one": goes_on, "two": away}, name
    for name in ("none", "kill-berny-one-write-a", "kill-kafka-a", "loss-a", "full-kafka-a", "cut-a-b"):
        assert demands(cases[name]) == {"one": goes_on, "two": goes_on}, name
    assert demands(cases["reboot-b"]) == {"one": (0, 0), "two": away}, "it is over at once"
    assert demands(cases["power-all-a-first"]) == {"one": away, "two": away}
    assert demands(cases["full-berny-two-b"])["one"] == goes_on and cases["full-berny-two-b"].unspooled_of("two") > 1


def test_sources_fail_in_the_ways_that_they_know(two: Targets) -> None:
    """One that does not know a kind serves on, and all that it serves is asked for."""
    cases = fault_cases(two)
    assert demands(cases["source-gone"]) == {"one": (0, 0), "two": (0, 0)}
    assert demands(cases["source-refused"]) == {"one": (1, 0), "two": (0, 0)}
    assert cases["source-gone"].gentle and not cases["source-refused"].gentle


def test_component_that_runs_nowhere_has_no_cases(two: Targets) -> None:
    names = fault_cases(two).keys()
    assert "rolling-kafka" in names and not [name for name in names if fnmatch(name, "*hdfs*") or "influxdb" in name]
    assert not {"session-zookeeper", "wipe-kafka-a"} & names, "there is no ZooKeeper, and no other broker"


def test_sinks_of_one_component_may_be_given_up(two: Targets) -> None:
    """And no other sink's loss is excused by it."""
    sink = {"duplicate": 0, "wrong": 0, "unexpected": 0, "transport": False}
    sinks = {"files": sink | {"lost": 3, "component": "hdfs"}, "table": sink | {"lost": 2, "component": "influxdb"}}
    report = {"expected": 9, "unspooled": 0, "unspooled_at": [], "sinks": sinks}
    for component, (lost, given_up) in {"hdfs": (2, 3), "": (5, 0)}.items():
        held = outcome()
        bench._count(held, report, (0, 1), component)
        assert (held.lost, held.given_up) == (lost, given_up)


def test_duplicates_of_topics_are_counted_and_no_more() -> None:
    sink = {"lost": 0, "wrong": 0, "unexpected": 0, "component": "kafka"}
    sinks = {"t": sink | {"duplicate": 4, "transport": True}, "u": sink | {"duplicate": 1, "transport": False}}
    held = outcome()
    bench._count(held, {"expected": 9, "unspooled": 0, "unspooled_at": [], "sinks": sinks}, (0, 1))
    assert (held.topic_duplicates, held.duplicate) == (4, 1)


def test_page_names_pipelines_where_there_are_several(tmp_path: Path) -> None:
    """A case is one, however many pipelines have an outcome of it."""
    kept = results.Results("abc", tmp_path)
    for name in ("one", "two"):
        kept.add(outcome(pipeline=name, lost=int(name == "two")))
    found = kept.read()
    assert [one.pipeline for one in found] == ["one", "two"]
    assert results.summary(found) == "faults: 1 cases, 1 lost, 0 duplicate, 0 wrong"
    known = {"none": FaultCase("none", "nothing at all", nothing)}
    made = results.page("abc", found, known)
    assert "| case | pipeline | what |" in made and "1 of 1 cases run" in made
    assert (
        "| none | one | nothing at all | passed |" in made
        and "| none | two | nothing at all | FAILED: 1 lost |" in made
    )
    assert "| case | what |" in results.page("abc", found[:1], known)


def simulator(ask: Callable[..., Any]) -> Simulator:
    """Return a simulator that no process runs for."""
    made = object.__new__(Simulator)
    made.ask = ask  # type: ignore[method-assign]
    return made


def test_all_pipelines_are_held_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each against what its own source served."""
    asked: list[Any] = []
    sinks: dict[str, Any] = {}

    def check(of: Lab, pipeline: str, runs: list[str], since: float) -> dict[str, Any]:
        asked.append((pipeline, runs))
        return {"expected": 2, "unspooled": 0, "unspooled_at": [], "sinks": sinks}

    def ask(path: str, words: dict[str, Any] | None = None) -> dict[str, Any]:
        return {"run": "", "rate": 2}

    lab = cast(Lab, SimpleNamespace(simulators=dict.fromkeys(("one", "two"), simulator(ask))))
    monkeypatch.setattr(bench, "check", check)
    ran = [outcome(case=case, run=f"{case}-1", pipeline=name) for case in "ab" for name in ("one", "two")]
    again = bench.check_again(lab, ran, lambda words: None)
    assert asked == [("one", ["a-1", "b-1"]), ("two", ["a-1", "b-1"])]
    assert [one.pipeline for one in again] == ["one", "two"] and all(one.clean for one in again)


# -- verdicts ----------------------------------------------------------------------------------------------------------


def test_case_that_passes() -> None:
    assert outcome().clean
    assert results.verdict(outcome()) == "passed"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"lost": 2}, "2 lost"),
        ({"duplicate": 1}, "1 duplicate"),
        ({"wrong": 1}, "1 wrong"),
        ({"unexpected": 3}, "3 unexpected"),
        ({"unspooled": 5, "unspooled_answers": 1}, "5 unspooled in 1 responses"),
        ({"unspooled_elsewhere": 2}, "2 responses unspooled while nothing was broken"),
        ({"acknowledged": 0}, "0 acknowledged, 1 required"),
        ({"caught_up": None, "words": "no answer"}, "never caught up: no answer"),
        ({"healthy": None, "words": "1 of 2 brokers"}, "not healthy again: 1 of 2 brokers"),
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
    assert late.clean and "(limit 30 s)" in results.line(late)
    assert "(bar" not in results.line(outcome())


def test_last_line_adds_up() -> None:
    told = results.summary(
        [outcome(lost=2), outcome(case="a", duplicate=1), outcome(case="b", wrong=4), outcome(case="c")]
    )
    assert told == "faults: 4 cases, 2 lost, 1 duplicate, 4 wrong"


# -- results -----------------------------------------------------------------------------------------------------------


def test_results_are_kept_by_commit_and_survive_half_a_line(tmp_path: Path) -> None:
    kept = results.Results("abc", tmp_path)
    assert kept.read() == []
    kept.add(outcome(lost=1))
    kept.add(outcome())
    with kept.file.open("a") as file:
        file.write('{"case": "cut-mas')
    assert kept.read() == [outcome()]
    kept.add(outcome(lost=2))
    assert kept.read() == [outcome(lost=2)], "what a crash left of a line has swallowed the next"
    assert results.Results("def", tmp_path).read() == []


def test_all_cases_are_held_once_more_at_their_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against all that they served; what they could not keep is not asked for twice, and what is missing now fails."""
    asked: list[Any] = []
    rates: list[Any] = []
    lost = {"lost": 0, "duplicate": 0, "wrong": 0, "unexpected": 0, "transport": False, "component": "influxdb"}

    def check(of: Lab, pipeline: str, runs: list[str], since: float) -> dict[str, Any]:
        asked.append((runs, since))
        assert rates[-1] == 0
        return {"expected": 200, "unspooled": 3, "unspooled_at": [1e9 + 5], "sinks": {"influxdb": lost}}

    def ask(path: str, words: dict[str, Any] | None = None) -> dict[str, Any]:
        rates.extend([words["rate"]] if words else [])
        return {"run": "", "rate": 2}

    lab = cast(Lab, SimpleNamespace(simulators={"idfm": simulator(ask)}))
    monkeypatch.setattr(bench, "check", check)
    ran = [outcome(run="a-1", unspooled_answers=1, unspooled_allowed=1), outcome(case="b", run="b-2", began=1e9 + 60)]
    (again,) = bench.check_again(lab, ran, lambda words: None)
    assert asked == [(["a-1", "b-2"], 1e9)] and again.clean and rates == [0, 2]
    lost["lost"] = 7
    (again,) = bench.check_again(lab, ran, lambda words: None)
    assert not again.clean and "7 lost" in results.line(again)
    assert results.summary([*ran, again]) == "faults: 2 cases, 7 lost, 0 duplicate, 0 wrong"
    made = results.page("abc", [outcome(), again], fault_cases())
    assert f"- {results.line(again)}\n" in made and f"| {again.case}" not in made


def test_bench_that_is_ended_from_outside_heals(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As at Ctrl-C; a shell's background job gets no other signal."""
    done: list[str] = []

    def run_case(*words: Any) -> list[Outcome]:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        finally:
            done.append("healed")
        return [outcome()]

    lab = SimpleNamespace(locked=nullcontext, simulators={"idfm": None})
    monkeypatch.setattr(cli, "run_case", run_case)
    monkeypatch.setattr(cli, "Results", lambda of: results.Results(of, tmp_path))
    monkeypatch.setattr(cli, "heal_all", lambda lab: None)
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(KeyboardInterrupt):
            cli._run(cast(Lab, lab), [fault_cases()["none"]], 40, 1, False)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert done == ["healed"]


def test_page_tells_what_was_run_and_what_was_not() -> None:
    known = {"none": FaultCase("none", "nothing at all", nothing), "other": FaultCase("other", "another", nothing)}
    drawn = dataclasses.replace(outcome(), case="random-7", seed=7, steps=["cut-master", "none"])
    made = results.page("abc", [outcome(), drawn], known)
    assert "Commit abc" in made and "seeds 1, 7" in made
    assert "| none | nothing at all | passed | 100 | 40 (1) |" in made
    assert "| random-7 | cut-master; none | passed |" in made
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
