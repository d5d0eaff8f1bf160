"""The command ``berny``."""

from __future__ import annotations

import typer

from berny.artifacts.cli import app as artifacts
from berny.lab.cli import app as lab
from berny.sources.cli import app as simulate

app = typer.Typer(no_args_is_help=True, help=__doc__, pretty_exceptions_enable=False)
app.add_typer(artifacts, name="artifacts")
app.add_typer(lab, name="lab")
app.add_typer(simulate, name="simulate")

if __name__ == "__main__":
    app()
