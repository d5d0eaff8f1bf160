"""``berny-probe``: ask whether services serve and are whole."""

from __future__ import annotations

import argparse
import json
import sys
import time

from berny.runtime.probe import Cluster, Health, NotServing
from berny.runtime.probe.ask import ask, ask_component, components, names_here

PAUSE = 0.5


def main() -> int:
    """Return 0 where all that was asked is in the wanted state, 1 where not, 2 for a wrong call."""
    parser = argparse.ArgumentParser(
        prog="berny-probe",
        description="Asks services by their own protocol. Serving: able to do its work now. Whole: nothing missing. "
        "A service of this node is asked as the instance it is, another over the network.",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="services, components or stages (unit names)")
    parser.add_argument(
        "--component",
        action="store_true",
        help="names are those of components: one serves where any of its nodes does, this one or another",
    )
    parser.add_argument("--all", action="store_true", help="everything that runs on this node")
    parser.add_argument("--json", action="store_true", help="print a list of objects")
    parser.add_argument("--wait", type=float, default=0, metavar="SECONDS", help="wait for the wanted state")
    parser.add_argument("--want", choices=["serving", "whole"], default="serving")
    words = parser.parse_args()
    try:
        cluster = Cluster.load()
    except NotServing as error:
        print(f"berny-probe: {error}", file=sys.stderr)
        return 2
    names = words.names or names_here(cluster)
    deadline = time.monotonic() + words.wait
    done: dict[str, Health] = {}
    told = time.monotonic()
    while True:
        for name in names:
            if name not in done or not getattr(done[name], words.want):
                try:
                    done[name] = ask_component(cluster, name) if words.component else ask(cluster, name)
                except KeyError:
                    known = sorted(components(cluster) | (set() if words.component else set(cluster.facts["services"])))
                    print(f"berny-probe: nothing is called {name!r}; there are {', '.join(known)}", file=sys.stderr)
                    return 2
        lacking = [health for health in done.values() if not getattr(health, words.want)]
        if not lacking or time.monotonic() > deadline:
            break
        if time.monotonic() - told > 10:
            told = time.monotonic()
            print(f"waiting for {lacking[0].service}: {lacking[0].detail}", file=sys.stderr)
        time.sleep(PAUSE)
    if words.json:
        print(json.dumps([health.as_dict() for health in done.values()]))
    else:
        for health in done.values():
            state = ("whole" if health.whole else "serving") if health.serving else "NOT SERVING"
            print(f"{health.service} on {health.node}: {state}: {health.detail}")
    return 1 if lacking else 0


if __name__ == "__main__":
    sys.exit(main())
