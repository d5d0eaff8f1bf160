"""A PostgreSQL of the role's own files, started through its start script: for tests on hosts that have Debian's package."""

from __future__ import annotations

import getpass
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from functools import cache
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import ansible.module_utils
import jinja2
import psycopg2

from berny.model.catalog import load_catalog
from berny.runtime.probe import Cluster

CHECKOUT = Path(__file__).resolve().parents[2]
ROLE = CHECKOUT / "roles" / "postgresql"
CATALOG = load_catalog()
BIN = Path(f"/usr/lib/postgresql/{CATALOG.components['postgresql'].version}/bin")
USER: dict[str, Any] = {"user": "nobody", "group": "nogroup", "extra_groups": []} if os.geteuid() == 0 else {}
"""Who it runs as: it refuses to run as root."""


def free_port() -> int:
    """Return a port that nobody listens on."""
    with closing(socket.socket()) as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def render(name: str, **words: Any) -> str:
    """Return the text of a template of the role."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(ROLE / "templates"),
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    environment.filters |= {
        "ipv4": list,
        "asked": lambda pipelines, kind, groups: {name: {"pipeline": name} for name in pipelines},
    }
    return environment.get_template(name).render(words)


@cache
def load(path: str) -> ModuleType:
    """Import a file of the role, with what Ansible would have sent along."""
    folder = str(ROLE / "module_utils")
    if folder not in ansible.module_utils.__path__:
        ansible.module_utils.__path__.append(folder)
    spec = importlib.util.spec_from_file_location(f"tested_{Path(path).stem}", ROLE / path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Server:
    """One in a folder: its files, its process, connections to it."""

    def __init__(self, folder: Path, size: str = "small") -> None:
        self.folder, self.data, self.known = folder, folder / "data" / "15", folder / "conf" / "cluster.id"
        self.port = free_port()
        self.process: subprocess.Popen[str] | None = None
        service = CATALOG.services["postgresql-server"]
        # What the role's variables are on a node of this size.
        self.words: dict[str, Any] = {
            "ansible_managed": "managed", "catalog": CATALOG, "cluster_name": "test", "ansible_user": getpass.getuser(),
            "service_conf": str(folder / "conf"), "node_address": "127.0.0.1", "node_addresses": {"here": "127.0.0.1"},
            "pipelines": [], "groups": {}, "postgresql_max_connections": 40, "postgresql_log_level": "warning",
            "postgresql_readers": [], "postgresql_settings": {}, "_postgresql_programs": str(BIN),
            "_postgresql_data": str(self.data), "_postgresql_known": str(self.known), "_postgresql_socket": str(folder),
            "_postgresql_port": self.port, "_postgresql_memory": getattr(service.memory, size),
            "_postgresql_disk": getattr(service.disk, size) * 1024,
        }  # fmt: skip
        for name in ("conf", "data"):
            (folder / name).mkdir()
            (folder / name).chmod(0o755)
        for path in (folder, folder / "data"):
            if USER:
                shutil.chown(path, USER["user"], USER["group"])
        folder.chmod(0o755)
        self.configure()

    def configure(self, **words: Any) -> None:
        """Write its files."""
        self.words |= words
        for name in ("postgresql.conf", "pg_hba.conf", "pg_ident.conf"):
            (self.folder / "conf" / name).write_text(render(f"{name}.j2", **self.words))
        # The tests are its administrator, whoever runs them.
        with (self.folder / "conf" / "pg_ident.conf").open("a") as file:
            file.write(f"berny {getpass.getuser()} postgres\n")
        (self.folder / "start").write_text(render("start.sh.j2", **self.words))

    def run(self) -> subprocess.Popen[str]:
        """Start it as its unit does."""
        command = ["sh", str(self.folder / "start"), str(self.data), str(self.known), str(BIN / "postgres")]
        command += ["-D", str(self.data), "-c", f"config_file={self.folder}/conf/postgresql.conf"]
        return subprocess.Popen(
            command,
            cwd="/",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            **USER,
        )

    def start(self) -> None:
        """Start it, and wait until it responds."""
        self.process = self.run()
        deadline = time.monotonic() + 60
        while True:
            try:
                self.ask("SELECT 1")
                return
            except psycopg2.OperationalError as error:
                assert self.process.poll() is None, self.process.communicate()[0]
                assert time.monotonic() < deadline, error
                time.sleep(0.1)

    def stop(self, how: signal.Signals = signal.SIGINT) -> str:
        """End it, by default as its unit does; return what it said."""
        assert self.process
        if how == signal.SIGKILL:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, how)
        else:
            self.process.send_signal(how)
        said = self.process.communicate(timeout=60)[0]
        self.process = None
        return str(said)

    def ask(self, query: str, *values: Any, base: str = "postgres", user: str = "postgres") -> list[tuple[Any, ...]]:
        """Return the rows of a query over the socket."""
        return self.connected(query, values, host=str(self.folder), dbname=base, user=user)

    def log_in(self, role: str, word: str, base: str, query: str = "SELECT 1", *values: Any) -> list[tuple[Any, ...]]:
        """Return the rows of a query over the network, by password."""
        return self.connected(query, values, host="127.0.0.1", dbname=base, user=role, password=word)

    def connected(self, query: str, values: tuple[Any, ...] = (), **where: Any) -> list[tuple[Any, ...]]:
        """Return the rows of a query, none of what has no rows."""
        with closing(psycopg2.connect(port=self.port, connect_timeout=5, **where)) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(query, values or None)
                return list(cursor.fetchall()) if cursor.description else []

    def setup(self, check: bool = False, **words: Any) -> dict[str, Any]:
        """Do what the role's module does; return its result."""
        given = {"port": self.port, "socket": str(self.folder), "known_file": str(self.known), **words}
        found: dict[str, Any] = load("library/postgresql_setup.py").converge(
            SimpleNamespace(params=given, check_mode=check)
        )
        return found

    def withdraw(self, database: str, check: bool = False) -> list[str]:
        """Do what the role's module does; return what it has removed."""
        given = {"port": self.port, "socket": str(self.folder), "database": database}
        found: list[str] = load("library/postgresql_withdraw.py").withdraw(given, check)
        return found

    def cluster(self) -> Cluster:
        """Return the cluster as probes see it from its node."""
        service = {"component": "postgresql", "version": "15", "nodes": ["here"]}
        services = {
            "postgresql-server": {**service, "ports": {"sql": self.port}},
            "postgresql-exporter": {**service, "ports": {"http": 1}},
        }
        return Cluster({"nodes": {"here": {"machine": "127.0.0.1"}}, "services": services, "pipelines": {}}, "here")


@contextmanager
def served(server: Server) -> Iterator[Server]:
    """Start a server, and end it."""
    try:
        server.start()
        yield server
    finally:
        if server.process:
            server.stop(signal.SIGKILL)
