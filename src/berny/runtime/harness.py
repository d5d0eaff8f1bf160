"""``python3 -m berny.runtime.harness PIPELINE VERB``, run on a node: how lab, tests and fault bench query a pipeline.

Each pipeline has a module ``harness`` (see ``Harness``): the contents of its sinks and its spool, and its current status.
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
from berny.runtime.probe import Cluster, NotReady
from berny.runtime.readers import Unreadable

NEWEST_SECONDS = 600
"""How far back ``follow_newest`` searches."""
FRESHNESS_SECONDS = 7200
"""How far back ``status`` searches."""
COUNT_SECONDS = 20
"""Observations recorded longer ago are counted once more only: all of them are stored by then."""
COUNT_PAUSE = 0.005
DAY_SECONDS = 86400


class Harness(Protocol):
    """The interface of a pipeline's module ``harness``, which imports only the runtime, the model and its own pipeline."""

    def expected(self, line: dict[str, Any]) -> tuple[Hashable, float | None]:
        """Return value and Unix time of recording of an observation in the simulator's ground truth."""

    def sinks(self, cluster: Cluster) -> list[Sink]:
        """Return the sinks, in the order of the data flow."""

    def spooled(self, since: float) -> Iterable[str]:
        """Return the identities that the spool has stored since a Unix time, delivered or not."""

    def newest(self, cluster: Cluster, since: float) -> float | None:
        """Return the Unix time at which the newest stored observation was recorded; None if there is none since ``since``.

        Raises:
            Unreadable: the sink does not respond.
        """

    def stored(self, cluster: Cluster, since: float, until: float) -> int:
        """Return how many stored observations were recorded from a Unix time on and before another.

        Raises:
            Unreadable: the sink does not respond.
        """

    def status(self, cluster: Cluster) -> dict[str, Any]:
        """Return the current status as names and values, which may be nested; names of durations end in ``_seconds``."""


def load(pipeline: str) -> Harness:
    """Return the harness of a pipeline."""
    return cast(Harness, importlib.import_module(f"berny.pipelines.{pipeline}.harness"))


def status(harness: Harness, cluster: Cluster) -> dict[str, Any]:
    """Return the pipeline's own status and its freshness, which is None without a recent observation."""
    found = harness.status(cluster)
    newest = harness.newest(cluster, time.time() - FRESHNESS_SECONDS)
    return found | {"freshness_seconds": None if newest is None else time.time() - newest}


def follow_newest(harness: Harness, cluster: Cluster) -> NoReturn:
    """Print each second when the newest observation was recorded, in Unix seconds; an empty line if there is none."""
    while True:
        since = time.monotonic()
        try:
            print(harness.newest(cluster, time.time() - NEWEST_SECONDS) or "", flush=True)
        except (Unreadable, NotReady):
            print(flush=True)
        time.sleep(max(0.0, 1 - (time.monotonic() - since)))


def follow_count(harness: Harness, cluster: Cluster, since: float, seconds: float) -> None:
    """Print, for so many seconds, how many observations recorded since a Unix time are stored, each time that it grew.

    A line is the Unix time at which the query returned, and the count.
    """
    begin, before, shown = since, 0, -1
    ends = time.time() + seconds
    while (now := time.time()) < ends:
        if now - begin > 2 * COUNT_SECONDS:
            before += harness.stored(cluster, begin, now // 1 - COUNT_SECONDS)
            begin = now // 1 - COUNT_SECONDS
        count = before + harness.stored(cluster, begin, now // 1 + DAY_SECONDS)
        if count != shown:
            shown = count
            print(f"{time.time():.4f} {count}", flush=True)
        time.sleep(COUNT_PAUSE)


def report(harness: Harness, cluster: Cluster, words: argparse.Namespace) -> int:
    """Print the checker's report; returns 0 where it is clean."""
    with sys.stdin if words.truth == "-" else Path(words.truth).open() as lines:
        truth = read_truth(lines, harness.expected, words.run)
    found = check(harness.sinks(cluster), truth, words.since)
    if words.json:
        result: dict[str, Any] = {"clean": found.clean, "expected": found.expected, "unspooled": len(found.unspooled)}
        # One Unix time for each response that was not stored.
        result["unspooled_at"] = sorted({truth.answer[one]: truth.at[one] for one in found.unspooled}.values())
        print(json.dumps(result | {"sinks": {sink.sink: sink.as_dict() for sink in found.sinks}}))
    else:
        print(found)
    return 0 if found.clean else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="berny-harness", description=__doc__)
    parser.add_argument("pipeline")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verb = verbs.add_parser("status", help="print the current status of the pipeline")
    verb.add_argument("--json", action="store_true", help="print one object")
    verbs.add_parser("newest", help="print each second when the newest stored observation was recorded")
    verb = verbs.add_parser("count", help="print how many observations are stored, each time that the number grows")
    verb.add_argument("--since", type=float, required=True, help="a Unix time")
    verb.add_argument("--seconds", type=float, required=True, help="duration")
    verb = verbs.add_parser("stored", help="print how many observations are stored")
    verb.add_argument("--since", type=float, required=True, help="the Unix time from which on they were recorded")
    verb = verbs.add_parser("spooled", help='print what the spool has stored, one {"spooled": IDENTITY} per line')
    verb.add_argument("--since", type=float, default=0, help="a Unix time")
    verb = verbs.add_parser("check", help="compare every sink with the ground truth; exits with 0 if nothing is wrong")
    words = "the simulator's ground truth, followed by the output of the verb spooled; - for standard input"
    verb.add_argument("--truth", required=True, help=words)
    verb.add_argument("--run", action="append", help="expect only responses of this run; may be repeated")
    verb.add_argument("--since", type=float, default=0, help="read only what arrived in sinks since this Unix time")
    verb.add_argument("--json", action="store_true")
    return parser


def main() -> int:
    """Run the verb; return the exit code."""
    words = _parser().parse_args()
    harness = load(words.pipeline)
    if words.verb == "spooled":
        for identity in harness.spooled(words.since):
            print(json.dumps({"spooled": identity}))
        return 0
    cluster = Cluster.load()
    if words.verb == "check":
        return report(harness, cluster, words)
    if words.verb == "stored":
        print(harness.stored(cluster, words.since, time.time() // 1 + DAY_SECONDS))
        return 0
    if words.verb == "newest":
        follow_newest(harness, cluster)
    if words.verb == "count":
        follow_count(harness, cluster, words.since, words.seconds)
        return 0
    found = status(harness, cluster)
    if words.json:
        print(json.dumps(found))
    else:
        for name, value in found.items():
            print(f"{name}: {value}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
