"""What ``berny plan`` makes of the events of a dry run."""

from __future__ import annotations

import json
from typing import Any

import pytest

from berny.controller.dry_run import DryRun, describe


def events(*results: tuple[str, str, dict[str, Any]]) -> DryRun:
    """Return what was collected of tasks that ended on a host: task, host, result."""
    found = DryRun()
    for task, host, result in results:
        found.take(json.dumps({"_event": "v2_playbook_on_task_start", "task": {"name": task}}))
        found.take(json.dumps({"_event": "v2_runner_on_ok", "hosts": {host: result}}))
    return found


def test_nothing_that_changes_is_nothing() -> None:
    found = events(("node : Install packages", "master", {"changed": False}), ("x", "worker_0", {"skipped": True}))
    assert (found.changes, found.failures) == ({}, [])


@pytest.mark.parametrize(
    ("one", "words"),
    [
        ({"changed": True, "down": True}, ["kafka: starts"]),
        ({"changed": False, "differs": True, "written": []}, ["kafka: restarts"]),
        (
            {"changed": True, "differs": True, "written": ["/etc/berny/kafka/server.properties", "/elsewhere"]},
            ["kafka: restarts; writes /etc/berny/kafka/server.properties"],
        ),
        ({"changed": True, "differs": False, "written": []}, ["kafka: changes"]),
        ({"changed": True, "down": True, "unpacks": "/opt/kafka-4"}, ["kafka: unpacks /opt/kafka-4; starts"]),
        ({"changed": True, "installs": ["zstd", "acl"]}, ["kafka: installs zstd, acl"]),
        ({"changed": True, "begins": ["kafka-watch.service"]}, ["kafka: starts kafka-watch.service"]),
        ({"changed": False, "differs": False, "written": []}, []),
    ],
)
def test_a_service_starts_or_restarts(one: dict[str, Any], words: list[str]) -> None:
    diff = [{"after_header": "/etc/berny/kafka/server.properties"}]
    result = {"changed": one["changed"], "services": {"kafka": one, "other": {"changed": False}}, "diff": diff}
    assert events(("service : Converge kafka", "master", result)).changes == ({"master": words} if words else {})


def test_other_tasks_are_named_with_what_they_change() -> None:
    made = {"changed": True, "changes": ["a: made", "b: made"]}
    assert describe("kafka : Create the topics", made) == ["Create the topics: a: made, b: made"]
    assert describe("node : Install packages", {"changed": True}) == ["Install packages"]
    assert describe("x", {"changed": True, "diff": {"after_header": "/etc/hostname"}}) == ["x: writes /etc/hostname"]
    assert describe("x", {"changed": False}) == []


def test_a_loop_is_reported_by_its_items() -> None:
    found = DryRun()
    found.take(json.dumps({"_event": "v2_playbook_on_task_start", "task": {"name": "install"}}))
    found.take(json.dumps({"_event": "v2_runner_item_on_ok", "hosts": {"master": {"changed": True, "item": "a"}}}))
    found.take(json.dumps({"_event": "v2_runner_on_ok", "hosts": {"master": {"changed": True, "results": [{}]}}}))
    assert found.changes == {"master": ["install"]}


def test_failures_name_host_and_task() -> None:
    found = DryRun(task="kafka : Create the topics")
    found.take(json.dumps({"_event": "v2_runner_on_failed", "hosts": {"master": {"msg": "refused"}}}))
    found.take(json.dumps({"_event": "v2_runner_on_unreachable", "hosts": {"worker_0": {}}}))
    assert found.failures == [
        "master: kafka : Create the topics: refused", "worker_0: kafka : Create the topics: no reason was given",
    ]  # fmt: skip


@pytest.mark.parametrize("line", ["", "[WARNING]: something", "[]", "3", '{"_event": "v2_playbook_on_stats"}'])
def test_other_lines_are_passed_over(line: str) -> None:
    found = DryRun()
    found.take(line)
    assert found == DryRun()
