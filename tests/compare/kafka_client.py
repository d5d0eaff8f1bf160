"""Publishes to a topic or reads it with one client of Kafka, on a node; prints what it did as JSON.

Both clients are set up as Berny's own stages are: acknowledged by all replicas, idempotent, LZ4, batches that are waited for.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Callable
from typing import Any

GIVE_UP_SECONDS = 30
QUIET_SECONDS = 15


def confluent_publish(servers: str, topic: str) -> Callable[[list[bytes]], bool]:
    """Return a function that publishes records, waits for them, and returns whether all are acknowledged."""
    from confluent_kafka import Producer

    # A client that meets a broker which is away asks the others at once.
    producer = Producer(
        {"bootstrap.servers": servers, "acks": "all", "enable.idempotence": True, "compression.type": "lz4",
         "linger.ms": 5, "message.timeout.ms": GIVE_UP_SECONDS * 1000, "reconnect.backoff.max.ms": 1000}
    )  # fmt: skip

    def publish(batch: list[bytes]) -> bool:
        failed: list[Any] = []
        for value in batch:
            while True:
                try:
                    producer.produce(topic, value, on_delivery=lambda error, _: failed.append(error) if error else None)
                    break
                except BufferError:
                    producer.poll(0.1)
        return not producer.flush(GIVE_UP_SECONDS + 5) and not failed

    return publish


def python_publish(servers: str, topic: str) -> Callable[[list[bytes]], bool]:
    """The same by ``kafka-python``."""
    from kafka import KafkaProducer
    from kafka.errors import KafkaError

    producer = KafkaProducer(
        bootstrap_servers=servers.split(","), acks="all", enable_idempotence=True, compression_type="lz4", linger_ms=5,
        batch_size=1 << 20,
        delivery_timeout_ms=GIVE_UP_SECONDS * 1000, request_timeout_ms=8000, reconnect_backoff_max_ms=1000,
    )  # fmt: skip

    def publish(batch: list[bytes]) -> bool:
        sent = [producer.send(topic, value) for value in batch]
        try:
            for one in sent:
                one.get(GIVE_UP_SECONDS + 5)
        except KafkaError:
            return False
        return True

    return publish


def confluent_read(servers: str, topic: str, group: str) -> tuple[Callable[[], list[bytes]], Callable[[], None]]:
    """Return a function that takes what is there, and one that commits it."""
    from confluent_kafka import Consumer

    consumer = Consumer(
        {"bootstrap.servers": servers, "group.id": group, "enable.auto.commit": False, "auto.offset.reset": "earliest"}
    )
    consumer.subscribe([topic])

    def take() -> list[bytes]:
        found = [message for message in consumer.consume(5000, 0.5) if not message.error()]
        return [message.value() or b"" for message in found]

    return take, lambda: consumer.commit(asynchronous=True) and None


def python_read(servers: str, topic: str, group: str) -> tuple[Callable[[], list[bytes]], Callable[[], None]]:
    """The same by ``kafka-python``."""
    from kafka import KafkaConsumer

    consumer = KafkaConsumer(
        topic, bootstrap_servers=servers.split(","), group_id=group, enable_auto_commit=False, auto_offset_reset="earliest",
        max_poll_records=5000,
    )  # fmt: skip

    def take() -> list[bytes]:
        return [record.value for records in consumer.poll(500).values() for record in records]

    return take, consumer.commit_async


PUBLISH = {"confluent-kafka": confluent_publish, "kafka-python": python_publish}
READ = {"confluent-kafka": confluent_read, "kafka-python": python_read}


def value(number: int, size: int) -> bytes:
    """Return a record that begins with its number."""
    return json.dumps({"number": number, "text": f"{number:x}" * (size // 8)}).encode()[: size - 1] + b"}"


def main() -> None:
    """Do what the command line says."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("action", choices=["publish", "read", "publish-slowly", "count"])
    arguments.add_argument("client", choices=sorted(PUBLISH))
    arguments.add_argument("servers")
    arguments.add_argument("topic")
    arguments.add_argument("--records", type=int, default=100_000)
    arguments.add_argument("--size", type=int, default=1600, help="bytes of a record")
    arguments.add_argument("--batch", type=int, default=1000, help="records that are waited for together")
    arguments.add_argument("--seconds", type=float, default=45, help="how long publish-slowly takes")
    given = arguments.parse_args()
    found: dict[str, Any] = {}
    if given.action in ("read", "count"):
        take, commit = READ[given.client](given.servers, given.topic, f"compare-{time.time():.6f}")
        found = read(take, commit, given.records) if given.action == "read" else count(take)
    else:
        publish = PUBLISH[given.client](given.servers, given.topic)
        publish([value(0, 100)])
        if given.action == "publish":
            batches = [
                [value(number, given.size) for number in range(first, min(first + given.batch, given.records))]
                for first in range(0, given.records, given.batch)
            ]
            before, since = cpu(), time.monotonic()
            for batch in batches:
                if not publish(batch):
                    raise SystemExit("not acknowledged")
            found |= {"seconds": time.monotonic() - since, "cpu": cpu() - before}
        else:
            found |= publish_slowly(publish, given.seconds)
    print(json.dumps(found))


def cpu() -> float:
    """Return the processor time of this process in seconds."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def read(take: Callable[[], list[bytes]], commit: Callable[[], None], records: int) -> dict[str, Any]:
    """Read so many records; what comes first, after the group was joined, is not measured."""
    taken: list[bytes] = []
    until = time.monotonic() + QUIET_SECONDS
    while not taken and time.monotonic() < until:
        taken = take()
    before, since, number = cpu(), time.monotonic(), 0
    while number + len(taken) < records and time.monotonic() - since < 300:
        number += len(take())
        commit()
    return {"seconds": time.monotonic() - since, "cpu": cpu() - before, "counted": number}


def count(take: Callable[[], list[bytes]]) -> dict[str, Any]:
    """Read until nothing comes; return how many records, and how many different ones, there are."""
    numbers: list[int] = []
    quiet = time.monotonic()
    while time.monotonic() - quiet < QUIET_SECONDS:
        for one in take():
            numbers.append(int(one[:40].split(b",")[0].split(b":")[1]))
            quiet = time.monotonic()
    return {"records": len(numbers), "different": len(set(numbers) - {0})}


def publish_slowly(publish: Callable[[list[bytes]], bool], seconds: float) -> dict[str, Any]:
    """Publish ten records at a time, twenty times a second; a batch that is not acknowledged is sent again."""
    number, longest, again = 1, 0.0, 0
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        batch = [value(number + one, 1600) for one in range(10)]
        since = time.monotonic()
        while not publish(batch):
            again += 1
        longest = max(longest, time.monotonic() - since)
        number += 10
        time.sleep(max(0.0, 0.05 - (time.monotonic() - since)))
    return {"published": number - 1, "longest": longest, "again": again}


if __name__ == "__main__":
    main()
