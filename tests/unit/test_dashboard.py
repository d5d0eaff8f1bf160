"""The dashboard: what git has is what the code makes, and it asks for what is stored."""

from __future__ import annotations

import datetime as dt
import itertools
import re
from typing import Any

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

import panels
from berny.catalog import load_pipelines
from berny.pipelines.idfm import dashboard, points

MANIFEST = load_pipelines()["idfm"]
SINK = MANIFEST.sinks["influxdb"]
WHOLE = panels.dashboard()
PANELS: list[dict[str, Any]] = WHOLE["panels"]
QUERIES = panels.queries()
NOON = dt.datetime(2025, 11, 24, 12, tzinfo=dt.UTC)


def test_git_has_what_the_code_makes() -> None:
    """The file is never edited by hand."""
    assert dashboard.FILE == panels.DASHBOARD
    assert dashboard.FILE.read_text() == dashboard.text(), "run: python -m berny.pipelines.idfm.dashboard"


def test_the_manifest_names_it(checkout: Any) -> None:
    """The role finds it there."""
    assert dashboard.FILE.name == MANIFEST.dashboard
    assert dashboard.FILE.parent == checkout / "src" / "berny" / "pipelines" / "idfm"


def test_the_librarys_models_read_it_whole() -> None:
    """A key that Grafana's schema does not know would be lost on the way."""
    register_default_plugins()
    again = JSONEncoder(sort_keys=True, indent=2, ensure_ascii=False).encode(Dashboard.from_json(WHOLE))
    assert f"{again}\n" == dashboard.FILE.read_text()


def test_it_is_no_template() -> None:
    """The role hands the file through Jinja."""
    assert not re.search(r"\{\{|\{%|\{#", dashboard.FILE.read_text())


def test_it_can_not_be_changed_on_the_page() -> None:
    """It is this file's; its address stays."""
    assert WHOLE["title"] == "RER B · La Croix de Berny"
    assert WHOLE["editable"] is False
    assert re.fullmatch(r"[a-z-]{1,40}", WHOLE["uid"])


# -- panels ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_panel_is_whole(panel: dict[str, Any]) -> None:
    """A reader is told what it shows, in which unit, and from when on it is bad."""
    assert panel["description"].endswith((".", "most."))
    assert panel["datasource"] == panel["targets"][0]["datasource"] == {"type": "influxdb", "uid": "influxdb"}
    assert len(panel["targets"]) == 1
    defaults = panel["fieldConfig"]["defaults"]
    units = [defaults.get("unit")]
    for override in panel["fieldConfig"]["overrides"]:
        units += [one["value"] for one in override["properties"] if one["id"] == "unit"]
    assert [unit for unit in units if unit]
    assert len(defaults["thresholds"]["steps"]) >= 2
    assert defaults["thresholds"]["steps"][0]["value"] is None


def test_panels_have_numbers_of_their_own() -> None:
    """Links to a panel are by its number."""
    assert sorted(panel["id"] for panel in PANELS) == list(range(1, len(PANELS) + 1))


def test_layout_fills_the_page() -> None:
    """Nothing overlaps, every row is 24 columns wide, and nothing is narrower than 300 points at 1280."""
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in PANELS)
        for x, y in itertools.product(
            range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"])
        )
    ]
    assert len(cells) == len(set(cells))
    rows = {y for _, y in cells}
    assert rows == set(range(max(rows) + 1))
    assert len(cells) == 24 * len(rows)
    assert all(panel["gridPos"]["w"] * 1280 / 24 >= 300 for panel in PANELS)


def test_panels_come_in_the_order_of_the_page() -> None:
    """A phone shows them one below the other: the state of the line first, the pipeline's own last."""
    places = [(panel["gridPos"]["y"], panel["gridPos"]["x"]) for panel in PANELS]
    assert places == sorted(places)
    assert PANELS[0]["title"] == "Delay now" and PANELS[-1]["title"] == "Age of the last measure"


# -- queries -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("title", QUERIES)
def test_query_asks_for_what_is_stored(title: str) -> None:
    """A field or tag that the manifest does not have would be an empty panel."""
    query = QUERIES[title]
    assert f'r._measurement == "{SINK["measurement"]}"' in query
    assert "v.defaultBucket" in query
    assert set(re.findall(r'_field == "(\w+)"', query)) <= set(SINK["fields"])
    made = {"_time", "_value", "_field", "_measurement", "share", "cancelled", "records", "departure"}
    assert set(re.findall(r"\br\.(\w+)", query)) <= {*SINK["fields"], *SINK["tags"], *made}


@pytest.mark.parametrize("title", QUERIES)
def test_query_is_plain_after_replacing(title: str) -> None:
    """Every variable that it names is one of Grafana's or the dashboard's."""
    asked = panels.Asked(NOON - dt.timedelta(hours=3), NOON, ("Aller",), ("A/B", "C.D")).server(QUERIES[title], "b")
    assert "$" not in asked.replace("$/", "")
    assert not re.search(r"\bv\.", asked)
    if "${mission:regex}" in QUERIES[title]:
        assert r"/^(A\/B|C\.D)$/" in asked and "/^Aller$/" in asked


@pytest.mark.parametrize("title", ["Delay now", "Under 5 minutes", "Worst delay", "Cancelled in the last hour"])
def test_a_slot_is_no_journey(title: str) -> None:
    """Two trains may share a slot: what is newest is found by journey."""
    query = QUERIES[title]
    assert '"slot"' not in query
    assert query.index('columns: ["journey"]') < query.index("limit(n: 1)")
    assert "last()" not in query


def test_late_is_late_everywhere(checkout: Any) -> None:
    """The analytics' bound, which needs Spark to be imported."""
    columns = (checkout / "src/berny/pipelines/idfm/columns.py").read_text()
    assert f"\nLATE_SECONDS = {dashboard.LATE_SECONDS}\n" in columns


def test_all_is_all() -> None:
    """What nobody has chosen yet is everything, missions that come later among it."""
    for one in WHOLE["templating"]["list"]:
        assert one["multi"] and one["includeAll"] and one["allValue"] == panels.ALL
        assert one["current"]["value"] == ["$__all"]
        assert one["name"] in SINK["tags"]
        assert "v.timeRange" not in one["query"], "not every version tells variables a time range"
        assert one["description"]


# -- when a train is due -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ("2025-11-24T12:00:00.000Z", 1763985600000),
        ("2025-11-24T13:00:00.123+01:00", 1763985600123),
        ("1969-12-31T23:59:59.999Z", -1),
        ("2025-11-24T12:00:00", None),
        ("noon", None),
        ("", None),
        (None, None),
        (7, None),
    ],
)
def test_milliseconds(told: object, expected: int | None) -> None:
    """A time without an offset is no time."""
    assert points.milliseconds(told) == expected
