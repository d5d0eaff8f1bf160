"""The support bundle of a real cluster: everything is in it but secrets, and a node that is away fails nothing."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
import yaml

from berny.model.topology import CHECKOUT
from support import Cluster, console, environment

UNIT = "/etc/systemd/system/berny-planted.service"
# What no file of secrets knows, but is told to be one by its name.
UNKNOWN = "planted-pass-4711"
PRIVATE = "planted/private+value=0815"


def bundle(cluster: Cluster, folder: Path, *options: str) -> tuple[str, dict[str, str]]:
    """Run ``berny bundle-logs`` and return what it prints, and the texts of the archive."""
    command = [sys.executable, "-m", "berny.cli", "bundle-logs", "--to", str(folder), *options]
    done = subprocess.run(command, cwd=CHECKOUT, env=environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    (archive,) = folder.iterdir()
    assert archive.name.startswith(f"berny-{cluster.lab.plan.name}-") and archive.stat().st_mode & 0o777 == 0o600
    console.print(f"{archive.name}: {archive.stat().st_size >> 10} KiB", highlight=False)
    with tarfile.open(archive) as tar:
        texts = {m.name.split("/", 1)[1]: tar.extractfile(m).read().decode() for m in tar}  # type: ignore[union-attr]
    return done.stdout, texts


def secrets(cluster: Cluster) -> dict[str, str]:
    """Return the secrets of the cluster: those of the file, and the tokens that InfluxDB made."""
    found = dict(yaml.safe_load((cluster.lab.plan.folder / "secrets.yml").read_text()))
    found["read"] = cluster.sh("worker_2", "sudo cat /etc/berny/influxdb/read.token").strip()
    found["write"] = cluster.sh(
        "worker_2", "sudo sed -n s/^INFLUX_TOKEN=//p /etc/berny/berny-idfm-influx-consumer/stage.env"
    ).strip()
    return {name: value for name, value in found.items() if value}


@pytest.fixture
def planted(cluster: Cluster) -> Iterator[dict[str, str]]:
    """Secrets where none should be: in journals, a configuration, an environment and a private file of another node."""
    known = secrets(cluster)
    said = [
        f"admin {known['influxdb_admin_token']} in words",
        f"url http://x/?t={quote(PRIVATE, safe='')}",
        f"basic {base64.b64encode(('admin:' + known['influxdb_admin_password']).encode()).decode()}",
        f"read {known['read']} write {known['write']} private {PRIVATE}",
    ]
    unit = "\n".join(
        [
            "[Service]",
            "Type=oneshot",
            f'Environment="PLANTED_PASSWORD={UNKNOWN}"',
            f'Environment="PLANTED_OTHER={known["write"]}"',
            *(f"ExecStart=/bin/echo '{line.replace('%', '%%')}'" for line in said),
        ]
    )
    config = f"harmless = planted-harmless\nendpoint = http://u:{UNKNOWN}@h/\nplain = {known['read']}\n"
    for node in ("master", "worker_0"):
        cluster.sh(node, "sudo mkdir -p /etc/berny/planted")
        for path, text in ((UNIT, unit), ("/etc/berny/planted/planted.conf", config)):
            encoded = base64.b64encode(f"{text}\n".encode()).decode()
            cluster.sh(node, f"echo {encoded} | base64 -d | sudo tee {path} > /dev/null")
        cluster.sh(node, "sudo systemctl daemon-reload; sudo systemctl start berny-planted")
    cluster.sh(
        "worker_1",
        f"sudo mkdir -p /etc/berny/planted; echo '{PRIVATE}' | sudo install -m 600 /dev/stdin /etc/berny/planted/private",
    )
    yield {**known, "private": PRIVATE, "unknown": UNKNOWN}
    for node in ("master", "worker_0", "worker_1"):
        cluster.sh(node, f"sudo rm -rf /etc/berny/planted {UNIT}; sudo systemctl daemon-reload")


def test_everything_is_in_it_but_secrets(cluster: Cluster, planted: dict[str, str], tmp_path: Path) -> None:
    said, texts = bundle(cluster, tmp_path)
    everything = "\n".join(texts.values())
    for name, value in planted.items():
        shapes = [
            value,
            quote(value, safe=""),
            base64.b64encode(value.encode()).decode().rstrip("="),
            value.encode().hex(),
        ]
        shapes.append(base64.b64encode(f"admin:{value}".encode()).decode()[8:-4])
        for shape in shapes:
            assert shape not in everything, f"{name} is in {[file for file, text in texts.items() if shape in text]}"
    # Masked where it stood, with what is no secret around it.
    assert "admin [masked] in words" in texts["worker_0/journal/berny-planted.log"]
    assert "planted-harmless" in texts["worker_0/config/etc/berny/planted/planted.conf"]
    assert "PLANTED_PASSWORD=[masked]" in texts[f"master/config{UNIT}"]
    assert texts["worker_1/config/etc/berny/planted/private"] == "[masked]\n"
    assert "INFLUX_TOKEN=[masked]" in texts["worker_2/config/etc/berny/berny-idfm-influx-consumer/stage.env"]
    for node in cluster.groups["all"]:
        assert f"  {node}: " in said and f"{node}/MISSING.txt" not in texts
        assert {health["service"] for health in json.loads(texts[f"{node}/probes.json"])} >= {
            unit for unit, nodes in cluster.units().items() if node in nodes
        }
        assert "openjdk" in texts[f"{node}/versions/java.txt"] and "zstd 1." in texts[f"{node}/versions/packages.txt"]
        assert "hadoop-" in texts[f"{node}/versions/archives.txt"] and "Linux" in texts[f"{node}/versions/kernel.txt"]
    for unit, nodes in cluster.units().items():
        for node in nodes:
            journal = texts[f"{node}/journal/{unit}.log"]
            assert journal and "No entries" not in journal, (node, unit)
            assert "[Service]" in texts[f"{node}/config/etc/systemd/system/{unit}.service"]
    assert "berny_ready" in texts["worker_2/metrics/berny-idfm-influx-consumer.txt"]


def test_a_node_that_is_away_is_named(cluster: Cluster, tmp_path: Path) -> None:
    """In the archive and on the terminal; the others are in it. Journals are bounded."""
    inventory = tmp_path / "inventory"
    shutil.copytree(CHECKOUT / "inventory" / "lab", inventory)
    hosts = inventory / "hosts.yml"
    nobody = str(cluster.lab.plan.network[250])
    hosts.write_text(hosts.read_text().replace("    worker_0: null\n", f"    worker_0: {{ansible_host: {nobody}}}\n"))
    (tmp_path / "out").mkdir()
    since = ("--since", "1 minute ago", "--journal-mib", "1")
    said, texts = bundle(cluster, tmp_path / "out", "-i", str(inventory), *since)
    assert "worker_0: not reached" in said, said
    assert "not reached" in texts["worker_0/MISSING.txt"] and "not reached" in texts["bundle.json"]
    for node in ("master", "worker_1", "worker_2"):
        assert f"{node}/probes.json" in texts
    assert max(len(text) for name, text in texts.items() if "/journal/" in name) < 1.1 * 2**20
