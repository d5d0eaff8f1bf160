"""What a converge would change, from the events of a dry run (``--check --diff``, callback ``ansible.posix.jsonl``)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

RESTART = "Restart "
RESULTS = ("v2_runner_on_ok", "v2_runner_on_failed", "v2_runner_on_unreachable", "v2_runner_item_on_ok")


@dataclass
class DryRun:
    """Collects events, each a line of JSON."""

    task: str = ""
    """The task that runs now."""
    changes: dict[str, list[str]] = field(default_factory=dict)
    """Descriptions by host."""
    diffs: dict[str, list[Mapping[str, Any]]] = field(default_factory=dict)
    """By host: ``before_header``, ``before``, ``after``."""
    failures: list[str] = field(default_factory=list)

    def take(self, line: str) -> None:
        """Process an event; other lines, such as warnings, are ignored."""
        try:
            event = json.loads(line)
        except ValueError:
            return
        if not isinstance(event, dict):
            return
        kind = event.get("_event", "")
        if kind == "v2_playbook_on_task_start":
            self.task = str(event["task"]["name"])
        elif kind in RESULTS:
            for host, result in event.get("hosts", {}).items():
                self._result(host, result, kind)

    def _result(self, host: str, result: Mapping[str, Any], kind: str) -> None:
        if kind in ("v2_runner_on_failed", "v2_runner_on_unreachable"):
            self.failures.append(f"{host}: {self.task}: {result.get('msg') or 'no reason was given'}")
        # A restart is reported by the service that runs from something old, on its own host.
        elif self.task.rpartition(" : ")[2].startswith(RESTART):
            return
        # A loop's result repeats those of its items, which are events of their own.
        elif "results" not in result:
            lines = describe(self.task, result)
            if lines:
                self.changes.setdefault(host, []).extend(lines)
            self.diffs.setdefault(host, []).extend(_diffs(result))


def describe(task: str, result: Mapping[str, Any]) -> list[str]:
    """Return what a task would do on a host, one line per service or one for the task; empty if it would change nothing."""
    if "services" in result:
        return [
            f"{name}: {'; '.join(words)}"
            for name, one in result["services"].items()
            if (words := _service(name, one, _written(result)))
        ]
    if not result.get("changed"):
        return []
    paths, changes = _written(result), result.get("changes") or []
    words = [f"writes {', '.join(paths)}"] if paths else []
    words += [", ".join(map(str, changes))] if changes else []
    name = task.rpartition(" : ")[2]
    return [f"{name}: {'; '.join(words)}" if words else name]


def _diffs(result: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    diff = result.get("diff") or []
    return diff if isinstance(diff, list) else [diff]


def _written(result: Mapping[str, Any]) -> list[str]:
    return [str(one["after_header"]) for one in _diffs(result) if one.get("after_header")]


def _service(name: str, one: Mapping[str, Any], written: list[str]) -> list[str]:
    words = [f"installs {', '.join(one['installs'])}"] if one.get("installs") else []
    words += [f"unpacks {one['unpacks']}"] if one.get("unpacks") else []
    words += ["starts"] if one.get("down") else ["restarts"] if one.get("differs") else []
    words += [f"starts {', '.join(one['begins'])}"] if one.get("begins") else []
    paths = [path for path in one.get("written", []) if path in written]
    words += [f"writes {', '.join(paths)}"] if paths else []
    return words or (["changes"] if one.get("changed") else [])
