"""``berny plan``: what a converge would change and restart, by host, without touching anything."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from berny.controller.dry_run import DryRun
from berny.controller.progress import Steps, follow
from berny.lab.cli import as_root
from berny.model.topology import CHECKOUT

console = Console()
ENVIRONMENT = {"ANSIBLE_STDOUT_CALLBACK": "ansible.posix.jsonl", "ANSIBLE_FORCE_COLOR": "0", "ANSIBLE_NOCOLOR": "1"}


def plan(
    context: typer.Context,
    inventory: Annotated[
        str, typer.Option("-i", "--inventory", help="The cluster; the lab named by BERNY_LAB without.")
    ] = "",
    diff: Annotated[bool, typer.Option("--diff", help="Show what would change in each file.")] = False,
) -> None:
    """Show what site.yml would change and restart, by host; nothing where nothing would.

    Nothing is touched. Further options go to ansible-playbook, such as --limit, --tags or -e.
    """
    if not inventory:
        as_root()
    command = [str(Path(sys.executable).with_name("ansible-playbook")), "playbooks/plan.yml", "--check", "--diff"]
    command += ["-i", str(Path(inventory).resolve()) if inventory else "inventory/lab", *context.args]
    found = DryRun()
    with Steps(Console(stderr=True)) as steps, steps.step("dry run") as say:

        def each(line: str) -> None:
            found.take(line)
            say(found.task)

        code, last = follow(command, each, cwd=CHECKOUT, env=os.environ | ENVIRONMENT)
    for host, changes in sorted(found.changes.items()):
        console.print(f"[bold]{host}[/]", highlight=False)
        for change in changes:
            console.print(f"  {change}", highlight=False, soft_wrap=True, markup=False)
        for one in found.diffs.get(host, []) if diff else []:
            _show(one)
    if code:
        said = found.failures or [" ".join(last)[-1500:]]
        Console(stderr=True).print(f"[red]error:[/] {' | '.join(said)}", highlight=False, soft_wrap=True)
        raise typer.Exit(1)


def _show(one: Mapping[str, Any]) -> None:
    before, after = str(one.get("before") or "").splitlines(), str(one.get("after") or "").splitlines()
    names = str(one.get("before_header") or ""), str(one.get("after_header") or "")
    for line in difflib.unified_diff(before, after, *names, lineterm="", n=1):
        console.print(f"    {line}", highlight=False, soft_wrap=True, markup=False)
