"""One command knows any pipeline: what its module ``harness`` gives is held against its ground truth."""

from __future__ import annotations

import importlib
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import berny.pipelines
from berny.model.manifest import load_pipelines
from berny.runtime import harness
from berny.runtime.probe import Cluster

TOY = '''
"""Two sinks: a topic, which keeps values, and a table, which keeps the identities of what is young enough."""
from berny.runtime.check import Sink, SinkReport, present
HELD = {"toy-topic": [("a", 1), ("b", 2)], "table": [("a", True)]}
AUDIT = []
def expected(line):
    return line["value"], line.get("recorded")
def sinks(cluster):
    return [
        Sink("toy-topic", "kafka", lambda since: HELD["toy-topic"], transport=True),
        Sink("table", "postgresql", lambda since: HELD["table"], present, keep=60, audit=lambda: AUDIT),
    ]
def spooled(since):
    return ["a", "b"] if since < 50 else []
def newest(cluster, since):
    return None
def status(cluster):
    return {"rows": 2, "age_seconds": 0.5}
'''
TRUTH = [
    {"run": "one", "answer": 1, "identity": "a", "value": 1, "at": 100.0, "recorded": 90.0},
    {"run": "one", "answer": 1, "identity": "b", "value": 2, "at": 100.0, "recorded": 10.0},
    {"run": "one", "answer": 1, "served": True},
]


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module of a pipeline that is no part of the checkout."""
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "harness.py").write_text(TOY)
    monkeypatch.setattr(berny.pipelines, "__path__", [*berny.pipelines.__path__, str(tmp_path)])
    monkeypatch.setattr(Cluster, "load", classmethod(lambda cls: cls({}, "here")))
    yield importlib.import_module("berny.pipelines.toy.harness")
    for name in [name for name in sys.modules if name.startswith("berny.pipelines.toy")]:
        del sys.modules[name]


@pytest.fixture
def said(toy: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run the command for the toy; return its exit code and what it prints."""

    def run(*words: str, truth: list[dict[str, Any]] = TRUTH) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["harness", "toy", *words])
        monkeypatch.setattr(sys, "stdin", io.StringIO("".join(json.dumps(line) + "\n" for line in truth)))
        code = harness.main()
        return code, capsys.readouterr().out

    return run


def test_clean_sinks_are_clean(said: Any) -> None:
    """The table does not have to hold what was older than it keeps; a value is held against what each sink keeps of it."""
    code, told = said("check", "--truth", "-", "--json")
    report = json.loads(told)
    assert code == 0 and report["clean"] and (report["expected"], report["unspooled"]) == (2, 0)
    assert {name: sink["component"] for name, sink in report["sinks"].items()} == {
        "toy-topic": "kafka",
        "table": "postgresql",
    }
    assert [sink["transport"] for sink in report["sinks"].values()] == [True, False]
    assert said("check", "--truth", "-")[1].startswith("2 expected, 0 unspooled\ntoy-topic: 2 found, 0 lost")


def test_what_only_the_spool_has_is_lost_and_what_nobody_has_was_never_kept(said: Any) -> None:
    later = [
        {"run": "one", "answer": 2, "identity": name, "value": 3, "at": 200.0 + number, "recorded": 200.0}
        for number, name in enumerate("cd")
    ] + [{"run": "one", "answer": 2, "served": True}]
    code, told = said("check", "--truth", "-", "--json", truth=[*TRUTH, *later, {"spooled": "c"}])
    report = json.loads(told)
    assert code == 1 and report["unspooled"] == 1 and report["unspooled_at"] == [201.0]
    assert [sink["lost"] for sink in report["sinks"].values()] == [1, 1]


def test_duplicates_are_a_fault_where_it_is_no_transport(said: Any, toy: Any) -> None:
    toy.HELD["toy-topic"] = [*toy.HELD["toy-topic"], ("a", 1)]
    code, told = said("check", "--truth", "-", "--json")
    assert code == 0 and json.loads(told)["sinks"]["toy-topic"]["duplicate"] == 1
    toy.HELD["table"] = [("a", True), ("a", True)]
    assert said("check", "--truth", "-")[0] == 1


def test_what_a_sink_finds_beside_identities_counts(said: Any, toy: Any) -> None:
    none: frozenset[str] = frozenset()
    toy.AUDIT.append(toy.SinkReport("table rows", 3, none, 1, none, none))
    code, told = said("check", "--truth", "-")
    assert code == 1 and "table rows: 3 found, 0 lost, 1 duplicate" in told


def test_only_the_run_that_is_asked_for_is_expected(said: Any) -> None:
    code, told = said("check", "--truth", "-", "--run", "two")
    assert code == 1 and told.startswith("0 expected"), "a run that expected nothing proves nothing"


def test_spool_and_status_are_the_pipelines_own(said: Any) -> None:
    assert said("spooled", "--since", "10") == (0, '{"spooled": "a"}\n{"spooled": "b"}\n')
    assert said("spooled", "--since", "60") == (0, "")
    assert json.loads(said("status", "--json")[1]) == {"rows": 2, "age_seconds": 0.5, "freshness_seconds": None}
    assert said("status")[1] == "rows: 2\nage_seconds: 0.5\nfreshness_seconds: None\n"


@pytest.mark.parametrize("name", load_pipelines())
def test_every_pipeline_has_a_harness(name: str) -> None:
    own = harness.load(name)
    assert not [verb for verb in ("expected", "sinks", "spooled", "newest", "status") if not hasattr(own, verb)]
    # It is sent to nodes, and none of the controller's side is.
    text = Path(str(own.__file__)).read_text()  # type: ignore[attr-defined]
    assert "berny.controller" not in text and "berny.lab" not in text
