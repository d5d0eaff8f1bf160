"""Results of measurements, kept and written to docs/figures.md."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from berny.controller.mapping import between
from berny.lab import figures
from berny.lab.figures import BEGIN, END, PAGE, Figures, Sheet

ONE = Figures(
    "berny bench x", [Sheet("time, s", ["run", "median"], [["a", "1.5"]])], "2 cores", "abc", "2026-11-30", "Kafka 3"
)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state folder of its own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path


def test_the_newest_result_of_each_command_is_kept() -> None:
    """Of one with other fields, and of a line that was cut off, nothing is."""
    assert figures.kept() == []
    other = dataclasses.replace(ONE, command="berny bench y")
    newer = dataclasses.replace(ONE, commit="def")
    for one in (ONE, other, newer):
        figures.keep(one)
    with figures.file().open("a") as file:
        file.write('{"command": "berny bench z", "sheets": []}\n{"comm')
    assert figures.kept() == [newer, other]


def test_a_result_is_a_section_with_what_repeats_it() -> None:
    text = figures.markdown([ONE])
    assert text == (
        "### `berny bench x`\n\n2026-11-30; 2 cores; commit abc. Kafka 3.\n\nTime, s:\n\n"
        "| run | median |\n| --- | --- |\n| a | 1.5 |\n"
    )


def test_results_of_other_machines_stay_on_the_page() -> None:
    other = dataclasses.replace(ONE, command="berny bench a b")
    page = f"# Figures\n\n{BEGIN}\n{figures.markdown([ONE, other])}\n{END}\n\n### Others\n"
    newer = dataclasses.replace(ONE, commit="def")
    assert figures.markdown([newer], page) == figures.markdown([newer, other])
    assert figures.markdown([], page) == figures.markdown([ONE, other])


def test_the_page_has_a_place_for_them() -> None:
    page = PAGE.read_text()
    assert "new" in between(page, BEGIN, END, "new")
