"""Keep other plays off this cluster while this one runs, whatever controller they run on; see docs/design/plays.md."""

from __future__ import annotations

import getpass
import json
import os
import select
import shlex
import signal
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from ansible import context
from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase

# Empty after a boot: no play outlives that on the node that it is told by.
FILE = "/run/lock/berny"
BEAT_SECONDS, STALE_SECONDS = 20, 90
HELD = 3
# One at a time: mine is what the file has to hold, over is who is known to be gone. A lock that was not renewed is nobody's.
SCRIPT = """
exec 9>>{file} && flock -w 10 9 || exit 1
held=$(cat {file})
age=$(($(date +%s) - $(stat -c %Y {file})))
if [ -n "$held" ] && [ "$held" != {mine} ] && [ "$held" != {over} ] && [ $age -ge 0 ] && [ $age -lt {stale} ]; then
    printf %s "$held"
    exit {status}
fi
"""
TAKE = SCRIPT + "printf %s {mine} > {file}\n"
# Emptied and not removed: whoever waits for it has it open.
RELEASE = SCRIPT + '[ "$held" != {mine} ] || : > {file}\n'


def started(pid: int) -> str:
    """Return when a process was started, in ticks since the boot, or nothing where there is none: numbers come again."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""


def boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def me(pid: int) -> dict[str, str]:
    """Return who this play is, for people and for plays that come after it."""
    return {
        "who": f"{os.environ.get('SUDO_USER') or getpass.getuser()}@{socket.gethostname()}",
        "play": " ".join(Path(name).name for name in context.CLIARGS.get("args") or ()),
        "since": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
        "process": str(pid),
        "started": started(pid),
        "boot": boot(),
    }


def is_gone(holder: dict[str, str]) -> bool:
    """Tell whether a play is known to have ended: one of this machine that is no process any more."""
    return holder.get("boot") == boot() and started(int(holder.get("process", 0))) != holder.get("started")


class ActionModule(ActionBase):
    """Takes the lock once for all plays of a run; a process of its own renews it, and lets go of it when the run ends."""

    _requires_connection = True
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Fail where another play works on this cluster. A node that can't be asked keeps nobody off, which is told."""
        result = super().run(tmp, task_vars)
        main = os.getppid()
        if self._task.check_mode:
            return result
        before = ((task_vars or {}).get(self._task.register) or {}).get("holder") if self._task.register else None
        if before and before["process"] == str(main):
            return result | {"holder": before}
        holder = me(main)
        result["holder"] = holder
        mine = json.dumps(holder)
        try:
            code, said = self._tell(TAKE, mine)
            if code == HELD and is_gone(self._read(said)):
                code, said = self._tell(TAKE, mine, over=said)
        except AnsibleConnectionFailure as error:
            code, said = 1, str(error).strip()
        if code == HELD:
            other = self._read(said)
            result["failed"] = True
            result["msg"] = (
                f"Nothing was touched. {other.get('who', 'somebody')} works on this cluster: {other.get('play', 'a play')} "
                f"(process {other.get('process', 'unknown')}), since {other.get('since', 'a time unknown')}. Wait until that "
                f"play ends. One that was killed together with its machine is forgotten after {STALE_SECONDS} s."
            )
        elif code:
            node = self._task.delegate_to or (task_vars or {}).get("inventory_hostname")
            result["warnings"] = [
                f"{node} can't be told that this play works on the cluster, so others are not kept off: {said}"
            ]
        else:
            self._hold(main, mine)
        return result

    @staticmethod
    def _read(said: str) -> dict[str, str]:
        with suppress(ValueError):
            found = json.loads(said)
            return found if isinstance(found, dict) else {}
        return {}

    def _tell(self, script: str, mine: str, over: str = "") -> tuple[int, str]:
        """Run a script on the node; returns its exit code, and who has the lock or what went wrong."""
        file = shlex.quote(str(self._task.args.get("file") or FILE))
        words = {"file": file, "mine": shlex.quote(mine), "over": shlex.quote(over or mine)}
        said = self._low_level_execute_command(script.format(**words, stale=STALE_SECONDS, status=HELD).strip())
        return int(said["rc"]), str(said["stdout"] or said["stderr"]).strip()

    def _hold(self, main: int, mine: str) -> None:
        """Leave a process behind that renews the lock until the run is over, however it ends."""
        try:
            run = os.pidfd_open(main)
        except OSError:
            return
        if os.fork() == 0:
            self._renew(run, mine)
        os.close(run)

    def _renew(self, run: int, mine: str) -> NoReturn:
        try:
            # Out of reach of what ends the run, and of who waits for its output.
            os.setsid()
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_DFL)
            null = os.open(os.devnull, os.O_RDWR)
            for descriptor in (0, 1, 2):
                os.dup2(null, descriptor)
            os.dup2(run, 3)
            os.closerange(4, os.sysconf("SC_OPEN_MAX"))
            self._display.verbosity = 0
            over = select.poll()
            over.register(3, select.POLLIN)
            while not over.poll(BEAT_SECONDS * 1000):
                with suppress(AnsibleConnectionFailure):
                    if self._tell(TAKE, mine)[0] == HELD:
                        os._exit(0)
            self._tell(RELEASE, mine)
        finally:
            os._exit(0)
