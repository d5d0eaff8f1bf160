"""A Kafka of its own for tests of what is between topics: one broker, the product's jars, on free ports of 127.0.0.1."""

from __future__ import annotations

import socket
import subprocess
import time
import uuid
from base64 import urlsafe_b64encode
from contextlib import ExitStack, closing
from pathlib import Path

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from berny.runtime.kafka import Publisher, Record
from berny.runtime.topics import watermarks

JAVA = ["java", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
LOG4J = """
log4j.rootLogger=WARN, stderr
log4j.appender.stderr=org.apache.log4j.ConsoleAppender
log4j.appender.stderr.target=System.err
log4j.appender.stderr.layout=org.apache.log4j.PatternLayout
log4j.appender.stderr.layout.ConversionPattern=%p %c{1}: %m%n
"""


def _id() -> str:
    return urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")


class Kafka:
    """A broker that is its own controller: it needs no ZooKeeper, and clients see no difference."""

    def __init__(self, folder: Path, home: Path) -> None:
        self._folder, self._home = folder, home
        with ExitStack() as taken:
            found = [taken.enter_context(closing(socket.create_server(("127.0.0.1", 0)))) for _ in range(2)]
            broker, controller = (one.getsockname()[1] for one in found)
        self.servers = f"127.0.0.1:{broker}"
        logs = folder / "logs"
        logs.mkdir()
        # What Kafka's own tool would write.
        facts = {"version": 1, "cluster.id": _id(), "node.id": 1, "directory.id": _id()}
        (logs / "meta.properties").write_text("".join(f"{name}={value}\n" for name, value in facts.items()))
        settings = {
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.voters": f"1@127.0.0.1:{controller}",
            "controller.listener.names": "CONTROLLER",
            "listeners": f"PLAINTEXT://{self.servers},CONTROLLER://127.0.0.1:{controller}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "log.dirs": logs,
            "auto.create.topics.enable": "false",
            "offsets.topic.replication.factor": 1,
            "offsets.topic.num.partitions": 1,
            "message.max.bytes": 4 << 20,
        }
        (folder / "server.properties").write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        (folder / "log4j.properties").write_text(LOG4J)

    def make(self) -> None:
        """Start it, and wait until it responds."""
        words = [f"-Dlog4j.configuration=file:{self._folder}/log4j.properties", "-cp", f"{self._home}/lib/*"]
        command = [*JAVA, *words, "kafka.Kafka", str(self._folder / "server.properties")]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + 90
        self._admin = AdminClient({"bootstrap.servers": self.servers, "log_level": 0})
        while True:
            try:
                self._admin.list_topics(timeout=2)
                return
            except KafkaException:
                log = (self._folder / "log").read_text()[-2000:]
                assert self._process.poll() is None and time.monotonic() < deadline, log

    def close(self) -> None:
        """Kill it."""
        self._process.kill()
        self._process.wait()

    def create(self, *topics: str, partitions: int = 3) -> None:
        """Create topics, in place of those that there are."""
        known = [topic for topic in topics if topic in self._admin.list_topics(timeout=10).topics]
        for done in (self._admin.delete_topics(known) if known else {}).values():
            done.result(30)
        for done in self._admin.create_topics([NewTopic(topic, partitions, 1) for topic in topics]).values():
            done.result(30)

    def publish(self, *records: Record) -> None:
        """Publish records."""
        Publisher(self.servers).publish(records)

    def values(self, topic: str) -> list[bytes]:
        """Return the values of a topic, partition by partition."""
        marks = watermarks(self.servers, topic)
        left = sum(high - low for low, high in marks.values())
        found: list[tuple[int, int, bytes]] = []
        settings = {"bootstrap.servers": self.servers, "group.id": "tests", "enable.auto.commit": False}
        with closing(Consumer(settings)) as client:
            client.assign([TopicPartition(topic, number, low) for number, (low, _) in marks.items()])
            while len(found) < left:
                message = client.poll(20)
                assert message and not message.error(), "no record arrives"
                found.append((message.partition() or 0, message.offset() or 0, message.value() or b""))
        return [value for _, _, value in sorted(found)]
