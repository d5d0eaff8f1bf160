"""An HBase of its own for tests of what is written to it: all in one process that nodes run apart, and Thrift."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import happybase
from hadoop import JAVA, _free_ports
from thriftpy2.thrift import TException

ROLE = Path(__file__).resolve().parents[2] / "roles" / "hbase"
OPENS = [f"--add-opens=java.base/java.{name}=ALL-UNNAMED" for name in ("lang", "lang.reflect", "nio", "io")]
OPENS.append("--add-opens=java.base/sun.nio.ch=ALL-UNNAMED")
MASTER = "org.apache.hadoop.hbase.master.HMaster"
THRIFT = "org.apache.hadoop.hbase.thrift.ThriftServer"


class HBase:
    """A master with a region server and ZooKeeper in its process, on local files; and Thrift, at ``port``."""

    def __init__(self, folder: Path, home: Path) -> None:
        self.folder, self.home = folder, home
        zookeeper, self.port, self._web, *ports = _free_ports(7)
        names = (
            "hbase.master.port",
            "hbase.master.info.port",
            "hbase.regionserver.port",
            "hbase.regionserver.info.port",
        )
        values: dict[str, Any] = dict(zip(names, ports, strict=True)) | {
            "hbase.rootdir": f"file://{folder}/root",
            "hbase.tmp.dir": folder / "tmp",
            "hbase.zookeeper.quorum": "127.0.0.1",
            "hbase.zookeeper.property.clientPort": zookeeper,
            "hbase.zookeeper.property.dataDir": folder / "zookeeper",
            "hbase.unsafe.regionserver.hostname": "127.0.0.1",
            "hbase.master.hostname": "127.0.0.1",
            "hbase.wal.provider": "filesystem",
            "hbase.unsafe.stream.capability.enforce": "false",
            "hbase.regionserver.thrift.port": self.port,
            "hbase.thrift.info.port": self._web,
        }
        rows = "".join(f"<property><name>{key}</name><value>{one}</value></property>" for key, one in values.items())
        (folder / "hbase-site.xml").write_text(f"<configuration>{rows}</configuration>")
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def java(self, *words: str) -> list[str]:
        """Return the command line of a class of HBase."""
        return [JAVA[0], "-Xmx384m", *JAVA[2:], *OPENS, "-cp", f"{self.folder}:{self.home}/lib/*", *words]

    def start(self, name: str) -> None:
        """Start a process."""
        log = (self.folder / f"{name.rpartition('.')[2]}.log").open("ab")
        self._processes[name] = subprocess.Popen(
            self.java(name, "start"), stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder
        )

    def end(self, name: str) -> None:
        """Kill a process."""
        self._processes[name].kill()
        self._processes[name].wait()

    def make(self) -> None:
        """Start both."""
        for name in (MASTER, THRIFT):
            self.start(name)
        self.wait()

    def wait(self) -> None:
        """Wait until it can be read through Thrift."""
        deadline = time.monotonic() + 150
        while True:
            try:
                connection = happybase.Connection("127.0.0.1", self.port, timeout=10_000, autoconnect=False)
                connection.open()
                list(connection.table("hbase:meta").scan(limit=1))
                connection.close()
                return
            except (TException, OSError):
                logs = sorted(self.folder.glob("*.log"))
                assert time.monotonic() < deadline, "\n".join(log.read_text()[-3000:] for log in logs)
                time.sleep(0.5)

    def names(self) -> list[bytes]:
        """Return the names of its tables."""
        return list(happybase.Connection("127.0.0.1", self.port, timeout=20_000).tables())

    def tables(self, **work: Any) -> None:
        """Create, alter and drop tables as the role does."""
        script = self.folder / "tables.rb"
        script.write_text((ROLE / "templates" / "tables.rb.j2").read_text().replace("{{ ansible_managed }}", ""))
        given = json.dumps({"create": {}, "alter": {}, "drop": []} | work)
        done = subprocess.run(
            self.java("org.jruby.Main", str(script)), input=given, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def close(self) -> None:
        """Kill both."""
        for name in self._processes:
            self.end(name)
