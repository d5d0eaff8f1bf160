"""Every pipeline's dashboard can be read: what a browser showed once is held in the file."""

from __future__ import annotations

import configparser
import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml

import dashboards
from berny.model.catalog import load_catalog
from berny.model.manifest import load_pipelines

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
    assert str(dashboards.FILES[pipeline]).endswith(load_pipelines()[pipeline].dashboard)
    text = dashboards.FILES[pipeline].read_text()
    assert not re.search(r"\{\{|\{%|\{#", text)
    whole = dashboards.load(pipeline)
    assert whole["editable"] is False
    assert re.fullmatch(r"[a-z-]{1,40}", whole["uid"])
    # Links to a panel are by its number.
    assert sorted(panel["id"] for panel in whole["panels"]) == list(range(1, len(whole["panels"]) + 1))


def given(source: dict[str, str], pipeline: str) -> bool:
    """Return whether a component that the pipeline requires gives Grafana this datasource."""
    catalog = load_catalog().components
    files = [
        dashboards.CHECKOUT / "roles" / name / "templates" / "datasource.yml.j2"
        for name in load_pipelines()[pipeline].requires
        if "datasource" in catalog[name].gives
    ]
    texts = [file.read_text().replace("{{ database }}", pipeline) for file in files]
    wanted = [rf"^ +{key}: {re.escape(value)}$" for key, value in source.items()]
    return any(all(re.search(line, text, re.M) for line in wanted) for text in texts)


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_panels_explain_themselves(pipeline: str) -> None:
    """A reader is told what is shown, and from when on it is bad."""
    for panel in dashboards.load(pipeline)["panels"]:
        assert panel["description"].endswith("."), panel["title"]
        assert panel["datasource"] == panel["targets"][0]["datasource"]
        assert given(panel["datasource"], pipeline), panel["title"]
        assert len(panel["targets"]) == 1, panel["title"]
        steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
        assert len(steps) >= 2 and steps[0]["value"] is None, panel["title"]


# -- what the role makes of them ---------------------------------------------------------------------------------------


def test_the_start_page_is_the_first_dashboard() -> None:
    """By its address: Grafana shows a file without its title."""
    role = dashboards.CHECKOUT / "roles" / "grafana"
    made = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True)
    made.filters["from_json"] = json.loads
    home = yaml.safe_load((role / "vars" / "main.yml").read_text())["_grafana_home"]
    files = {f"/etc/berny/grafana/dashboards/{name}.json": str(dashboards.FILES[name]) for name in PIPELINES}
    words = {"lookup": lambda plugin, path: Path(path).read_text(), "grafana_dashboards": files}
    uid = made.from_string(home).render(words)
    others = dict.fromkeys(
        ["ansible_managed", "service_data", "service_conf", "node_address", "grafana_log_level"], "x"
    )
    words |= others | {"catalog": load_catalog(), "_grafana_home": uid}
    for dashboard_files, expected in ((files, f"/d/{dashboards.load(PIPELINES[0])['uid']}"), ({}, None)):
        text = made.from_string((role / "templates" / "grafana.ini.j2").read_text()).render(
            words | {"grafana_dashboards": dashboard_files}
        )
        settings = configparser.ConfigParser(interpolation=None)
        settings.read_string(text)
        assert settings["users"].get("home_page") == expected
        assert "default_home_dashboard_path" not in settings["dashboards"]


def test_grafana_finds_every_folder_that_it_looks_for() -> None:
    """It logs an error for each that is missing."""
    tasks = (dashboards.CHECKOUT / "roles" / "grafana" / "tasks" / "run.yml").read_text()
    found = set(re.findall(r"^ +provisioning/(\w+)/\w+\.yml: ", tasks, re.MULTILINE))
    assert found == {"datasources", "dashboards", "plugins", "alerting"}


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
        (
            "nulls",
            _first_null("Age of the newest record", text="over a day", color="green"),
            ["record: no mapping of null"],
        ),
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
