"""A PostgreSQL of its own for tests of what is written to it: a real server, in a folder, on a free port of 127.0.0.1."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg2
import pytest

PASSWORD = "of the superuser"


class Postgres:
    """A server; ``start`` and ``end`` may be called as often as a test needs."""

    def __init__(self, folder: Path, programs: Path) -> None:
        self._folder, self._programs = folder, programs
        # It does not run as root.
        self._as = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        with closing(socket.create_server(("127.0.0.1", 0))) as taken:
            self.port: int = taken.getsockname()[1]
        self.host = f"host=127.0.0.1 port={self.port}"

    def _run(self, program: str, *words: str) -> None:
        command = [*self._as, str(self._programs / program), "-D", str(self._folder / "data"), *words]
        done = subprocess.run(command, cwd="/", stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr

    def make(self) -> None:
        """Make the files of the cluster."""
        secret = self._folder / "password"
        secret.write_text(PASSWORD)
        if self._as:
            for path in (self._folder, secret):
                shutil.chown(path, "postgres")
        self._run(
            "initdb", "-U", "postgres", "-A", "scram-sha-256", f"--pwfile={secret}", "-E", "UTF8", "--locale=C.UTF-8"
        )

    def start(self) -> None:
        """Start it, and wait until it responds."""
        options = f"-p {self.port} -k '' -c listen_addresses=127.0.0.1 -c shared_buffers=32MB -c lc_messages=C"
        # Its output must not keep whoever waits for the end of this command.
        self._run("pg_ctl", "-w", "-t", "50", "-o", options, "-l", str(self._folder / "log"), "start")

    def end(self, mode: str = "immediate") -> None:
        """End it; ``immediate`` is as if it were killed."""
        self._run("pg_ctl", "-w", "-m", mode, "stop")

    def database(self, name: str) -> str:
        """Create a database, and return the superuser's DSN of it."""
        self.execute(f"{self.host} dbname=postgres", f"CREATE DATABASE {name}")
        return f"{self.host} dbname={name}"

    def execute(self, dsn: str, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Run a statement as the superuser; return its rows."""
        with closing(psycopg2.connect(dsn, user="postgres", password=PASSWORD)) as one:
            one.autocommit = True
            with one.cursor() as found:
                found.execute(statement, values)
                return list(found.fetchall()) if found.description else []


@contextmanager
def postgres() -> Iterator[Postgres]:
    """Run a server, of the newest version that this host has."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if not found:
        pytest.skip("this host has no PostgreSQL: `apt-get install postgresql`, as tests/run does")
    folder = Path(tempfile.mkdtemp(prefix="berny-postgresql-"))
    server = Postgres(folder, found[-1].parent)
    try:
        server.make()
        server.start()
        try:
            yield server
        finally:
            server.end()
    finally:
        shutil.rmtree(folder)
