"""``berny-probe``: report whether services are ready and healthy."""

from __future__ import annotations

import argparse
import json
import sys
import time

from berny.runtime.probe import Cluster, Health, NotReady
from berny.runtime.probe.ask import ask, ask_component, components, names_here

PAUSE = 0.5


def main() -> int:
    """Return 0 if everything is in the wanted state, 1 if not, 2 for wrong arguments."""
    parser = argparse.ArgumentParser(
        prog="berny-probe",
        description="Probes services by their own protocol. Ready: able to do its work now. Healthy: nothing missing. "
        "For a service of this node its own instance is probed, for another one an instance over the network.",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="services, components or stages (unit names)")
    parser.add_argument(
        "--component",
        action="store_true",
        help="names are components; a component is ready if it is ready on any node",
    )
    parser.add_argument("--all", action="store_true", help="everything that runs on this node (the default)")
    parser.add_argument("--json", action="store_true", help="print a list of objects")
    parser.add_argument("--wait", type=float, default=0, metavar="SECONDS", help="wait for the wanted state")
    parser.add_argument(
        "--want", choices=["ready", "healthy"], default="ready", help="the wanted state (default: ready)"
    )
    words = parser.parse_args()
    try:
        cluster = Cluster.load()
    except NotReady as error:
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
        # What a person has stopped is no fault; who asks for it by name wants it.
        lacking = [one for one in done.values() if not getattr(one, words.want) and (words.names or not one.stopped)]
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
            not_ready = "STOPPED" if health.stopped else "NOT READY"
            state = ("healthy" if health.healthy else "ready") if health.ready else not_ready
            print(f"{health.service} on {health.node}: {state}: {health.detail}")
    return 1 if lacking else 0


if __name__ == "__main__":
    sys.exit(main())
