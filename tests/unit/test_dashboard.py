"""The dashboard of idfm: git has what the code makes, it asks for what is stored, and one rule says what is late."""

from __future__ import annotations

import datetime as dt
import re
from typing import Any

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

import dashboards
import panels
from berny.model.manifest import load_pipelines
from berny.pipelines.idfm import points
from berny.pipelines.idfm.controller import dashboard
from dashboards import Asked, Point

MANIFEST = load_pipelines()["idfm"]
SINK = MANIFEST.resources["influxdb"]["idfm_metrics"]
WHOLE = dashboards.load("idfm")
PANELS: dict[str, dict[str, Any]] = {panel["title"]: panel for panel in WHOLE["panels"]}
QUERIES = dashboards.queries(WHOLE)
NOON = dt.datetime(2025, 11, 24, 12, tzinfo=dt.UTC)


def test_git_has_what_the_code_makes() -> None:
    """The file is never edited by hand."""
    assert dashboards.FILES["idfm"] == dashboard.FILE
    assert dashboard.FILE.read_text() == dashboard.text(), "run: python -m berny.pipelines.idfm.controller.dashboard"


def test_the_librarys_models_read_it_whole() -> None:
    """A key that Grafana's schema does not know would be lost on the way."""
    register_default_plugins()
    again = JSONEncoder(sort_keys=True, indent=2, ensure_ascii=False).encode(Dashboard.from_json(WHOLE))
    assert f"{again}\n" == dashboard.FILE.read_text()


def test_its_address_stays() -> None:
    assert WHOLE["title"] == "RER B · La Croix de Berny"
    assert WHOLE["uid"] == "rer-b-la-croix-de-berny"


# -- panels ------------------------------------------------------------------------------------------------------------


def test_order_of_the_page() -> None:
    """The state of the line, how it came to it, what comes next; the pipeline's own figures last and smaller."""
    kinds = [panel["type"] for panel in PANELS.values()]
    assert kinds == ["gauge"] * 4 + ["timeseries"] * 2 + ["table"] + ["stat"] * 2
    heights = {panel["type"]: panel["gridPos"]["h"] for panel in PANELS.values()}
    assert heights["stat"] < heights["gauge"] < heights["timeseries"]
    assert [*PANELS][-1] == "Age of the newest record"


def test_a_phone_has_the_departures_alone() -> None:
    """Grafana stacks panels in the order of the page there: a link leads past six of them."""
    (link,) = WHOLE["links"]
    assert link["url"] == f"/d/{WHOLE['uid']}?viewPanel={PANELS['Next departures']['id']}"
    assert link["includeVars"] and link["keepTime"]


def test_late_is_late_everywhere(checkout: Any) -> None:
    """The analytics' bound, which needs Spark to be imported, is the first step of the one rule."""
    columns = (checkout / "src/berny/pipelines/idfm/columns.py").read_text()
    assert f"\nLATE_SECONDS = {dashboard.LATE_SECONDS}\n" in columns
    assert dashboard.LATE == ((dashboard.LATE_SECONDS / 60, "orange"), (15, "red"))
    rules = {dashboard.MINUTES: dashboard.LATE, dashboard.SHARE: dashboard.PUNCTUAL}
    assert dashboards.find_thresholds(WHOLE, rules) == []
    shown = [where for panel in PANELS.values() for where, its in dashboards.configurations(panel)
             if its.get("unit") == dashboard.MINUTES]  # fmt: skip
    assert shown == ["Delay now", "Worst delay", "Delay by direction", "Next departures, Delay"]


def test_departures_have_their_columns() -> None:
    panel = PANELS["Next departures"]
    (arranged,) = panel["transformations"]
    places = arranged["options"]["indexByName"]
    shown = [arranged["options"]["renameByName"][name] for name in sorted(places, key=places.__getitem__)]
    assert shown == ["Departure", "Delay", "Status", "Destination", "Mission", "Platform", "Direction"]
    assert panel["fieldConfig"]["defaults"]["noValue"] == "no upcoming trains"
    (asked,) = re.findall(r"rows: \[\{(due_ms[^}]*)\}\]", QUERIES["Next departures"])
    # The row that is never shown has every column, so that none disappears with its last value.
    names = {pair.split(":")[0].strip() for pair in asked.split(",")}
    assert names - {"due_ms"} | {"departure"} == {*places}


def test_every_status_has_words(checkout: Any) -> None:
    """Those that the analytics give, and no other."""
    columns = (checkout / "src/berny/pipelines/idfm/columns.py").read_text()
    (status,) = re.findall(r"    status = \((.*?)\n    \)", columns, re.DOTALL)
    told = set(re.findall(r'(?:when\([^"]*|otherwise\()"(\w+)"', status))
    assert {*dashboard.STATUS} == told
    mapped = dashboards.by_name(PANELS["Next departures"])["Status"]["mappings"]
    (words,) = [one["options"] for one in mapped if one["type"] == "value"]
    assert {*words} == told
    assert words["cancelled"]["color"] == "red" and words["late"]["color"] == dashboard.LATE[0][1]
    assert words["onTime"]["text"] == "on time"
    assert words["unknown"]["color"] not in dashboards.JUDGING


def test_an_age_of_over_a_day_is_red() -> None:
    (mapping,) = PANELS["Age of the newest record"]["fieldConfig"]["defaults"]["mappings"]
    assert mapping["options"]["result"]["color"] == "red"


# -- queries -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("title", QUERIES)
def test_query_asks_for_what_is_stored(title: str) -> None:
    """A field or tag that the manifest does not have would be an empty panel."""
    query = QUERIES[title]
    assert f'r._measurement == "{SINK["measurement"]}"' in query
    assert "v.defaultBucket" in query
    assert set(re.findall(r'_field == "(\w+)"', query)) <= set(SINK["fields"])
    made = {"_time", "_stop", "_value", "_field", "_measurement", "share", "cancelled", "records", "departure"}
    assert set(re.findall(r"\br\.(\w+)", query)) <= {*SINK["fields"], *SINK["tags"], *made}


@pytest.mark.parametrize("title", QUERIES)
def test_query_is_plain_after_replacing(title: str) -> None:
    """Every variable that it names is one of Grafana's or the dashboard's."""
    asked = Asked(NOON - dt.timedelta(hours=3), NOON, ("Aller",), ("A/B", "C.D")).server(QUERIES[title], "b")
    assert "$" not in asked.replace("$/", "")
    assert not re.search(r"\bv\.", asked)
    if "${mission:regex}" in QUERIES[title]:
        assert r"/^(A\/B|C\.D)$/" in asked and "/^Aller$/" in asked


@pytest.mark.parametrize("title", ["Delay now", "Under 5 minutes", "Worst delay", "Cancelled (1 h)"])
def test_a_slot_is_no_journey(title: str) -> None:
    """Two trains may share a slot: what is newest is found by journey."""
    query = QUERIES[title]
    assert '"slot"' not in query
    assert query.index('columns: ["journey"]') < query.index("limit(n: 1)")
    assert "last()" not in query


@pytest.mark.parametrize("title", ["Delay by direction", "Under 5 minutes by direction"])
def test_a_line_weighs_trains(title: str) -> None:
    """A window has a poll at least, and of each train the newest value in it counts, once."""
    assert PANELS[title]["interval"] == "2m"
    query = QUERIES[title]
    order = [
        "window(every: v.windowPeriod)",
        "desc: true",
        'unique(column: "journey")',
        "median" if "Delay" in title else "mean",
    ]
    assert [query.index(one) for one in order] == sorted(query.index(one) for one in order)


def test_all_is_all() -> None:
    """What nobody has chosen yet is everything, missions that come later among it."""
    for one in WHOLE["templating"]["list"]:
        assert one["multi"] and one["includeAll"] and one["allValue"] == dashboards.ALL
        assert one["current"]["value"] == ["$__all"]
        assert one["name"] in SINK["tags"]
        assert "v.timeRange" not in one["query"], "not every version tells variables a time range"
        assert one["description"]


# -- what is expected of the queries -----------------------------------------------------------------------------------


def _point(ago: float, journey: str, delay: float | None, cancelled: bool = False) -> Point:
    fields: dict[str, Any] = {"identity": f"{journey}{ago}", "journey": journey, "cancelled": cancelled}
    fields |= {} if delay is None else {"delay": delay}
    return Point(NOON.timestamp() - ago, {"direction": "Retour", "mission": "PEPE"}, fields)


def test_expected_weighs_trains_not_records() -> None:
    """A train that is told of ten times counts once, with what was told last."""
    often = [_point(110 - n, "often", 900.0 + n) for n in range(10)]
    seldom = [_point(50, "seldom", 0.0), _point(60, "third", 60.0), _point(40, "third", None, cancelled=True)]
    found = panels.expected([*often, *seldom], Asked(NOON - dt.timedelta(hours=1), NOON))
    key = ("Retour", int(NOON.timestamp()))
    assert found["Delay by direction"] == {key: 1.0}
    assert found["Under 5 minutes by direction"] == {key: pytest.approx(2 / 3)}
    assert found["Delay now"] == pytest.approx((909 + 0) / 2 / 60)
    assert found["Cancelled (1 h)"] == 1


def test_expected_of_nothing_is_nothing() -> None:
    found = panels.expected([], Asked(NOON - dt.timedelta(hours=1), NOON))
    assert {value for value in found.values() if not isinstance(value, dict | list)} == {None, 0}
    assert found["Records in the last 5 minutes"] == 0 and found["Cancelled (1 h)"] is None


def test_the_truth_takes_the_place_of_what_was_stored() -> None:
    stored = [_point(1, "a", 60.0), _point(2, "b", 60.0), _point(3, "c", 60.0)]
    there = panels.as_it_was(stored, {"a1": 120.0, "b2": None})
    assert [one.fields.get("delay") for one in there] == [120.0, None, 60.0]


def test_a_difference_is_found() -> None:
    """Each panel's figure, off by a little, is one."""
    asked = Asked(NOON - dt.timedelta(hours=1), NOON)
    wanted = panels.expected([_point(50, "a", 60.0)], asked)
    line = [{"direction": "Retour", "_time": NOON.isoformat(), "_value": 1.0}]
    rows: dict[str, list[dict[str, Any]]] = {
        title: [] if value in (None, []) else [{"any": value}] for title, value in wanted.items()
    }
    rows |= {"Delay by direction": line, "Under 5 minutes by direction": line}
    assert panels.differences(rows, wanted) == []
    assert len(panels.differences({title: [{"any": -1.0}] for title in wanted if "direction" not in title} | {
        title: [line[0] | {"_value": 1.1}] for title in wanted if "direction" in title
    } | {"Next departures": []}, wanted)) == len(wanted) - 1  # fmt: skip


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
