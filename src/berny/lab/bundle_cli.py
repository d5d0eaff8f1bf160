"""``berny bundle-logs``: what all nodes of a cluster report, in one archive without secrets."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections import deque
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from berny.controller.progress import Steps, follow
from berny.controller.support.archive import read_nodes
from berny.lab.cli import as_root
from berny.model.topology import CHECKOUT

TASK = re.compile(r"^TASK \[(?P<title>.*?)\] \**$")
ANSWERED = re.compile(r"^ok: \[(?P<node>[\w-]+)\]")
console = Console()


def bundle_logs(
    context: typer.Context,
    inventory: Annotated[
        str, typer.Option("-i", "--inventory", help="The cluster; the lab named by BERNY_LAB without.")
    ] = "",
    to: Annotated[Path, typer.Option(help="The folder that the archive is written to.")] = Path(),
    since: Annotated[str, typer.Option(help="How far back journals go, as journalctl takes it.")] = "24 hours ago",
    journal_mib: Annotated[int, typer.Option(min=1, help="At most so much of one unit's journal, its end.")] = 2,
) -> None:
    """Gather journals, configuration, versions, probes and metrics of all nodes into one archive, secrets removed.

    A node that does not answer is named, on the terminal and in the archive. Further options go to ansible-playbook, such as
    --ask-vault-pass.
    """
    if not inventory:
        as_root()
    options = {"support_since": since, "support_journal_bytes": str(journal_mib << 20)}
    to.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".berny-bundle-", dir=to) as scratch:
        options["support_folder"] = str(Path(scratch).resolve())
        command = [str(Path(sys.executable).with_name("ansible-playbook")), "playbooks/bundle.yml"]
        command += ["-i", str(Path(inventory).resolve()) if inventory else "inventory/lab"]
        command += [word for name, value in options.items() for word in ("-e", f"{name}='{value}'")]
        _play([*command, *context.args])
        (made,) = Path(scratch).glob("*.tar.gz")
        archive = made.rename(to / made.name)
    console.print(f"{archive} ({archive.stat().st_size >> 10} KiB)", highlight=False, soft_wrap=True)
    for node, words in read_nodes(archive).items():
        console.print(f"  {node}: {words}", highlight=False, soft_wrap=True, markup=False)


def _play(command: list[str]) -> None:
    environment = os.environ | {"ANSIBLE_FORCE_COLOR": "0", "ANSIBLE_NOCOLOR": "1"}
    title, answered = "", 0
    told: deque[str] = deque(maxlen=8)
    if any("ask-" in word or word in ("-K", "-J") for word in command):
        # Ansible prompts for a password on the terminal.
        code = subprocess.run(command, cwd=CHECKOUT, env=environment).returncode
    else:
        with Steps(console) as steps, steps.step("ask all nodes") as say:

            def each(line: str) -> None:
                nonlocal title, answered
                task, answer = TASK.match(line), ANSWERED.match(line)
                title = task["title"] if task else title
                answered = 0 if task else answered + bool(answer)
                told.append(line)
                say(f"{title}: {answered} nodes" if answered else title)

            code, _ = follow(command, each, cwd=CHECKOUT, env=environment)
    if code:
        console.print(f"[red]error:[/] {' '.join(told)[-1500:]}", highlight=False, soft_wrap=True)
        raise typer.Exit(1)
