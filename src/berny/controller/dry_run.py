"""What a converge would change, out of the events of a dry run (``--check --diff``, callback ``ansible.posix.jsonl``)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

CONVERGE = re.compile(r"Converge (?P<unit>\S+)$")
RESULTS = ("v2_runner_on_ok", "v2_runner_on_failed", "v2_runner_on_unreachable", "v2_runner_item_on_ok")


@dataclass
class DryRun:
    """Collects events; each is a line of JSON."""

    task: str = ""
    """What runs now."""
    changes: dict[str, list[str]] = field(default_factory=dict)
    """In words, by host."""
    diffs: dict[str, list[Mapping[str, Any]]] = field(default_factory=dict)
    """By host: ``before_header``, ``before``, ``after``."""
    failures: list[str] = field(default_factory=list)

    def take(self, line: str) -> None:
        """Take an event; a line that is none, such as a warning, is passed over."""
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
        # The result of a loop is that of its items, which were reported one by one.
        elif result.get("changed") and "results" not in result:
            self.changes.setdefault(host, []).append(describe(self.task, result))
            diff = result.get("diff") or []
            self.diffs.setdefault(host, []).extend(diff if isinstance(diff, list) else [diff])
        elif result.get("differs"):
            self.changes.setdefault(host, []).append(describe(self.task, result))


def describe(task: str, result: Mapping[str, Any]) -> str:
    """Return what a task would do on a host, in a line."""
    name = task.rpartition(" : ")[2]
    unit = CONVERGE.search(name)
    diff = result.get("diff") or []
    paths = [
        str(one["after_header"]) for one in (diff if isinstance(diff, list) else [diff]) if one.get("after_header")
    ]
    words = []
    if unit:
        words += ["starts"] if result.get("down") else ["restarts"] if result.get("differs") else []
    words += [f"writes {', '.join(paths)}"] if paths else []
    words += [", ".join(map(str, result["changes"]))] if result.get("changes") else []
    return f"{unit['unit'] if unit else name}: {'; '.join(words)}" if words else name
