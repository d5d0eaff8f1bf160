"""An HDFS of its own for tests of what is written to it: the NameNode and a DataNode that nodes run, on free ports."""

from __future__ import annotations

import socket
import subprocess
import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from hdfs import InsecureClient
from hdfs.util import HdfsError
from requests import RequestException

JAVA = ["java", "-Xmx192m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Djava.net.preferIPv4Stack=true"]
NAMENODE = "org.apache.hadoop.hdfs.server.namenode.NameNode"
DATANODE = "org.apache.hadoop.hdfs.server.datanode.DataNode"

LOG4J = """
log4j.rootLogger=WARN, stderr
log4j.appender.stderr=org.apache.log4j.ConsoleAppender
log4j.appender.stderr.target=System.err
log4j.appender.stderr.layout=org.apache.log4j.PatternLayout
log4j.appender.stderr.layout.ConversionPattern=%p %c{1}: %m%n
log4j.logger.org.apache.hadoop.mapreduce.Job=INFO
"""
"""What commands on nodes print."""


def _free_ports(count: int) -> list[int]:
    with ExitStack() as taken:
        found = [taken.enter_context(closing(socket.create_server(("127.0.0.1", 0)))) for _ in range(count)]
        return [one.getsockname()[1] for one in found]


class Hdfs:
    """A file system; each process can be ended and started."""

    def __init__(self, folder: Path, home: Path) -> None:
        self.folder, self.home = folder, home
        rpc, web, data, ipc, http = _free_ports(5)
        self.uri, self.url = f"hdfs://127.0.0.1:{rpc}", f"http://127.0.0.1:{web}"
        here = "127.0.0.1:"
        self._write("core-site.xml", {"fs.defaultFS": self.uri, "hadoop.tmp.dir": folder / "tmp"})
        hdfs = {
            "dfs.replication": 1,
            "dfs.namenode.name.dir": f"file://{folder}/name",
            "dfs.datanode.data.dir": f"file://{folder}/data",
            "dfs.namenode.rpc-address": f"{here}{rpc}",
            "dfs.namenode.http-address": f"{here}{web}",
            "dfs.datanode.address": f"{here}{data}",
            "dfs.datanode.ipc.address": f"{here}{ipc}",
            "dfs.datanode.http.address": f"{here}{http}",
            "dfs.datanode.hostname": "127.0.0.1",
            "dfs.namenode.safemode.extension": 0,
        }
        self._write("hdfs-site.xml", hdfs)
        (folder / "log4j.properties").write_text(LOG4J)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def _write(self, name: str, values: dict[str, Any]) -> None:
        rows = "".join(
            f"<property><name>{key}</name><value>{value}</value></property>" for key, value in values.items()
        )
        (self.folder / name).write_text(f"<configuration>{rows}</configuration>")

    def java(self, *words: str) -> list[str]:
        """Return the command line of a class of Hadoop."""
        return [*JAVA, "-cp", f"{self.folder}:{self.home}/lib/*:{self.home}", *words]

    def streaming(self) -> list[str]:
        """Return the command line of Hadoop Streaming without YARN: mappers and reducers run on this host."""
        local = [f"-Dmapreduce.{name}=local" for name in ("framework.name", "jobtracker.address")]
        return [*self.java("org.apache.hadoop.streaming.HadoopStreaming"), *local]

    def make(self) -> None:
        """Format it, and start both processes."""
        log = (self.folder / "format.log").open("wb")
        subprocess.run(
            self.java(NAMENODE, "-format", "-nonInteractive"), stdout=log, stderr=log, check=True, timeout=120
        )
        for name in (NAMENODE, DATANODE):
            self.start(name)
        self.wait()

    def start(self, name: str = NAMENODE) -> None:
        """Start a process."""
        log = (self.folder / f"{name.rpartition('.')[2]}.log").open("ab")
        self._processes[name] = subprocess.Popen(self.java(name), stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def end(self, name: str = NAMENODE) -> None:
        """Kill a process."""
        self._processes[name].kill()
        self._processes[name].wait()

    def close(self) -> None:
        """Kill both."""
        for name in self._processes:
            self.end(name)

    def client(self, user: str = "root") -> InsecureClient:
        """Return a client of a user; the superuser is who runs this."""
        return InsecureClient(self.url, user=user, timeout=20)

    def wait(self, path: str = "/ready", *user: str) -> None:
        """Wait until a user can write a file: a DataNode's connection of a user is stale after the NameNode restarts.

        The file is not empty, or no block would be needed, which a DataNode takes only once it has registered.
        """
        deadline = time.monotonic() + 90
        while True:
            try:
                self.client(*user).write(path, b"ready", overwrite=True)
                return
            except (HdfsError, RequestException):
                logs = sorted(self.folder.glob("*.log"))
                assert time.monotonic() < deadline, "\n".join(log.read_text()[-2000:] for log in logs)
                time.sleep(0.2)

    def provide(self, path: str, owner: str) -> None:
        """Make a directory of a user, as the role does."""
        self.client().delete(path, recursive=True)
        self.client().makedirs(path)
        self.client().set_owner(path, owner, owner)
