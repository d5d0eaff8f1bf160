"""The command ``berny``."""

from __future__ import annotations

import typer

from berny.artifacts.cli import app as artifacts

app = typer.Typer(no_args_is_help=True, help=__doc__, pretty_exceptions_enable=False)
app.add_typer(artifacts, name="artifacts")

if __name__ == "__main__":
    app()
