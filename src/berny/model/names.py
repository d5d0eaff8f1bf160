"""What things are called: the one place where a name is made. Nothing takes a name apart to learn what it means."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
"""Of a pipeline, a stage, a component and a service: it becomes part of units, users, topics' groups and paths."""
NAME_LENGTH = 30
COMPONENT = re.compile(r"[a-z][a-z0-9]*")
"""Of a component: it becomes part of the names of variables as well."""
UIDS = range(6000, 7000)
"""Of the users that components and pipelines run as: the same on every node, so that a data disk can move."""
PATH = re.compile(r"(/[A-Za-z0-9._-]+)+")
DEAD_LETTERS = ".dlq"


def is_name(text: str) -> bool:
    """Return whether a pipeline, a stage, a component or a service may be called so."""
    return len(text) <= NAME_LENGTH and NAME.fullmatch(text) is not None


def unit(pipeline: str, stage: str) -> str:
    """Return the name of a stage's unit, without the suffix."""
    return f"berny-{pipeline}-{stage}"


def target(pipeline: str) -> str:
    """Return the name of the unit that holds a pipeline's stages together."""
    return f"berny-{pipeline}.target"


def group(pipeline: str, stage: str) -> str:
    """Return the consumer group that a stage reads topics as."""
    return f"{pipeline}-{stage}"


def dead_letters(topic: str) -> str:
    """Return the topic of what cannot be understood of a topic."""
    return f"{topic}{DEAD_LETTERS}"


def checkpoint(pipeline: str, name: str) -> str:
    """Return the directory in the distributed file system of how far a query has come: a stage's, by its name or another."""
    return f"/data/{pipeline}/checkpoints/{name}"


def disk(pipeline: str) -> str:
    """Return the name of a pipeline's data disk, as a service's is the service's."""
    return f"berny-{pipeline}"


def data(pipeline: str) -> str:
    """Return where the data disk of a pipeline is on a node; its spool is on it."""
    return f"/data/{disk(pipeline)}"


def state(pipeline: str, stage: str) -> str:
    """Return the directory of a stage's own state."""
    return f"/var/lib/{unit(pipeline, stage)}"


def archive(pipeline: str) -> str:
    """Return the archive that has a pipeline's code."""
    return f"berny-{pipeline}"


def heap(service: str) -> str:
    """Return the variable that sets the heap of a service."""
    return f"{service.replace('-', '_')}_heap"


def nearest(word: str, known: Iterable[str]) -> str:
    """Return ``; did you mean …?`` with the nearest known name, or nothing where none is near."""
    found = difflib.get_close_matches(word, sorted(known), n=1, cutoff=0.5)
    return f"; did you mean {found[0]}?" if found else ""


def nearest_or_all(word: str, known: Iterable[str]) -> str:
    """Return ``; did you mean …?`` with the nearest known name, or ``; there are …`` with all of them."""
    known = sorted(known)
    return nearest(word, known) or f"; there are {', '.join(known)}"
