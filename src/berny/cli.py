"""The command ``berny``."""

from __future__ import annotations

import typer

from berny.controller.artifacts.cli import app as artifacts
from berny.faults.cli import app as faults
from berny.lab.bench_cli import app as bench
from berny.lab.bundle_cli import bundle_logs
from berny.lab.cli import app as lab
from berny.lab.plan_cli import plan
from berny.lab.simulate_cli import app as simulate
from berny.lab.vm_cli import app as vm

app = typer.Typer(no_args_is_help=True, help=__doc__, pretty_exceptions_enable=False)
app.add_typer(artifacts, name="artifacts")
app.add_typer(bench, name="bench")
app.add_typer(faults, name="faults")
app.add_typer(lab, name="lab")
app.add_typer(simulate, name="simulate")
app.add_typer(vm, name="vm")
app.command("plan", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(plan)
app.command("bundle-logs", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(bundle_logs)

if __name__ == "__main__":
    # Run as a module; completion goes by the name.
    app(prog_name="berny")
