"""Every pipeline's dashboard can be read: what a browser showed once is held in the file."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from typing import Any

import pytest

import dashboards
from berny.catalog import load_pipelines

CHECKS = [
    dashboards.find_layout,
    dashboards.find_columns,
    dashboards.find_nulls,
    dashboards.find_units,
    dashboards.find_colours,
    dashboards.find_sizes,
]
PIPELINES = sorted(dashboards.FILES)


@pytest.mark.parametrize("pipeline", PIPELINES)
@pytest.mark.parametrize("check", CHECKS)
def test_it_can_be_read(pipeline: str, check: Callable[[dict[str, Any]], list[str]]) -> None:
    assert check(dashboards.load(pipeline)) == []


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_it_is_a_dashboard_of_ours(pipeline: str) -> None:
    """The manifest names it; the role hands it through Jinja; it is not to be changed on the page."""
    assert dashboards.FILES[pipeline].name == load_pipelines()[pipeline].dashboard
    text = dashboards.FILES[pipeline].read_text()
    assert not re.search(r"\{\{|\{%|\{#", text)
    whole = dashboards.load(pipeline)
    assert whole["editable"] is False
    assert re.fullmatch(r"[a-z-]{1,40}", whole["uid"])
    # Links to a panel are by its number.
    assert sorted(panel["id"] for panel in whole["panels"]) == list(range(1, len(whole["panels"]) + 1))


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_panels_explain_themselves(pipeline: str) -> None:
    """A reader is told what is shown, and from when on it is bad."""
    for panel in dashboards.load(pipeline)["panels"]:
        assert panel["description"].endswith("."), panel["title"]
        assert panel["datasource"] == panel["targets"][0]["datasource"] == {"type": "influxdb", "uid": "influxdb"}
        assert len(panel["targets"]) == 1, panel["title"]
        steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
        assert len(steps) >= 2 and steps[0]["value"] is None, panel["title"]


# -- each check finds what it is for -----------------------------------------------------------------------------------


def _change(title: str, *path: Any) -> Callable[[dict[str, Any]], None]:
    """Return what sets a panel's value at a path; the value is last, and None takes it away."""

    def change(whole: dict[str, Any]) -> None:
        (here,) = [panel for panel in whole["panels"] if panel["title"] == title]
        *folders, name, value = path
        for folder in folders:
            here = here[folder]
        if value is None:
            del here[name]
        else:
            here[name] = value

    return change


def _drop(title: str, column: str, name: str) -> Callable[[dict[str, Any]], None]:
    """Return what takes a setting away from a column."""

    def change(whole: dict[str, Any]) -> None:
        (panel,) = [panel for panel in whole["panels"] if panel["title"] == title]
        for override in panel["fieldConfig"]["overrides"]:
            if override["matcher"]["options"] == column:
                override["properties"] = [one for one in override["properties"] if one["id"] != name]

    return change


def _first_null(title: str, **words: str) -> Callable[[dict[str, Any]], None]:
    return _change(title, "fieldConfig", "defaults", "mappings", 0, "options", "result", words)


TABLE, GAUGE, LINES = "Next departures", "Delay now", "Delay by direction"


@pytest.mark.parametrize(
    ("check", "change", "words"),
    [
        ("layout", _change(GAUGE, "gridPos", "w", 7), ["Under 5 minutes: over Delay now"]),
        ("layout", _change("Cancelled (1 h)", "gridPos", "w", 7), ["Cancelled (1 h): wider than the page"]),
        ("layout", _change(GAUGE, "gridPos", "h", 4), ["a gap at 0, 4"]),
        ("layout", _change(TABLE, "gridPos", "h", 30), ["Next departures: 30 rows high"]),
        ("layout", lambda whole: whole["panels"].reverse(), ["panels are not in the order of the page"]),
        ("columns", _drop(TABLE, "Platform", "custom.width"), ["without a width: ['Destination', 'Platform']"]),
        ("columns", _change(TABLE, "gridPos", "w", 12), ["not of full width"]),
        ("nulls", _change(GAUGE, "fieldConfig", "defaults", "mappings", None), ["Delay now: no mapping of null"]),
        ("nulls", _first_null("Newest record, age", text="over a day", color="green"), ["age: no mapping of null"]),
        ("nulls", _first_null(GAUGE, text="no data"), ["Delay now: no mapping of null"]),
        ("nulls", _first_null(TABLE, color="text"), ["Next departures: no mapping of null"]),
        ("nulls", _change(GAUGE, "fieldConfig", "defaults", "min", -60), ["Delay now: does not begin with 0"]),
        ("nulls", _change(TABLE, "fieldConfig", "defaults", "noValue", None), ["no words for no rows"]),
        ("units", _change(GAUGE, "fieldConfig", "defaults", "unit", "s"), ["Delay now: s"]),
        ("units", _change(LINES, "fieldConfig", "defaults", "unit", None), ["Delay by direction: no unit"]),
        ("sizes", _change(GAUGE, "options", "text", {"valueSize": 40}), ["'Delay now': 40"]),
        ("sizes", _change(GAUGE, "options", "text", None), ["'Delay now': None"]),
        ("colours", _change(LINES, "fieldConfig", "defaults", "color", "mode", "palette-classic"), ["by the order"]),
    ],
)
def test_a_fault_is_found(check: str, change: Callable[[dict[str, Any]], None], words: list[str]) -> None:
    whole = copy.deepcopy(dashboards.load("idfm"))
    change(whole)
    found = "\n".join(getattr(dashboards, f"find_{check}")(whole))
    assert all(one in found for one in words), found


def test_a_colour_of_two_meanings_is_found() -> None:
    whole = copy.deepcopy(dashboards.load("idfm"))
    (panel,) = [panel for panel in whole["panels"] if panel["title"] == LINES]
    for override, colour in zip(panel["fieldConfig"]["overrides"], ("purple", "dark-green"), strict=True):
        override["properties"] = [{"id": "color", "value": {"mode": "fixed", "fixedColor": colour}}]
    found = dashboards.find_colours(whole)
    assert "purple: ['Aller', 'Retour']" in found and "Delay by direction, Retour: dark-green" in found


def test_a_rule_of_its_own_is_found() -> None:
    whole = copy.deepcopy(dashboards.load("idfm"))
    (panel,) = [panel for panel in whole["panels"] if panel["title"] == GAUGE]
    rules = {"suffix:min": ((5, "orange"), (15, "red"))}
    assert dashboards.find_thresholds(whole, rules) == []
    panel["fieldConfig"]["defaults"]["thresholds"]["steps"][1]["value"] = 2
    assert len(dashboards.find_thresholds(whole, rules)) == 1
