"""What was measured, kept with machine, commit, versions and command, and the part of docs/figures.md that is made of it."""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from berny.lab.json_lines import add_line, read_lines
from berny.lab.lab import Lab
from berny.lab.measured import commit, machine
from berny.lab.plan import state_folder
from berny.model.catalog import load_catalog
from berny.model.topology import CHECKOUT, selected_components

PAGE = CHECKOUT / "docs" / "figures.md"
BEGIN, END = "<!-- measured -->", "<!-- /measured -->"
SECTION = re.compile(rf"^(### `([^`\n]+)`\n.*?)(?=^### `|^{END}|\Z)", re.M | re.S)


@dataclass(frozen=True)
class Sheet:
    """A table."""

    title: str
    columns: list[str]
    rows: list[list[str]]


@dataclass(frozen=True)
class Figures:
    """The result of one measurement."""

    command: str
    """What repeats it; another result of the same command replaces it on the page."""
    sheets: list[Sheet]
    machine: str
    commit: str
    day: str
    lab: str
    """Versions of its components, and its pipelines."""


def of(lab: Lab, command: str, sheets: list[Sheet]) -> Figures:
    """Return the figures of a measurement that has just ended."""
    components = selected_components(load_catalog(), lab.plan.groups).components.values()
    runs = [f"{component.title} {component.version}" for component in components]
    words = f"{', '.join(runs)}; pipelines {', '.join(lab.simulators)}"
    return Figures(command, sheets, machine(), commit(), time.strftime("%Y-%m-%d", time.gmtime()), words)


def file() -> Path:
    """Return where results are kept."""
    return state_folder().parent / "figures.jsonl"


def keep(figures: Figures) -> None:
    """Keep a result for the page."""
    add_line(file(), dataclasses.asdict(figures))


def kept() -> list[Figures]:
    """Return the newest result of each command, ignoring those with other fields than today's."""
    found: dict[str, Figures] = {}
    for entry in read_lines(file()):
        with suppress(TypeError, KeyError):
            sheets = [Sheet(**sheet) for sheet in entry["sheets"]]
            found[entry["command"]] = Figures(**{**entry, "sheets": sheets})
    return list(found.values())


def show_table(sheet: Sheet, console: Console) -> None:
    """Print a table."""
    table = Table(*sheet.columns, title=sheet.title, title_justify="left")
    for row in sheet.rows:
        table.add_row(*row)
    console.print(table)


def show(figures: Figures, console: Console) -> None:
    """Print a result."""
    for sheet in figures.sheets:
        show_table(sheet, console)
    console.print(f"{figures.machine}; commit {figures.commit}", highlight=False, soft_wrap=True)


def markdown(found: Iterable[Figures], page: str = "") -> str:
    """Return the results for the page, by command; of commands without a result, what the page has stays."""
    sections = {command: text.strip() + "\n" for text, command in SECTION.findall(page)}
    for figures in found:
        parts = [f"### `{figures.command}`\n"]
        parts.append(f"{figures.day}; {figures.machine}; commit {figures.commit}. {figures.lab}.\n")
        for sheet in figures.sheets:
            parts.append(f"{sheet.title[:1].upper()}{sheet.title[1:]}:\n")
            lines = [sheet.columns, ["---"] * len(sheet.columns), *sheet.rows]
            parts.append("\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n")
        sections[figures.command] = "\n".join(parts)
    return "\n".join(text for _, text in sorted(sections.items()))
