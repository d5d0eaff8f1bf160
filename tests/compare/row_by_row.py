"""Publishes each row of a file by itself and inserts each by itself, as a first script does it, on PostgreSQL's node.

The database ``berny_compare`` has the table and is there already.
"""

from __future__ import annotations

import argparse
import csv
import json
import threading
import time
from pathlib import Path

import psycopg2
from confluent_kafka import Consumer, Producer

TABLE = "CREATE TABLE customers (id text PRIMARY KEY, value jsonb NOT NULL)"
INSERT = "INSERT INTO customers VALUES (%s, %s) ON CONFLICT (id) DO UPDATE SET value = EXCLUDED.value"


def publish(given: argparse.Namespace) -> None:
    """Publish each row, and wait until brokers have it."""
    producer = Producer({"bootstrap.servers": given.servers, "acks": "all"})
    until = time.monotonic() + given.seconds
    with given.file.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if time.monotonic() > until:
                break
            producer.produce(given.topic, json.dumps(row).encode())
            producer.flush()


def main() -> None:
    """Print how many rows a second got from the file to the table."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("file", type=Path)
    arguments.add_argument("--servers", required=True)
    arguments.add_argument("--topic", required=True)
    arguments.add_argument("--seconds", type=float, default=30)
    given = arguments.parse_args()
    consumer = Consumer(
        {"bootstrap.servers": given.servers, "group.id": f"compare-{time.time():.6f}", "auto.offset.reset": "earliest"}
    )
    consumer.subscribe([given.topic])
    while not consumer.assignment():
        consumer.poll(0.1)
    database = psycopg2.connect(host="/run/postgresql", user="postgres", dbname="berny_compare")
    cursor = database.cursor()
    cursor.execute("DROP TABLE IF EXISTS customers")
    cursor.execute(TABLE)
    database.commit()
    since, last, count = time.monotonic(), time.monotonic(), 0
    publisher = threading.Thread(target=publish, args=(given,))
    publisher.start()
    while True:
        message = consumer.poll(1)
        if message and not message.error():
            row = json.loads(message.value())
            cursor.execute(INSERT, (row["Customer Id"], json.dumps(row)))
            database.commit()
            count, last = count + 1, time.monotonic()
        elif not publisher.is_alive():
            break
    consumer.close()
    print(json.dumps({"rows/s": count / (last - since)}))


main()
