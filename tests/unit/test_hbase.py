"""HBase's tables as manifests declare them, which of its regions no server has, and what a region server hands over."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import ModuleType
from typing import Any

import jinja2
import pytest

from berny.model.catalog import load_catalog

Plugin = Callable[[str], ModuleType]
FOREVER = 2**31 - 1
MINE, OTHER = "worker-0,16020,1700000000001", "worker-1,16020,1700000000002"


@pytest.fixture(scope="module")
def module(plugin: Plugin) -> ModuleType:
    """The module that provides tables."""
    return plugin("roles/hbase/library/hbase_tables.py")


@pytest.fixture(scope="module")
def probe(checkout: Path) -> ModuleType:
    """How HBase is asked."""
    spec = importlib.util.spec_from_file_location("berny_probe_hbase", checkout / "roles" / "hbase" / "probe.py")
    assert spec and spec.loader
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


# -- tables ------------------------------------------------------------------------------------------------------------


def table(*families: str, versions: int = 1, ttl: int = FOREVER) -> dict[str, Any]:
    """Return a table as it is wanted."""
    return {"families": list(families), "versions": versions, "ttl": ttl}


def test_a_table_is_what_its_manifest_says(module: ModuleType) -> None:
    """Without ``keep`` cells stay; a longer one than HBase's 32 bits hold is for ever as well."""
    kind = load_catalog().kinds["hbase"]
    given = {"families": ["a", "b"], "keep": "730d"}
    assert kind.problems("weather:aggregates", given) == []
    assert module.wanted_table("w:t", kind.complete(given)) == table("a", "b", ttl=730 * 86400)
    assert module.wanted_table("w:t", kind.complete({"families": ["a"], "versions": 3})) == table("a", versions=3)
    assert module.wanted_table("w:t", {"families": ["a"], "versions": 1, "keep": "99999d"}) == table("a")


@pytest.mark.parametrize(
    "name", ["aggregates", "Weather:a", "weather:", "weather:a b", "weather:a'", ":a", "weather:-a"]
)
def test_what_can_be_no_table_is_refused(name: str) -> None:
    """What a manifest names reaches a shell of HBase."""
    assert load_catalog().kinds["hbase"].problems(name, {"families": ["a"]})


@pytest.mark.parametrize("families", [[], ["a:"], ["a b"], ["é"], [""], ["a", "b'"]])
def test_what_can_be_no_family_is_refused(module: ModuleType, families: list[str]) -> None:
    with pytest.raises(ValueError, match="w:t: families"):
        module.wanted_table("w:t", {"families": families, "versions": 1})


def test_only_what_differs_is_done(module: ModuleType) -> None:
    """Java is not started where nothing does; families that there are besides are left alone."""
    wanted = {"w:new": table("a"), "w:same": table("a", versions=2, ttl=60), "w:other": table("a", "b", ttl=60)}
    found = {
        "w:same": {"a": {"versions": 2, "ttl": 60}, "z": {"versions": 9, "ttl": 9}},
        "w:other": {"a": {"versions": 1, "ttl": FOREVER}},
    }
    work, changes = module.plan(wanted, found)
    assert work == {"create": {"w:new": table("a")}, "alter": {"w:other": wanted["w:other"]}, "drop": []}
    assert changes == ["w:new: created", f"w:other: ttl of a {FOREVER} -> 60, family b"]
    found["w:new"] = {"a": {"versions": 1, "ttl": FOREVER}}
    found["w:other"] = {family: {"versions": 1, "ttl": 60} for family in "ab"}
    assert module.plan(wanted, found) == ({"create": {}, "alter": {}, "drop": []}, [])


# -- regions -----------------------------------------------------------------------------------------------------------


def region(state: bytes, server: str) -> dict[bytes, bytes]:
    """Return a region's cells of hbase:meta."""
    host, port, started = server.split(",")
    return {
        b"info:state": state, b"info:server": f"{host}:{port}".encode(),
        b"info:serverstartcode": int(started).to_bytes(8, "big"),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("state", "server", "table_state", "settled"),
    [
        (b"OPEN", MINE, b"\x08\x00", True),
        (b"OPENING", MINE, b"\x08\x00", False),
        (b"OPEN", "worker-0,16020,1600000000000", b"\x08\x00", False),
        (b"OPEN", "worker-2,16020,1700000000001", b"\x08\x00", False),
        (b"CLOSED", MINE, b"\x08\x00", False),
        (b"CLOSED", MINE, b"\x08\x01", True),
        (b"OPEN", MINE, b"\x08\x01", False),
        (b"FAILED_OPEN", MINE, b"\x08\x00", False),
    ],
)
def test_a_region_is_open_on_a_live_server(
    probe: ModuleType, state: bytes, server: str, table_state: bytes, settled: bool
) -> None:
    """By the process that runs, not by one before it on the same port; of a disabled table it is closed."""
    meta = {b"w:t": {b"table:state": table_state}, b"w:t,,1.abc.": region(state, server)}
    assert (probe.unsettled(meta, {MINE, OTHER}) == []) == settled


def test_a_region_that_was_split_is_not_missed(probe: ModuleType) -> None:
    """Its daughters are open; it is closed, of a table that is enabled, until they no longer refer to it."""
    parent = region(b"CLOSED", MINE) | {b"info:splitA": b"PBUF"}
    meta = {b"w:t": {b"table:state": b"\x08\x00"}, b"w:t,,1.abc.": parent, b"w:t,,2.def.": region(b"OPEN", MINE)}
    assert probe.unsettled(meta, {MINE}) == []


def test_a_region_of_a_table_without_a_state_is_told(probe: ModuleType) -> None:
    """hbase:meta itself has none; a region without a server is none of anybody's."""
    assert probe.unsettled({b"hbase:acl,,1.abc.": region(b"OPEN", MINE)}, {MINE}) == []
    assert probe.unsettled({b"w:t,,1.abc.": {}}, {MINE}) == ["w:t unknown"]


# -- handing regions over ----------------------------------------------------------------------------------------------


class Master(BaseHTTPRequestHandler):
    """The part of the master's interface that lists live region servers."""

    live: tuple[str, ...] = ()

    def do_GET(self) -> None:
        assert self.path == "/api/v1/admin/cluster_metrics/live_servers"
        body = json.dumps({"data": [{"server_name": {"server_name": name}} for name in self.live]}).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words: Any) -> None:
        """Say nothing."""


@pytest.fixture
def master() -> Iterator[int]:
    """A master's web port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Master)
    Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()


def hand_over(checkout: Path, folder: Path, port: int, verb: str, main_pid: str = "7") -> list[str]:
    """Run ``hbase-regions`` and return what the command ``hbase`` was given."""
    log, command = folder / "log", folder / "hbase"
    command.write_text(f'#!/bin/sh\necho "$@" >> {log}\n')
    command.chmod(0o755)
    log.unlink(missing_ok=True)
    services = {name: service.model_dump() for name, service in load_catalog().services.items()}
    services["hbase-master"]["ports"]["web"] = port
    text = jinja2.Template((checkout / "roles/hbase/templates/regions.py.j2").read_text()).render(
        ansible_managed="-", machine_name="worker-0", machine_names={"master": "127.0.0.1"},
        groups={"hbase_master": ["master"]}, catalog={"services": services}, _hbase_regions=folder / "regions",
    )  # fmt: skip
    script = folder / "hbase-regions"
    script.write_text(text.replace("/usr/local/bin/hbase", str(command)))
    environment = {"PATH": os.environ["PATH"], **({"MAINPID": main_pid} if main_pid else {})}
    done = subprocess.run([sys.executable, script, verb], env=environment, timeout=60, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return log.read_text().splitlines() if log.exists() else []


def test_regions_are_moved_where_another_server_can_take_them(
    checkout: Path, tmp_path: Path, master: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not of a process that has ended by itself, nor without a master or another region server."""
    monkeypatch.setattr(Master, "live", (MINE, OTHER))
    [moved] = hand_over(checkout, tmp_path, master, "unload")
    assert moved == f"regionmover -m 4 -t 45 -r worker-0:16020 -o unload -f {tmp_path}/regions"
    assert hand_over(checkout, tmp_path, master, "unload", main_pid="") == []
    assert hand_over(checkout, tmp_path, 1, "unload") == []
    monkeypatch.setattr(Master, "live", (MINE,))
    assert hand_over(checkout, tmp_path, master, "unload") == []


def test_regions_are_taken_back_once(
    checkout: Path, tmp_path: Path, master: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the process that has begun since; a first start and one after a crash have nothing to take back."""
    monkeypatch.setattr(Master, "live", (MINE, OTHER))
    assert hand_over(checkout, tmp_path, master, "load") == []
    (tmp_path / "regions").write_bytes(b"1")
    os.utime(tmp_path / "regions", (1700000000, 1700000000))
    [moved] = hand_over(checkout, tmp_path, master, "load")
    assert " -o load " in moved and not (tmp_path / "regions").exists()
    assert hand_over(checkout, tmp_path, master, "load") == []
