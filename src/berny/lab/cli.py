"""``berny lab``: four machines on one host."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from berny.controller.artifacts.errors import SupplyError
from berny.controller.progress import Steps
from berny.lab.lab import Lab
from berny.lab.plan import LabError
from berny.lab.simulation import load_simulations, select

app = typer.Typer(no_args_is_help=True, help="Four real systemd machines on this host.")
Name = Annotated[str, typer.Option("--name", envvar="BERNY_LAB", help="The lab's name; each has its own machines.")]
Everything = Annotated[
    bool | None,
    typer.Option(help="Run every component, also those that no pipeline needs; by default as the lab does already."),
]
PIPELINES = "The pipelines to run, 'all' or names such as 'one two'; by default those that it runs already."
console = Console()


@contextmanager
def reporting_errors() -> Iterator[None]:
    """Report errors on one line."""
    try:
        yield
    except (LabError, SupplyError) as error:
        console.print(f"[red]error:[/] {error}", highlight=False, soft_wrap=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        console.print("interrupted; the same command continues from here", highlight=False)
        raise typer.Exit(130) from None


def as_root() -> None:
    """Run this command again with sudo unless it runs as root."""
    if os.geteuid() != 0:
        # Only names: values would be visible in the process list.
        own = {"HOME", *(one.secret.upper() for one in load_simulations().values())}
        keep = [name for name in os.environ if name in own or name.startswith(("XDG_", "BERNY_"))]
        print("the lab's machines need root: running sudo", file=sys.stderr)
        preserve = f"--preserve-env={','.join(keep)}"
        os.execvp("sudo", ["sudo", preserve, sys.executable, "-m", "berny.cli", *sys.argv[1:]])


def work(name: str, task: Callable[[Lab, Steps], None], pipelines: str = "", everything: bool | None = None) -> None:
    """Run a task on a lab and show its steps."""
    as_root()
    with reporting_errors(), Steps(console) as steps:
        task(Lab.named(name, select(pipelines) if pipelines.strip() else (), everything), steps)


@app.command()
def up(name: Name = "lab", everything: Everything = None) -> None:
    """Start the machines and wait for SSH."""
    work(name, lambda lab, steps: lab.up(steps), everything=everything)


@app.command()
def down(
    name: Name = "lab",
    purge: Annotated[bool, typer.Option(help="Remove the machines, their data disks and all traces.")] = False,
) -> None:
    """Shut the machines down; their disks are kept unless purged."""
    work(name, lambda lab, steps: lab.down(steps, purge))


@app.command()
def status(name: Name = "lab") -> None:
    """Show the machines, what runs on them, and the pipelines."""
    as_root()
    with reporting_errors():
        lab = Lab.existing(name)
        table = Table("node", "address", "machine", box=None)
        for node, machine in lab.machines.items():
            table.add_row(node, machine.node.address, "running" if machine.init() else "off")
        console.print(table)
        if lab.running():
            from berny.lab import summary

            summary.show(lab, console)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def ssh(node: str, context: typer.Context, name: Name = "lab") -> None:
    """Log in to a node, or run a command there: berny lab ssh worker_2 -- CMD."""
    as_root()
    with reporting_errors():
        words = Lab.existing(name).ssh(node, *context.args)
        os.execvp(words[0], words)


@app.command()
def start(
    name: Name = "lab",
    rate: Annotated[float, typer.Option(help="Observations per second that each simulator serves.")] = 2.0,
    pipelines: Annotated[str, typer.Option(help=PIPELINES)] = "",
    everything: Everything = None,
) -> None:
    """Set up machines, archives, cluster and pipelines; then show their status and addresses."""
    from berny.lab.make import make

    work(name, lambda lab, steps: make(lab, steps, console, rate), pipelines, everything)
