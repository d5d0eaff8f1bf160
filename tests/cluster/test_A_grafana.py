"""The dashboard: its queries against the real InfluxDB, held against the points; and Grafana, where it is there."""

from __future__ import annotations

import datetime as dt
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest
import requests
import yaml
from influxdb_client import InfluxDBClient
from influxdb_client.client.write_api import SYNCHRONOUS

from berny.controller.artifacts.recipes import load_recipes, not_run
from berny.lab import summary
from berny.model.catalog import load_catalog
from berny.model.manifest import load_pipelines
from berny.pipelines.idfm import harness
from berny.pipelines.idfm.points import MEASUREMENT, point
from berny.runtime.check import read_truth
from dashboards import Asked, Influx, Point, load, queries
from panels import TAGS, as_it_was, crafted, differences, expected
from support import Cluster, console, installable, wait_until

HOURS = 3
LOAD_SECONDS = 30
DASHBOARD = load("idfm")
BUCKET = "idfm_metrics"
SCRATCH = f"dashboard-{time.time():.0f}"


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
def database(cluster: Cluster) -> Iterator[str]:
    """The address of InfluxDB."""
    with reached(cluster, "influxdb") as url:
        yield url


@pytest.fixture(scope="module")
def influx(cluster: Cluster, database: str) -> Influx:
    """InfluxDB with the token that Grafana gets."""
    return Influx(database, cluster.sh("worker_2", "sudo cat /etc/berny/influxdb/read.token").strip(), BUCKET)


@pytest.fixture(scope="module")
def still(cluster: Cluster, influx: Influx) -> Iterator[tuple[Asked, list[Point]]]:
    """Half a minute of load that has come to rest, and all points, with the delays of the ground truth: as of its end."""
    run = f"dashboard-{time.time():.0f}"
    cluster.load(run, 10)
    time.sleep(LOAD_SECONDS)
    stop = dt.datetime.now(dt.UTC)
    cluster.settle(run)
    with cluster.lab.simulators["idfm"].truth.open() as file:
        truth = read_truth(file, harness.expected).expected
    points = influx.points(MEASUREMENT, TAGS)
    assert truth.keys() & {one.fields["identity"] for one in points}
    yield Asked(stop - dt.timedelta(hours=HOURS), stop), as_it_was(points, truth)
    cluster.load("after", 5)


@pytest.fixture
def scratch(cluster: Cluster, database: str) -> Iterator[tuple[Influx, InfluxDBClient]]:
    """An empty bucket of its own, and a client that writes there."""
    secrets = yaml.safe_load((cluster.lab.plan.folder / "secrets.yml").read_text())
    with InfluxDBClient(database, secrets["influxdb_admin_token"], org="berny") as client:
        made = client.buckets_api().create_bucket(bucket_name=SCRATCH)
        try:
            yield Influx(database, secrets["influxdb_admin_token"], SCRATCH), client
        finally:
            client.buckets_api().delete_bucket(made)


def ask(influx: Influx, asked: Asked) -> dict[str, list[dict[str, object]]]:
    """Return what each panel's query returns."""
    texts = queries(DASHBOARD)
    return {title: influx.ask(asked.server(texts[title], influx.bucket)) for title in texts if "$" not in title}


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
    for choice in choices(points, asked):
        wanted = expected(points, choice)
        assert {panel["title"] for panel in DASHBOARD["panels"]} == wanted.keys()
        assert wanted["Next departures"] and wanted["Delay by direction"]
        assert differences(ask(influx, choice), wanted) == [], choice


def test_a_range_without_data_is_no_data(influx: Influx) -> None:
    """No panel makes a number of nothing, but the count of records, which is 0."""
    stop = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    asked = Asked(stop - dt.timedelta(hours=HOURS), stop)
    wanted = expected([], asked)
    assert wanted["Cancelled (1 h)"] is None
    assert differences(ask(influx, asked), wanted) == []


def test_panels_on_a_day_that_is_not_usual(scratch: tuple[Influx, InfluxDBClient]) -> None:
    """A train that is told of much more often than others, a shared slot, trains without a delay: also on their own."""
    influx, client = scratch
    stop = dt.datetime.now(dt.UTC).replace(microsecond=0)
    with client.write_api(write_options=SYNCHRONOUS) as write:
        write.write(SCRATCH, record=[point(one) for one in crafted(stop)])
    points = influx.points(MEASUREMENT, TAGS)
    start = stop - dt.timedelta(hours=HOURS)
    for missions in ((), ("EKLI",), ("PEPE",), ("SUCE",), ("LYRE",), ("SUCE", "LYRE"), ("VERI",), ("none",)):
        asked = Asked(start, stop, (), missions)
        assert differences(ask(influx, asked), expected(points, asked)) == [], missions


def test_variables_offer_what_is_there(influx: Influx, still: tuple[Asked, list[Point]]) -> None:
    asked, points = still
    _, one_direction, _ = choices(points, asked)
    texts = queries(DASHBOARD)
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
    tables = [name for name, one in load_pipelines().items() if one.resources.get("postgresql")]
    wanted = {"influxdb", *(f"postgresql-{name}" for name in tables if name in cluster.lab.plan.pipelines)}
    assert {source["uid"] for source in sources} == wanted
    for source in sources:
        health = session.get(f"{url}/api/datasources/uid/{source['uid']}/health", timeout=30).json()
        assert health["status"] == "OK", health
    shown = session.get(f"{url}/api/dashboards/uid/{DASHBOARD['uid']}", timeout=10).json()
    assert shown["meta"]["provisioned"] and len(shown["dashboard"]["panels"]) == len(DASHBOARD["panels"])
    home = session.get(f"{url}/api/dashboards/home", timeout=10).json()
    assert home == {"redirectUri": f"/d/{DASHBOARD['uid']}"}
    words = cluster.sh("worker_2", "sudo journalctl -u grafana -o cat _SYSTEMD_INVOCATION_ID="
                       "$(systemctl show -p InvocationID --value grafana)")  # fmt: skip
    assert "provisioning files" not in words, words
    span = {"from": str(int(asked.start.timestamp() * 1000)), "to": str(int(asked.stop.timestamp() * 1000))}
    for title, query in queries(DASHBOARD).items():
        target = {"refId": "A", "datasource": {"uid": "influxdb", "type": "influxdb"}, "query": asked.browser(query)}
        body = {"queries": [target | {"maxDataPoints": 1000, "intervalMs": 60000}], **span}
        answer = session.post(f"{url}/api/ds/query", json=body, timeout=60)
        frames = answer.json().get("results", {}).get("A", {}).get("frames", [])
        assert answer.status_code == 200, (title, answer.text)
        assert frames and all(column for frame in frames for column in frame["data"]["values"]), (title, answer.text)
