"""The forced command of that SSH key: start, stop and status of services that the scripts control and that run here.

The only argument is the client's request, verbatim.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from berny.runtime.probe import Cluster, NotReady

REQUEST = re.compile(r"(?P<verb>start|stop|status) (?P<service>[a-z][a-z0-9-]*)", re.A)


def allowed(cluster: Cluster, request: str) -> tuple[str, str] | None:
    """Return verb and service of a request that this node permits, else None."""
    match = REQUEST.fullmatch(request)
    driven = {service for order in cluster.facts.get("control", {}).values() for service in order}
    if not match or match["service"] not in driven or cluster.here not in cluster.nodes(match["service"]):
        return None
    return match["verb"], match["service"]


def state(service: str) -> str:
    """Return the state of a service according to systemd."""
    command = ["systemctl", "show", "-P", "ActiveState", f"{service}.service"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip() or "unknown"


def do(verb: str, service: str) -> tuple[int, str]:
    """Run a verb; return exit code and message. A stopped service stays stopped, over reboots and plays."""
    held = Path(f"/etc/berny/{service}/stopped")
    before = state(service)
    if verb == "status":
        return 0, before + (" (held down)" if held.exists() else "")
    if verb == "stop":
        if not held.parent.is_dir():
            return 1, f"{held.parent} is missing: was site.yml run?"
        held.touch()
    else:
        held.unlink(missing_ok=True)
        subprocess.run(["systemctl", "reset-failed", f"{service}.service"], capture_output=True)
    done = subprocess.run(["systemctl", verb, f"{service}.service"], capture_output=True, text=True)
    after = state(service)
    if done.returncode:
        journal = ["journalctl", f"--unit={service}", "--lines=5", "--output=cat", "--no-pager"]
        said = subprocess.run(journal, capture_output=True, text=True).stdout.strip()
        reason, _, _ = done.stderr.partition("\n")
        return 1, f"{after}: {reason}\n{said}"
    return 0, after if before != after else f"{after} already"


def main() -> int:
    """Return 0 on success, 1 on failure, 2 if the request is not permitted."""
    request = sys.argv[1] if len(sys.argv) == 2 else ""
    try:
        cluster = Cluster.load()
    except NotReady as error:
        print(error, file=sys.stderr)
        return 1
    found = allowed(cluster, request)
    if not found:
        print(f"{cluster.here} refuses {request[:80]!r}: only start, stop and status of services here", file=sys.stderr)
        return 2
    code, words = do(*found)
    print(words)
    return code


if __name__ == "__main__":
    sys.exit(main())
