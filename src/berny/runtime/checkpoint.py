"""Finds where a Spark query continues in a topic, before it starts, so that missing offsets can't keep it from starting.

A query whose checkpoint refers to offsets or a topic that no longer exist fails for ever (``failOnDataLoss``), or skips the
missing records silently. So the checkpoint is compared with the topic first. If it can't be followed, the missing ranges are
recorded, and the query gets a new checkpoint. This is only for stateless queries: aggregations are lost with a checkpoint.
"""

from __future__ import annotations

import json
import logging
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace

from hdfs import InsecureClient

from berny.runtime.skipped import Gap, Skipped
from berny.runtime.stage import log, pause
from berny.runtime.topics import TopicWatch, resume, watermarks

LOGGER = logging.getLogger("checkpoint")
ORIGIN = "origin.json"
SETTLE_SECONDS = 10
"""How long a newly elected leader may take until it knows the last offset again."""


@dataclass(frozen=True)
class Progress:
    """The position of a checkpoint: the next offset by partition, in the topic with that id (empty if unknown)."""

    topic_id: str
    offsets: dict[int, int]
    sink: str = ""
    """Identifies the store that the query writes to; empty if that does not matter."""
    id: str = ""
    """Identifies the checkpoint, whose batches are numbered from 0; empty in one of an earlier version."""
    former: tuple[str, ...] = ()
    """The ids of those that it has replaced, the last one last."""
    batch: int = -1
    """The last complete batch; -1 before the first one."""


class Checkpoint:
    """A query's checkpoint in HDFS. Spark's files are only read; ``origin.json`` has the topic and the first offsets."""

    def __init__(self, web_url: str, user: str, path: str) -> None:
        self._client = InsecureClient(web_url, user=user, timeout=(5, 30))
        self._path = path
        self._beside = f"{path}.new"

    def progress(self, topic: str) -> Progress | None:
        """Return its position, or None if there is no checkpoint.

        Raises:
            HdfsError, RequestException: it can't be read.
        """
        if self._client.status(self._path, strict=False) is None:
            # Interrupted between the removal of the old checkpoint and the renaming of the new one.
            if self._origin(self._beside) is None:
                return None
            self._client.rename(self._beside, self._path)
        origin = self._origin(self._path)
        done = self._last("commits")
        if done is not None:
            offsets = topic_offsets(self._read(f"{self._path}/offsets/{done}"), topic)
            return replace(origin or Progress("", {}), offsets=offsets, batch=done)
        return origin

    def begin(self, progress: Progress) -> None:
        """Replace it by an empty one that begins there. If interrupted, either the old or the new one is found.

        Raises:
            HdfsError, RequestException: HDFS refuses.
        """
        self._client.delete(self._beside, recursive=True)
        self._client.write(f"{self._beside}/{ORIGIN}", data=_written(progress))
        self._client.delete(self._path, recursive=True)
        self._client.rename(self._beside, self._path)

    def adopt(self, progress: Progress) -> None:
        """Record the topic in a checkpoint of an earlier version.

        Raises:
            HdfsError, RequestException: HDFS refuses.
        """
        self._client.write(f"{self._path}/{ORIGIN}", data=_written(progress), overwrite=True)

    def _origin(self, folder: str) -> Progress | None:
        if self._client.status(f"{folder}/{ORIGIN}", strict=False) is None:
            return None
        try:
            body = json.loads(self._read(f"{folder}/{ORIGIN}"))
        except ValueError:
            return None
        offsets = {int(partition): offset for partition, offset in body["offsets"].items()}
        rest = body.get("sink", ""), body.get("id", ""), tuple(body.get("former", ()))
        return Progress(body["topic_id"], offsets, *rest)

    def _last(self, folder: str) -> int | None:
        if self._client.status(f"{self._path}/{folder}", strict=False) is None:
            return None
        return max((int(name) for name in self._client.list(f"{self._path}/{folder}") if name.isdigit()), default=None)

    def _read(self, path: str) -> str:
        with self._client.read(path) as reader:
            return bytes(reader.read()).decode()


def _written(progress: Progress) -> bytes:
    names = {"sink": progress.sink, "id": progress.id, "former": progress.former}
    return json.dumps({"topic_id": progress.topic_id, "offsets": progress.offsets, **names}).encode()


def topic_offsets(text: str, topic: str) -> dict[int, int]:
    """Return the next offsets by partition from a file of a query's offset log.

    Source of the format: OffsetSeqLog of Spark, version 1: a line with the version, one with metadata, one for each source.
    """
    for line in text.splitlines()[2:]:
        found = json.loads(line)
        if isinstance(found, dict) and topic in found:
            return {int(partition): int(offset) for partition, offset in found[topic].items()}
    raise ValueError(f"no offsets of {topic} in {text[:200]!r}")


def where_to_begin(
    known: Progress | None, topic: str, topic_id: str, marks: Mapping[int, tuple[int, int]], sink: str = ""
) -> tuple[dict[int, int] | None, list[Gap]]:
    """Return the offsets at which a new checkpoint begins, or None if the current one can be followed, and the gaps.

    Args:
        known: the position of the checkpoint.
        topic: the topic's name.
        topic_id: the id of the topic that exists now.
        marks: by partition, the earliest available offset and the next one to be written.
        sink: the id of the store that is written to now.
    """
    if known is None or known.topic_id not in ("", topic_id) or known.sink != sink:
        return {partition: low for partition, (low, _) in marks.items()}, []
    wanted = {partition: known.offsets.get(partition, 0) for partition in marks}
    found = {partition: resume(wanted[partition], *mark) for partition, mark in marks.items()}
    gaps = [
        Gap(topic, topic_id, partition, wanted[partition], offset - 1)
        for partition, (offset, gone) in sorted(found.items())
        if gone
    ]
    following = {partition: offset for partition, (offset, _) in found.items()}
    return (None if following == wanted else following), gaps


def following(known: Progress | None, topic_id: str, offsets: dict[int, int], sink: str) -> Progress:
    """Return the position of a new checkpoint that replaces one, if there is one."""
    former = (*known.former, known.id) if known and known.id else ()
    return Progress(topic_id, offsets, sink, uuid.uuid4().hex[:12], former)


def prepare(
    checkpoint: Checkpoint,
    watch: TopicWatch,
    bootstrap_servers: str,
    skipped: Skipped,
    stop: threading.Event,
    sink: str = "",
) -> dict[str, dict[str, int]] | None:
    """Make sure that a query can follow its checkpoint; return its ``startingOffsets``, or None if the stage has to stop.

    Waits while the topic does not exist. If the store has another id than ``sink``, the topic is read from its beginning.

    Raises:
        HdfsError, RequestException, KafkaException: HDFS or Kafka does not respond.
    """
    topic = watch.topic
    topic_id = watch.begin(stop)
    if not topic_id:
        return None
    known = checkpoint.progress(topic)
    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        marks = watermarks(bootstrap_servers, topic)
        ahead = [p for p, (_, high) in marks.items() if known and known.offsets.get(p, 0) > high]
        if not ahead or (known and known.topic_id not in ("", topic_id)) or time.monotonic() > deadline:
            break
        pause(stop, 1)
    begin, gaps = where_to_begin(known, topic, topic_id, marks, sink)
    if begin is None:
        assert known
        if not known.topic_id:
            checkpoint.adopt(replace(known, topic_id=topic_id))
        begin = {partition: known.offsets.get(partition, 0) for partition in marks}
    else:
        for gap in gaps:
            skipped.add(gap)
        checkpoint.begin(following(known, topic_id, begin, sink))
        if not gaps:
            reason = "there is no checkpoint"
            if known:
                same = known.topic_id in ("", topic_id)
                reason = "offsets that were read are gone" if same else "the topic was recreated"
                reason = "it is another store" if same and known.sink != sink else reason
            log(LOGGER, logging.WARNING, "reading the topic from its beginning", topic=topic, reason=reason)
    return {topic: {str(partition): offset for partition, offset in begin.items()}}
