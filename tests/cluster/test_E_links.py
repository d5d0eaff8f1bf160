"""Every link of every page, followed from where an operator's browser is: the lab's host, by the names that it resolves."""

from __future__ import annotations

import html
import json
import re
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from urllib.parse import urldefrag, urljoin, urlsplit

import pytest
import requests

from berny.model.catalog import load_catalog
from support import Cluster, installable, wait_until

SECONDS = 20
"""What one page may take."""
APPLICATION = """
import time
from pyspark.sql import SparkSession
spark = SparkSession.builder.appName("links").config("spark.cores.max", "1").getOrCreate()
spark.range(10).count()
time.sleep(600)
"""


class Links(HTMLParser):
    """What a page refers to; tables that scripts fill have their links in quotes, so attributes alone are not enough."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: set[str] = set()
        self.feed(text)
        self.found |= {html.unescape(link) for link in re.findall(r"""<a href=\\?['"]([^'"\\<>{}]+)""", text)}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take ``href`` and ``src``."""
        self.found |= {value for name, value in attrs if name in ("href", "src") and value}


def pages(cluster: Cluster) -> dict[str, str]:
    """Return the pages of the catalog by address, with the service of each."""
    return {
        f"http://{cluster.lab.plan.nodes[node].machine}:{service.ports[page]}/": service.name
        for service in load_catalog().services.values()
        if installable(load_catalog().components[service.component])
        for page in service.pages
        for node in cluster.groups[service.group]
    }


def told_by_the_namenode(cluster: Cluster) -> Iterator[str]:
    """Yield what the NameNode's page makes links of in the browser: DataNodes, and a file's content."""
    master = "http://master:9870"
    beans = requests.get(f"{master}/jmx?qry=Hadoop:service=NameNode,name=NameNodeInfo", timeout=SECONDS).json()["beans"]
    nodes = json.loads(beans[0]["LiveNodes"])
    assert len(nodes) == len(cluster.groups["datanode"])
    for name, node in nodes.items():
        # As dfshealth.js does it.
        yield f"http://{name.split(':')[0]}:{node['infoAddr'].split(':')[1]}/"
    cluster.sh("master", "echo content | hdfs dfs -put -f - /tmp/links.txt")
    yield f"{master}/webhdfs/v1/tmp/links.txt?op=OPEN"


@pytest.fixture
def application(cluster: Cluster) -> Iterator[None]:
    """One more application of Spark, on a node that is not the master's."""
    cluster.sh("worker_1", f"cat > /tmp/links.py <<'END'{APPLICATION}END")
    cluster.sh("worker_1", "sudo systemd-run -q --collect --unit=links --uid=berny -p WorkingDirectory=/tmp"
               " /usr/local/bin/spark-submit /tmp/links.py")  # fmt: skip
    state = "http://master:8080/json/"
    wait_until(
        lambda: any(app["name"] == "links" for app in requests.get(state, timeout=SECONDS).json()["activeapps"]),
        90,
        lambda: cluster.sh("worker_1", "sudo journalctl -u links -n 20 --no-pager"),
    )
    yield
    cluster.sh("worker_1", "sudo systemctl stop links")


def test_every_link_of_every_page_opens(cluster: Cluster, application: None) -> None:
    begin = pages(cluster)
    workers = requests.get("http://master:8080/json/", timeout=SECONDS).json()["workers"]
    alive = {worker["id"] for worker in workers if worker["state"] == "ALIVE"}
    hosts = {node.machine for node in cluster.lab.plan.nodes.values()}
    waiting = [(address, "the catalog", 0) for address in begin] + [
        (a, "the NameNode", 1) for a in told_by_the_namenode(cluster)
    ]
    seen: set[str] = set()
    kinds: dict[str, int] = {}
    wrong: list[str] = []
    took: list[tuple[float, str]] = []
    deadline = time.monotonic() + 600
    while waiting:
        assert time.monotonic() < deadline, (
            f"{len(seen)} pages were read, {len(waiting)} wait; the slowest: {sorted(took)[-9:]}; wrong: {wrong}"
        )
        address, whence, depth = waiting.pop(0)
        address = urldefrag(address).url
        parts = urlsplit(address)
        # Ended executors keep the link to their worker, whatever has become of that.
        behind = re.match(r"/proxy/(worker-[^/]+)/", parts.path)
        if behind and behind[1] not in alive:
            continue
        # Pages of a service that differ in numbers, or in what a query asks for (a container's, a stage's, a sort order), are
        # one kind.
        rest = re.sub(r"\d+", "0", re.sub(r"=[^&]*", "", f"{parts.path}?{parts.query}"))
        kind = f"{re.sub(r'[0-9]+', '0', parts.hostname or '')}:{parts.port}{rest}"
        if address in seen or (depth and kinds.get(kind, 0) >= 2):
            continue
        seen.add(address)
        kinds[kind] = kinds.get(kind, 0) + 1
        if parts.hostname not in hosts:
            # A vendor's own page, or an address that no name was given for: the first are named, the others are wrong.
            if not re.search(r"\.(org|com|io)$", parts.hostname or ""):
                wrong.append(f"{address} (on {whence}): not a name of this cluster")
            continue
        begun = time.monotonic()
        try:
            said = requests.get(address, timeout=SECONDS, stream=True)
            body = next(said.iter_content(2 << 20), b"")
        except requests.RequestException as error:
            wrong.append(f"{address} (on {whence}): {type(error).__name__}: {str(error)[:200]}")
            continue
        finally:
            took.append((round(time.monotonic() - begun, 1), address))
        if not said.ok:
            wrong.append(f"{address} (on {whence}): {said.status_code} {body[:200]!r}")
            continue
        if "html" in said.headers.get("Content-Type", "") and depth < 4:
            found = Links(body.decode(errors="replace")).found
            links = {urljoin(said.url, link.strip()) for link in found}
            wrong += [f"{link} (on {address}) ends something" for link in links if re.search(r"/kill\b", link)]
            waiting += [(link, address, depth + 1) for link in sorted(links) if link.startswith("http")]
    assert not wrong, "\n".join(wrong)
    assert set(begin) <= seen
    assert any("/proxy/app-" in address for address in seen), "no page of a Spark application was found"
    assert len(seen) > 60, sorted(seen)
