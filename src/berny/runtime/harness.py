"""``python3 -m berny.runtime.harness PIPELINE VERB``: how lab, tests and fault bench know a pipeline, asked on a node.

Each pipeline has a module ``harness`` (see ``Harness``): what its sinks hold, what its spool has kept, and what flows now.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
from collections.abc import Hashable, Iterable
from pathlib import Path
from typing import Any, NoReturn, Protocol, cast

from berny.runtime.check import Sink, check, read_truth
from berny.runtime.probe import Cluster, NotServing
from berny.runtime.readers import Unreadable

NEWEST_SECONDS = 600
"""How far back the newest observation is looked for each second."""
FRESHNESS_SECONDS = 7200
"""How far back it is looked for once."""


class Harness(Protocol):
    """What the module ``harness`` of a pipeline has; it imports only the runtime, the model and its own pipeline."""

    def expected(self, line: dict[str, Any]) -> tuple[Hashable, float | None]:
        """Return value and Unix time of recording of an observation in the simulator's ground truth."""

    def sinks(self, cluster: Cluster) -> list[Sink]:
        """Return the sinks, in the order of the data flow."""

    def spooled(self, since: float) -> Iterable[str]:
        """Return the identities that the spool has kept since a Unix time, delivered or not."""

    def newest(self, cluster: Cluster, since: float) -> float | None:
        """Return the Unix time that the newest stored observation was recorded at, None where there is none since.

        Raises:
            Unreadable: the sink does not respond.
        """

    def status(self, cluster: Cluster) -> dict[str, Any]:
        """Return names and values of what flows now; a value may be names and values itself, ``_seconds`` ends a time's."""


def load(pipeline: str) -> Harness:
    """Return the harness of a pipeline."""
    return cast(Harness, importlib.import_module(f"berny.pipelines.{pipeline}.harness"))


def status(harness: Harness, cluster: Cluster) -> dict[str, Any]:
    """Return the pipeline's own status with its freshness: None without a stored observation of the last hours."""
    found = harness.status(cluster)
    newest = harness.newest(cluster, time.time() - FRESHNESS_SECONDS)
    return found | {"freshness_seconds": None if newest is None else time.time() - newest}


def follow_newest(harness: Harness, cluster: Cluster) -> NoReturn:
    """Print each second when the newest observation was recorded, in Unix seconds; nothing where the sink is silent."""
    while True:
        since = time.monotonic()
        try:
            print(harness.newest(cluster, time.time() - NEWEST_SECONDS) or "", flush=True)
        except (Unreadable, NotServing):
            print(flush=True)
        time.sleep(max(0.0, 1 - (time.monotonic() - since)))


def report(harness: Harness, cluster: Cluster, words: argparse.Namespace) -> int:
    """Print the checker's report; returns 0 where it is clean."""
    with sys.stdin if words.truth == "-" else Path(words.truth).open() as lines:
        truth = read_truth(lines, harness.expected, words.run)
    found = check(harness.sinks(cluster), truth, words.since)
    if words.json:
        told: dict[str, Any] = {"clean": found.clean, "expected": found.expected, "unspooled": len(found.unspooled)}
        # One moment for each response that was not kept, in Unix seconds.
        told["unspooled_at"] = sorted({truth.answer[one]: truth.at[one] for one in found.unspooled}.values())
        print(json.dumps(told | {"sinks": {sink.sink: sink.as_dict() for sink in found.sinks}}))
    else:
        print(found)
    return 0 if found.clean else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="berny-harness", description=__doc__)
    parser.add_argument("pipeline")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verb = verbs.add_parser("status", help="print what flows through the pipeline now")
    verb.add_argument("--json", action="store_true", help="print one object")
    verbs.add_parser("newest", help="print each second when the newest stored observation was recorded")
    verb = verbs.add_parser("spooled", help='print what the spool has kept, {"spooled": IDENTITY} a line')
    verb.add_argument("--since", type=float, default=0, help="a Unix time")
    verb = verbs.add_parser("check", help="hold every sink against the ground truth; 0 where nothing is wrong")
    words = "the simulator's ground truth, with lines of the spool; - for standard input"
    verb.add_argument("--truth", required=True, help=words)
    verb.add_argument("--run", action="append", help="only responses of this run, or of these, are expected")
    verb.add_argument("--since", type=float, default=0, help="only what sinks got since this Unix time is read")
    verb.add_argument("--json", action="store_true")
    return parser


def main() -> int:
    """Do what the command line asks for."""
    words = _parser().parse_args()
    harness = load(words.pipeline)
    if words.verb == "spooled":
        for identity in harness.spooled(words.since):
            print(json.dumps({"spooled": identity}))
        return 0
    cluster = Cluster.load()
    if words.verb == "check":
        return report(harness, cluster, words)
    if words.verb == "newest":
        follow_newest(harness, cluster)
    found = status(harness, cluster)
    if words.json:
        print(json.dumps(found))
    else:
        for name, value in found.items():
            print(f"{name}: {value}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
