#!/usr/bin/python3
"""What a node tells of itself for a support bundle; the action plugin berny_support_pack takes the secrets out."""

from __future__ import annotations

DOCUMENTATION = """
module: berny_support
short_description: Gather journals, configuration, versions, probes and metrics of a node
options:
  since: {description: 'How far back journals go, as journalctl takes it.', type: str, required: true}
  journal_bytes: {description: At most so much of a unit's journal., type: int, required: true}
author: [Berny (@berny)]
"""
EXAMPLES = """
- name: Gather
  berny_support: {since: 24 hours ago, journal_bytes: 2097152}
"""
RETURN = """
files: {description: Texts by name., type: dict, returned: always}
private: {description: Names of the files that only their owner may read., type: list, returned: always}
"""

import json
import os
import stat
import subprocess
import urllib.request
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

FILE_BYTES = 1 << 20
PATIENCE = 60
COMMANDS = {
    "versions/kernel.txt": "uname -a; cat /etc/os-release /proc/cmdline; uptime",
    "versions/packages.txt": "dpkg-query -W -f '${Package} ${Version} ${db:Status-Abbrev}\\n'",
    "versions/archives.txt": "ls -l --time-style=long-iso /opt/berny /opt/berny/archives",
    "versions/java.txt": "for java in /usr/lib/jvm/*/bin/java; do echo $java; $java -version; done",
    "versions/python.txt": "python3 --version; ls /opt/berny/runtime/python | grep dist-info",
    "state/units.txt": "systemctl list-units --all --type service,target --no-pager --plain; systemctl --failed --no-pager",
    "state/memory.txt": "free -m; cat /proc/meminfo /proc/loadavg; ps -eo pid,user,rss,etime,comm --sort -rss",
    "state/disks.txt": "df -h; df -i; findmnt; ls -l /data",
    "state/network.txt": "ip address; ip route; ss -s; ss -ltnp; cat /etc/hosts /etc/resolv.conf",
    "state/firewall.txt": "nft list ruleset",
    "state/clock.txt": "date --iso-8601=ns; timedatectl; chronyc tracking",
    "state/started.txt": "grep -r --include=started . /run/berny",
}


def run(command: str, limit: int = FILE_BYTES) -> str:
    """Return what a shell command prints, its end where it is longer; what it lacks is told in the text."""
    try:
        done = subprocess.run(
            ["/bin/sh", "-c", command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=PATIENCE,
            stdin=subprocess.DEVNULL, env={**os.environ, "LC_ALL": "C.UTF-8", "SYSTEMD_COLORS": "0"},
        )  # fmt: skip
        return cut(done.stdout, limit)
    except subprocess.TimeoutExpired as error:
        return cut(error.stdout or b"", limit) + f"\n[not finished after {PATIENCE} s]\n"


def cut(data: bytes, limit: int) -> str:
    """Return the end of what was read, from the beginning of a line on."""
    if len(data) <= limit:
        return data.decode("utf-8", "replace")
    end = data[-limit:]
    return f"[{len(data) - limit} bytes before this were left out]\n" + end[end.find(b"\n") + 1 :].decode(
        "utf-8", "replace"
    )


def configuration() -> tuple[dict[str, str], list[str]]:
    """Return the files of Berny and of its units, and which of them only their owner may read."""
    files, private = {}, []
    roots = [Path("/etc/berny"), Path("/etc/systemd/system"), Path("/etc/sysusers.d"), Path("/etc/tmpfiles.d")]
    roots += [
        Path("/etc/systemd/journald.conf.d"),
        Path("/etc/sysctl.d"),
        Path("/etc/security/limits.d"),
        Path("/etc/sudoers.d"),
    ]
    for path in sorted(path for root in roots for path in root.rglob("*")):
        if path.is_symlink() or not path.is_file():
            continue
        name = f"config{path}"
        files[name] = cut(path.read_bytes()[: FILE_BYTES + 1], FILE_BYTES)
        if not stat.S_IMODE(path.stat().st_mode) & 0o004 and path.parts[2] == "berny":
            private.append(name)
    return files, private


def units() -> list[str]:
    """Return the services that Berny made here."""
    found = [path.stem for path in Path("/etc/systemd/system").glob("*.service") if not path.is_symlink()]
    return sorted({*found, *(path.parent.name for path in Path("/etc/berny").glob("*/inputs"))})


def journals(since: str, limit: int) -> dict[str, str]:
    """Return the journals of Berny's services, the kernel's, and what the rest of the machine warned of."""
    start = f"journalctl --no-pager -o short-iso-precise --since '{since}'"
    found = {f"journal/{unit}.log": run(f"{start} -u {unit}.service", limit) for unit in units()}
    found["journal/kernel.log"] = run(f"{start} -k", limit)
    found["journal/warnings.log"] = run(f"{start} -p warning", limit)
    return found


def metrics() -> dict[str, str]:
    """Return the metrics pages of the stages that run here."""
    try:
        cluster = json.loads(Path("/etc/berny/cluster.json").read_text())
    except (OSError, ValueError) as error:
        return {"metrics/none.txt": f"/etc/berny/cluster.json: {error}\n"}
    machine, found = Path("/etc/hostname").read_text().strip(), {}
    for pipeline in cluster["pipelines"].values():
        for stage in pipeline["stages"].values():
            if machine in [cluster["nodes"][node]["machine"] for node in stage["nodes"]]:
                url = f"http://{machine}:{stage['metrics_port']}/metrics"
                try:
                    with urllib.request.urlopen(url, timeout=5) as answer:
                        text = cut(answer.read(FILE_BYTES), FILE_BYTES)
                except OSError as error:
                    text = f"{url}: {error}\n"
                found[f"metrics/{stage['unit']}.txt"] = text
    return found


def main() -> None:
    module = AnsibleModule(
        argument_spec={"since": {"type": "str", "required": True}, "journal_bytes": {"type": "int", "required": True}},
        supports_check_mode=True,
    )
    files, private = configuration()
    files |= {name: run(command) for name, command in COMMANDS.items()}
    files |= journals(module.params["since"].replace("'", ""), module.params["journal_bytes"])
    files["probes.json"] = run("/usr/local/bin/berny-probe --all --json")
    files |= metrics()
    module.exit_json(changed=False, files=files, private=private)


if __name__ == "__main__":
    main()
