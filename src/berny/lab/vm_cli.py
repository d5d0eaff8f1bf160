"""``berny vm``: one virtual machine with its own kernel."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from berny.controller.progress import Steps
from berny.lab.cli import as_root, console, reporting_errors
from berny.lab.plan import LabError
from berny.lab.vm import Guest

app = typer.Typer(no_args_is_help=True, help="One virtual machine on this host, with its own kernel.")
Name = Annotated[str, typer.Option("--name", help="The guest's name; each has its own disks and network.")]


@app.command()
def up(name: Name = "vm") -> None:
    """Start the guest and wait for SSH; prints how plays reach it."""
    as_root()
    with reporting_errors(), Steps(console) as steps:
        guest = Guest.named(name)
        guest.up(steps)
        console.print(
            f"ansible-playbook {' '.join(guest.inventories)} --tags node playbooks/cluster.yml",
            highlight=False,
            soft_wrap=True,
        )


@app.command()
def down(name: Name = "vm") -> None:
    """Stop the guest and remove its disks, keys and network."""
    as_root()
    with reporting_errors(), Steps(console) as steps:
        Guest.named(name).down(steps)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def ssh(context: typer.Context, name: Name = "vm") -> None:
    """Log in, or run a command there: berny vm ssh -- CMD."""
    as_root()
    with reporting_errors():
        guest = Guest.named(name)
        if not guest.process():
            raise LabError(f"the guest {name!r} does not run: `berny vm up --name {name}` boots it")
        words = guest.ssh(*context.args)
        os.execvp(words[0], words)
