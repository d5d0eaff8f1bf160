"""Convergence of one service on one host: restart is state, not an event.

A unit records, as it starts, a digest of all that it was started from (see record-start in the role ``node``). This module
compares the digest with what is on disk, starts a service that is down, and restarts one on request.
"""

from __future__ import annotations

import grp
import pwd
import re
import stat
import time
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

RECORD = "/usr/local/lib/berny/record-start"
UNITS = Path("/etc/systemd/system")
TMPFILES = Path("/etc/tmpfiles.d")
DATA = Path("/data")
# A service that needs another one may die once or twice while that one starts.
PATIENCE = 4
SETTLE_SECONDS = 2
# What a unit is while its process runs; the second while commands that follow its start are under way.
FOLLOWING = "start-post"
UP = {("active", "running"), ("activating", FOLLOWING)}
EX_CONFIG = 78
CAUSES = (
    r"already in use|no space left|permission denied|read-only file system|cannot allocate|outofmemory|too small|"
    r"is not a directory|no such file|unknownhost|unrecognized"
)


class Service:
    """A unit, its start record and its probe."""

    def __init__(self, module: AnsibleModule, params: dict[str, Any]) -> None:
        self.module = module
        self.params = params
        self.name: str = params["name"]
        self.unit = f"{self.name}.service"

    def properties(self, unit: str = "") -> dict[str, str]:
        """Return what systemd knows of the unit, or of another."""
        names = "ActiveState,SubState,UnitFileState,NRestarts,ExecMainStatus,NeedDaemonReload,ActiveEnterTimestamp"
        command = ["systemctl", "show", "--timestamp=unix", f"--property={names}", unit or self.unit]
        _, out, _ = self.module.run_command(command, check_rc=True)
        return dict(line.split("=", 1) for line in out.splitlines())

    def wanted(self) -> str:
        """Return the digest of what is on disk; an empty string where a dry run has not written what records it."""
        if not Path(RECORD).exists():
            return ""
        unit_digest = ""
        unit = UNITS / self.unit
        if unit.exists():
            found = re.search(rf"^ExecStartPre=\+{RECORD} {re.escape(self.name)} (\S+)$", unit.read_text(), re.M)
            unit_digest = found[1] if found else ""
        code, out, _ = self.module.run_command([RECORD, "--print", self.name, unit_digest])
        return out.strip() if code == 0 else ""

    def is_old(self, unit: str, facts: dict[str, str]) -> bool:
        """Return whether a unit beside the service runs from an older text or program than what is on disk.

        A second in which it started and was written counts as started.
        """
        file = UNITS / unit
        if facts["NeedDaemonReload"] == "yes" or not file.exists():
            return facts["NeedDaemonReload"] == "yes"
        programs = map(Path, re.findall(r"^ExecStart=(/\S+)", file.read_text(), re.M))
        written = max(path.stat().st_mtime for path in (file, *programs) if path.exists())
        return int(written) > int(facts["ActiveEnterTimestamp"].lstrip("@") or 0)

    def started(self) -> str:
        """Return the digest recorded at the last start, or an empty string."""
        record = Path(f"/run/berny/{self.name}/started")
        return record.read_text().strip() if record.exists() else ""

    def mend(self) -> str:
        """Have all that is in the service's directories be its user's to use; return the first that was not, or nothing.

        ``find`` walks them: 200,000 files took it 1.4 s on a busy machine with 2 cores.
        """
        conf = TMPFILES / f"{self.name}.conf"
        lines = (
            [line.split() for line in conf.read_text().splitlines() if line.startswith("d ")] if conf.exists() else []
        )
        there = {Path(line[1]): int(line[2], 8) for line in lines if Path(line[1]).is_dir()}
        if not there:
            return ""
        uid, gid = pwd.getpwnam(lines[0][3]).pw_uid, grp.getgrnam(lines[0][4]).gr_gid
        shut = [
            folder for path in there for folder in path.parents if folder == DATA and not folder.stat().st_mode & 0o001
        ]
        wide = [path for path, mode in there.items() if stat.S_IMODE(path.stat().st_mode) & ~mode]
        outer = [str(path.resolve()) for path in there if not there.keys() & {*path.parents}]
        # What a file system keeps for itself stays root's.
        walk = ["find", "-H", *outer, "-ignore_readdir_race", "-name", "lost+found", "-prune", "-o"]
        owner = ["(", "!", "-uid", str(uid), "-o", "!", "-gid", str(gid), ")"]
        folder, file = ["(", "-type", "d", "!", "-perm", "-u=rwx", ")"], ["(", "-type", "f", "!", "-perm", "-u=r", ")"]
        words = "%p had mode %m, owner %u:%g"
        _, out, _ = self.module.run_command(
            [*walk, "(", *owner, "-o", *folder, "-o", *file, ")", "-printf", words, "-quit"]
        )
        found = [f"{path} is open to others" for path in wide] + [f"{path} is closed to services" for path in shut]
        found = [out] if out else found
        if found and not self.module.check_mode:
            for path in shut:
                path.chmod(0o755)
            # -execdir: a path that is swapped for a link meanwhile leads nowhere else.
            for which, command in (
                (owner, ["chown", "-h", f"{uid}:{gid}"]),
                (folder, ["chmod", "u+rwx"]),
                (file, ["chmod", "u+rw"]),
            ):
                self.module.run_command(
                    [*walk, *which, "-execdir", *command, "{}", "+"],
                    environ_update={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
                )
            self.module.run_command(["systemd-tmpfiles", "--create", conf.name])
        return found[0] if found else ""

    def systemctl(self, *words: str) -> tuple[int, str]:
        code, out, err = self.module.run_command(["systemctl", *words])
        return code, (out + err).strip()

    def log_line(self, since: str) -> str:
        """Return the journal line since ``since`` that most likely says why: the last error, else the last line."""
        command = ["journalctl", "-u", self.unit, "--no-pager", "-o", "cat", "-n", "200", f"--since=@{since}"]
        _, out, _ = self.module.run_command(command)
        lines = [line.strip() for line in out.splitlines() if line.strip()]
        telling = r"\b(ERROR|FATAL|SEVERE|error:|\w*Exception|\w*Error:|refus|failed|cannot|can't|No space left)"
        noise = r"^(Started|Starting|Stopped|Stopping|Scheduled|Failed to start|\S+\.service:)|^at "
        own = [line for line in lines if not re.search(noise, line)]
        errors = [line for line in own if re.search(telling, line)]
        # "Exiting with code 1" comes last and says least: what the system refused says most.
        causes = [line for line in own if re.search(CAUSES, line, re.I)]
        return (causes or errors or own or lines or ["the journal is empty"])[-1][:400]

    def probe(self, what: str, want: str, wait: int | None = None) -> tuple[bool, str]:
        """Ask berny-probe until it says ``want``, the time is over or the unit keeps dying; return answer and words."""
        deadline = time.monotonic() + (self.params["wait"] if wait is None else wait)
        before = int(self.properties()["NRestarts"])
        while True:
            code, out, err = self.module.run_command(
                ["/usr/local/bin/berny-probe", what, "--wait", "5", "--want", want]
            )
            words = (out + err).strip().splitlines()
            if code == 0:
                return True, words[-1] if words else ""
            found = self.properties()
            if want == "ready" and found["ActiveState"] == "failed" and found["ExecMainStatus"] == str(EX_CONFIG):
                return False, f"it ended with {EX_CONFIG}: it needs a person"
            deaths = int(found["NRestarts"]) - before
            if want == "ready" and deaths >= PATIENCE:
                return False, f"it died {deaths} times in a row"
            if time.monotonic() > deadline:
                return False, words[-1] if words else f"berny-probe {what} said nothing"

    def stays(self) -> tuple[bool, str]:
        """Tell whether a unit without a probe runs, and still does a moment later."""
        time.sleep(SETTLE_SECONDS)
        found = self.properties()
        return found["SubState"] == "running", f"it is {found['ActiveState']} ({found['SubState']})"

    def settle(self) -> None:
        """Wait until what follows the unit's start is done: until then the instance is not what it was."""
        deadline = time.monotonic() + self.params["wait"]
        while self.properties()["SubState"] == FOLLOWING and time.monotonic() < deadline:
            time.sleep(1)

    def run(self) -> None:
        """Start the unit anew and wait until it is ready; fail with unit and log line."""
        _, now, _ = self.module.run_command(["date", "+%s"], check_rc=True)
        self.systemctl("daemon-reload")
        self.module.run_command(["systemd-tmpfiles", "--create", f"{self.name}.conf"])
        self.systemctl("reset-failed", self.unit)
        # Stopped first and started without waiting: the old process can't answer the probe for the new one, and a unit
        # that waits for what it needs does not hold up the play.
        self.systemctl("stop", self.unit)
        code, said = self.systemctl("start", "--no-block", self.unit)
        ready, detail = (False, said) if code else (True, "")
        if ready and self.params["probe"]:
            ready, detail = self.probe(self.params["probe"], "ready")
        elif ready:
            ready, detail = self.stays()
        if not ready:
            self.module.fail_json(
                msg=f"{self.unit} did not come back: {detail}. Its log says: {self.log_line(now.strip())} "
                f"(more: journalctl -u {self.unit}). Repair the cause and run the play again: it continues here.",
                unit=self.unit,
            )
        self.settle()


def start(service: Service) -> dict[str, Any]:
    """Start the service where it is down, enable it where it is not, and compare a running one."""
    module = service.module
    mended = service.mend()
    found = service.properties()
    wanted = service.wanted()
    result: dict[str, Any] = {"mended": mended, "diff": {"before": f"{mended}\n", "after": ""} if mended else {}}
    if Path(f"/etc/berny/{service.name}/stopped").exists():
        return {**result, "changed": bool(mended), "differs": False, "held": True}
    up = (found["ActiveState"], found["SubState"]) in UP
    differs = up and service.started() != wanted
    units = {service.unit: found}
    target = service.params["target"]
    if target:
        units[target] = service.properties(target)
    beside = {unit: service.properties(unit) for unit in service.params["beside"]}
    enable = [unit for unit, facts in (units | beside).items() if facts["UnitFileState"] != "enabled"]
    reach = bool(target) and units[target]["ActiveState"] != "active"
    begin = [unit for unit, facts in beside.items() if facts["ActiveState"] != "active" or service.is_old(unit, facts)]
    if not module.check_mode:
        if enable:
            service.systemctl("daemon-reload")
            service.systemctl("enable", *enable)
        if not up:
            service.run()
        if reach:
            service.systemctl("start", "--no-block", target)
        if begin:
            service.systemctl("daemon-reload")
            code, said = service.systemctl("restart", *begin)
            if code:
                module.fail_json(msg=f"systemctl restart {' '.join(begin)}: {said}", unit=begin[0])
    changed = bool(mended or enable or reach or begin) or not up
    return {**result, "changed": changed, "differs": differs, "down": not up, "begins": begin, "held": False}


def start_timer(service: Service) -> dict[str, Any]:
    """Start and enable the service's timer. A run starts from what is configured then: nothing is restarted."""
    module, timer = service.module, f"{service.name}.timer"
    mended = service.mend()
    result: dict[str, Any] = {"mended": mended, "diff": {"before": f"{mended}\n", "after": ""} if mended else {}}
    if Path(f"/etc/berny/{service.name}/stopped").exists():
        return {**result, "changed": bool(mended), "differs": False, "held": True}
    wanted = [timer, *([service.params["target"]] if service.params["target"] else [])]
    facts = {unit: service.properties(unit) for unit in wanted}
    enable = [unit for unit in wanted if facts[unit]["UnitFileState"] != "enabled"]
    down = [unit for unit in wanted if facts[unit]["ActiveState"] != "active"]
    # Another calendar, perhaps: a timer that runs has read the old one.
    stale = [] if timer in down or facts[timer]["NeedDaemonReload"] != "yes" else [timer]
    # What it runs: the next run is of the unit that systemd has loaded.
    load = service.properties()["NeedDaemonReload"] == "yes"
    if not module.check_mode and (enable or down or stale or load):
        service.systemctl("daemon-reload")
        module.run_command(["systemd-tmpfiles", "--create", f"{service.name}.conf"])
        for verb, units in (("enable", enable), ("start", down), ("restart", stale)):
            code, said = service.systemctl(verb, *units) if units else (0, "")
            if code:
                module.fail_json(msg=f"systemctl {verb} {' '.join(units)}: {said}", unit=timer)
    changed = bool(mended or enable or down or stale or load)
    return {**result, "changed": changed, "differs": False, "down": timer in down, "held": False}


def restart(service: Service) -> dict[str, Any]:
    """Wait until the component is healthy, restart the instance and wait until it is ready."""
    module = service.module
    gate = service.params["gate"] or service.params["probe"]
    if not module.check_mode:
        # Where the component, or a stage, is not ready there is nothing to protect: what differs may be the repair. A
        # component may become ready meanwhile.
        component = service.params["component"]
        if gate and (component or service.probe(gate, "ready", wait=0)[0]):
            healthy, detail = service.probe(gate, "healthy")
            if not healthy and service.probe(component or gate, "ready", wait=0)[0]:
                module.fail_json(
                    msg=f"{gate} is not healthy, so {service.unit}, which is ready, is not taken down: {detail}. "
                    "Bring back what is missing (berny-probe names it) and run the play again.",
                    unit=service.unit,
                )
        service.run()
    return {"changed": True, "differs": False}


ARGUMENTS: dict[str, Any] = {
    "name": {"type": "str", "required": True},
    "phase": {"type": "str", "choices": ["start", "restart"], "required": True},
    "probe": {"type": "str", "default": ""},
    "gate": {"type": "str", "default": ""},
    "component": {"type": "str", "default": ""},
    "target": {"type": "str", "default": ""},
    "beside": {"type": "list", "elements": "str", "default": []},
    "timer": {"type": "bool", "default": False},
    "wait": {"type": "int", "default": 180},
}


def have(module: AnsibleModule, params: dict[str, Any]) -> dict[str, Any]:
    """Start a service that is down and compare one that runs, or restart it; see the module ``berny_service``."""
    begin = start_timer if params["timer"] else start
    return (begin if params["phase"] == "start" else restart)(Service(module, params))
