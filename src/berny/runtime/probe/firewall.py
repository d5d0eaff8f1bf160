"""The probe of this node's firewall. Only root can read the kernel's rules."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from berny.runtime.probe import TIMEOUT, NotReady

UNIT = "berny-firewall"
WATCH = Path("/etc/berny/firewall/watch.sh")


def firewall() -> tuple[bool, str]:
    """Return whether the unit that restores the rules is active, and a detail.

    Raises:
        NotReady: the rules that the last play confirmed are not loaded.
    """
    state = subprocess.run(["systemctl", "is-active", UNIT], capture_output=True, text=True).stdout.strip()
    watched = state == "active"
    detail = "only root can see whether its rules are loaded"
    if os.geteuid() == 0:
        try:
            command = ["/bin/sh", str(WATCH), "check"]
            done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT)
        except subprocess.TimeoutExpired:
            raise NotReady(f"{WATCH} check takes longer than {TIMEOUT:.0f} s") from None
        detail = (done.stdout.strip() or done.stderr.strip() or "no response")[-400:]
        if done.returncode:
            raise NotReady(detail)
    return watched, detail if watched else f"{detail}; {UNIT} is {state}, so nothing restores them"
