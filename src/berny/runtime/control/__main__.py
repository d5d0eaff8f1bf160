"""``start-NAME.sh``, ``stop-NAME.sh``: start or stop the services of one kind on all nodes, in the catalog's order."""

from __future__ import annotations

import argparse
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

from berny.runtime.control import unit
from berny.runtime.probe import Cluster, NotReady

SSH_CONFIG = "/etc/berny/control/ssh_config"
PATIENCE = 150
"""Time limit for one node in seconds: a service that does not stop is killed after 60."""


def ask(cluster: Cluster, node: str, verb: str, service: str) -> tuple[int, str]:
    """Run a verb on a node, directly if it is this one; return exit code and message."""
    if node == cluster.here:
        return unit.do(verb, service)
    command = ["ssh", "-F", SSH_CONFIG, cluster.machine(node), f"{verb} {service}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        return 1, f"no response after {PATIENCE} s"
    return done.returncode, (done.stdout + done.stderr).strip()


def main() -> int:
    """Return 0 on success, 1 on failure, 2 for wrong arguments."""
    verb, _, name = sys.argv[1].partition("-")
    descriptions = {
        "start": f"Starts the services that stop-{name}.sh stopped, on all nodes, and waits until they are ready.",
        "stop": f"Stops the services on all nodes. They stay stopped, over reboots and site.yml, until start-{name}.sh.",
    }
    # Unwrapped: a name must not be broken at its hyphen.
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog=f"{verb}-{name}.sh", description=descriptions[verb], formatter_class=form)
    if verb == "start":
        parser.add_argument("--wait", type=float, default=120, metavar="SECONDS", help="time limit (default: 120)")
    words = parser.parse_args(sys.argv[2:])
    try:
        cluster = Cluster.load()
    except NotReady as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    failed = 0
    for service in cluster.facts["control"][name]:
        nodes = cluster.nodes(service)
        with ThreadPoolExecutor(len(nodes)) as pool:
            answers = list(pool.map(lambda node: ask(cluster, node, verb, service), nodes))  # noqa: B023
        for node, (code, said) in zip(nodes, answers, strict=True):
            failed += bool(code)
            print(f"{service} on {node}: {'FAILED: ' if code else ''}{said}", flush=True)
    if verb == "start" and not failed:
        component = cluster.facts["services"][cluster.facts["control"][name][0]]["component"]
        return subprocess.run(["/usr/local/bin/berny-probe", component, "--wait", str(words.wait)]).returncode
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
