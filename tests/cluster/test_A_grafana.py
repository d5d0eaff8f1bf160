"""The dashboard: its queries against the real InfluxDB, held against the points; and Grafana, where it is there."""

from __future__ import annotations

import datetime as dt
import socket
import statistics
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest
import requests
import yaml

from berny.artifacts.recipes import load_recipes, not_run
from berny.catalog import load_catalog
from berny.lab import summary
from panels import Asked, Influx, Point, dashboard, expected, moment, queries
from support import Cluster, console, installable, wait_until

HOURS = 3
LOAD_SECONDS = 30


@contextmanager
def reached(cluster: Cluster, service: str) -> Iterator[str]:
    """Yield the address of a service behind the firewall, through SSH."""
    node = cluster.groups[load_catalog().services[service].group][0]
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    way = f"127.0.0.1:{port}:{cluster.lab.plan.nodes[node].machine}:{load_catalog().services[service].ports['http']}"
    tunnel = subprocess.Popen([*cluster.lab.ssh(node)[:-1], "-N", "-L", way, cluster.lab.ssh(node)[-1]])

    def open_() -> bool:
        with closing(socket.socket()) as knocking:
            return knocking.connect_ex(("127.0.0.1", port)) == 0

    try:
        wait_until(open_, 30, f"no way to {service}")
        yield f"http://127.0.0.1:{port}"
    finally:
        tunnel.terminate()
        tunnel.wait()


@pytest.fixture(scope="module")
def influx(cluster: Cluster) -> Iterator[Influx]:
    """InfluxDB with the token that Grafana gets."""
    token = cluster.sh("worker_2", "sudo cat /etc/berny/influxdb/read.token").strip()
    with reached(cluster, "influxdb") as url:
        yield Influx(url, token)


@pytest.fixture(scope="module")
def still(cluster: Cluster, influx: Influx) -> Iterator[tuple[Asked, list[Point]]]:
    """Half a minute of load that has come to rest, and all points: what both sides are asked about, as of its end."""
    run = f"dashboard-{time.time():.0f}"
    cluster.load(run, 10)
    time.sleep(LOAD_SECONDS)
    stop = dt.datetime.now(dt.UTC)
    cluster.settle(run)
    yield Asked(stop - dt.timedelta(hours=HOURS), stop), influx.points()
    cluster.load("after", 5)


def choices(points: list[Point], asked: Asked) -> list[Asked]:
    """Return everything, one direction, and two missions of one direction."""
    directions = sorted({one.tags["direction"] for one in points})
    assert len(directions) == 2, directions
    first = directions[:1]
    missions = sorted({one.tags["mission"] for one in points if one.tags["direction"] in first})
    return [
        asked,
        Asked(asked.start, asked.stop, tuple(first)),
        Asked(asked.start, asked.stop, tuple(first), tuple(missions[:2])),
    ]


def test_every_panel_shows_what_the_points_say(influx: Influx, still: tuple[Asked, list[Point]]) -> None:
    asked, points = still
    texts = queries()
    for choice in choices(points, asked):
        wanted = expected(points, choice)
        assert {panel["title"] for panel in dashboard()["panels"]} == wanted.keys()
        found = {title: influx.ask(choice.server(texts[title], influx.bucket)) for title in wanted}
        for title in ("Delay now", "Worst delay", "Under 5 minutes", "Age of the last measure"):
            assert len(found[title]) == 1 and len(found[title][0]) == 1, (title, found[title])
            assert next(iter(found[title][0].values())) == pytest.approx(wanted[title], abs=0.01), (title, choice)
        for title in ("Cancelled in the last hour", "Records in the last minute"):
            assert [list(row.values()) for row in found[title]] == [[wanted[title]]], (title, choice)
        rows = [(row["departure"], row.get("delay"), row["status"], row["mission"]) for row in found["Next departures"]]
        due = [(round(moment(when) * 1000), *others) for when, *others in rows]
        assert sorted(due, key=str) == sorted(wanted["Next departures"], key=str)
        assert due and [when for when, *_ in due] == sorted(when for when, *_ in due)
        by_direction(found["Delay by direction"], wanted["Delay by direction"])


def by_direction(rows: list[dict[str, Any]], delays: dict[str, list[float]]) -> None:
    """Hold the lines against the delays: a line for each direction, within what was told, near its median."""
    assert {row["direction"] for row in rows} == {direction for direction, told in delays.items() if told}
    for direction, told in delays.items():
        line = [row["_value"] for row in rows if row["direction"] == direction]
        assert all(min(told) <= one <= max(told) for one in line), direction
        assert abs(statistics.median(line) - statistics.median(told)) < statistics.pstdev(told) + 60, direction


def test_variables_offer_what_is_there(influx: Influx, still: tuple[Asked, list[Point]]) -> None:
    asked, points = still
    _, one_direction, _ = choices(points, asked)
    texts = queries()
    for choice in (asked, one_direction):
        for name in ("direction", "mission"):
            offered = {row["_value"] for row in influx.ask(choice.server(texts[f"${name}"], influx.bucket))}
            there = {
                one.tags[name]
                for one in points
                if name == "direction" or not choice.direction or one.tags["direction"] in choice.direction
            }
            assert there <= offered, (name, choice)


def test_the_token_only_reads(influx: Influx) -> None:
    words = {"Authorization": f"Token {influx.token}"}
    address = f"{influx.url}/api/v2/write?org=berny&bucket={influx.bucket}"
    answer = requests.post(address, data="health,line=x delay=1", headers=words, timeout=10)
    assert answer.status_code in (401, 403, 404), answer.text


def test_grafana_shows_every_panel(cluster: Cluster, still: tuple[Asked, list[Point]]) -> None:
    """By its own API, with what the browser would send; nobody else gets in."""
    component = load_catalog().components["grafana"]
    if not installable(component):
        words = not_run(load_recipes()[component.archive])
        console.print(words, highlight=False, soft_wrap=True)
        assert summary.absent("grafana", component.archive) == words
        assert "grafana" not in cluster.sh("worker_2", "sudo berny-probe --all")
        return
    with reached(cluster, "grafana") as url:
        ask_grafana(cluster, url, still[0])


def ask_grafana(cluster: Cluster, url: str, asked: Asked) -> None:
    """Log in, ask the datasource's health, and run every panel and variable."""
    password = yaml.safe_load((cluster.lab.plan.folder / "secrets.yml").read_text())["grafana_admin_password"]
    for wrong in (None, ("admin", "admin")):
        assert requests.get(f"{url}/api/search", auth=wrong, timeout=10).status_code == 401
    session = requests.Session()
    said = session.post(f"{url}/login", json={"user": "admin", "password": password}, timeout=10)
    assert said.status_code == 200, said.text
    sources = session.get(f"{url}/api/datasources", timeout=10).json()
    assert [source["uid"] for source in sources] == ["influxdb"]
    for source in sources:
        health = session.get(f"{url}/api/datasources/uid/{source['uid']}/health", timeout=30).json()
        assert health["status"] == "OK", health
    shown = session.get(f"{url}/api/dashboards/uid/{dashboard()['uid']}", timeout=10).json()
    assert shown["meta"]["provisioned"] and len(shown["dashboard"]["panels"]) == len(dashboard()["panels"])
    span = {"from": str(int(asked.start.timestamp() * 1000)), "to": str(int(asked.stop.timestamp() * 1000))}
    for title, query in queries().items():
        target = {"refId": "A", "datasource": {"uid": "influxdb", "type": "influxdb"}, "query": asked.browser(query)}
        body = {"queries": [target | {"maxDataPoints": 1000, "intervalMs": 60000}], **span}
        answer = session.post(f"{url}/api/ds/query", json=body, timeout=60)
        frames = answer.json().get("results", {}).get("A", {}).get("frames", [])
        assert answer.status_code == 200, (title, answer.text)
        assert frames and all(column for frame in frames for column in frame["data"]["values"]), (title, answer.text)
