"""The firewall of the node that asks: its rules are the kernel's to tell, and only root is told."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from berny.runtime.probe import TIMEOUT, NotServing

UNIT = "berny-firewall"
WATCH = Path("/etc/berny/firewall/watch.sh")


def firewall() -> tuple[bool, str]:
    """Return whether the rules are watched over, and a detail.

    Raises:
        NotServing: the rules that the last play has confirmed are not loaded.
    """
    state = subprocess.run(["systemctl", "is-active", UNIT], capture_output=True, text=True).stdout.strip()
    watched = state == "active"
    detail = "only root is told whether its rules are loaded"
    if os.geteuid() == 0:
        try:
            command = ["/bin/sh", str(WATCH), "check"]
            done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT)
        except subprocess.TimeoutExpired:
            raise NotServing(f"{WATCH} check takes longer than {TIMEOUT:.0f} s") from None
        detail = (done.stdout.strip() or done.stderr.strip() or "no response")[-400:]
        if done.returncode:
            raise NotServing(detail)
    return watched, detail if watched else f"{detail}; {UNIT} is {state}, so nobody brings them back"
